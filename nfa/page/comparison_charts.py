"""The charts of a comparison: scores against what they cost, learning, and the ansatz by depth and epoch."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from nfa.ansatz.words import finite
from nfa.compare import Comparison, Run
from nfa.compare.comparison import Group, deviation
from nfa.compare.runs import mean
from nfa.compare.sample_sizes import SizeCurve, size_curves
from nfa.page import svg
from nfa.page.marks import SHAPES
from nfa.page.svg import Figure, Series, figure, line_chart

Point = tuple[float, float]

_FEATURES = "features/"
_OF_MACHINES = ("features/self_consistency", "features/nc1_", "features/nc2_")  # measured on any data
_CURVES = ("val/accuracy", "val/mse", "val/loss")
_MOST_NAMED = 16  # groups beyond which names beside points would cover them, and a legend takes their place
_WIDE_RANGE = 20  # factor beyond which an axis is logarithmic


def looks(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Colour and shape of each label in all charts, and in the table beside them."""
    shapes = list(SHAPES)
    return {
        group.label: {
            "color": svg.PALETTE[i % len(svg.PALETTE)],
            "shape": shapes[i % len(shapes)],
            "hollow": group.is_kernel,
            "dashed": group.is_kernel,
        }
        for i, group in enumerate(groups)
    }


def _series(
    comparison: Comparison, points: Callable[[Group], Sequence[Point]], *, line: bool = True
) -> list[Series]:
    """A series for each group that has points."""
    styles = looks(comparison.groups)
    found = [(group.label, points(group)) for group in comparison.groups]
    return [
        Series(label, [x for x, _ in pairs], [y for _, y in pairs], line=line, **styles[label])
        for label, pairs in found
        if pairs
    ]


# -- score and cost --------------------------------------------------------------------------------


def cost_charts(comparison: Comparison) -> list[Figure]:
    """Draw scores against seconds and against memory, a point a run; nothing of what no run tells."""
    costs = (
        ("fit_seconds", "Score against time", "seconds of fitting", True),
        ("fit_memory_mb", "Score against memory", "memory of fitting, MB", False),
    )
    charts = []
    for name, title, x_label, log in costs:
        series = _series(comparison, partial(_costs, name=name), line=False)
        known = [x for s in series for x in s.x]
        if series:
            log = log or max(known) > _WIDE_RANGE * min(known)
            named = len(series) <= _MOST_NAMED
            chart = partial(
                line_chart, series, title=title, x_label=x_label, y_label=comparison.metric, x_log=log,
                named=named, plot_height=300,
            )  # fmt: skip
            charts.append(figure(chart, width=svg.HALF))
    return charts


def _costs(group: Group, name: str) -> list[Point]:
    pairs = ((run.summary.get(name), run.score) for run in group.runs)
    return [(float(x), y) for x, y in pairs if x is not None and math.isfinite(x) and x > 0]


# -- score and samples -----------------------------------------------------------------------------


def size_chart(comparison: Comparison) -> Figure | None:
    """Draw mean scores against the number of training samples; None where that is the same for all."""
    curves = size_curves(comparison)
    if not curves:
        return None
    kernels = {run.model for run in comparison.runs if run.is_kernel}
    series = [
        _size_series(i, curve, curve.label.partition(" (")[0] in kernels) for i, curve in enumerate(curves)
    ]
    chart = partial(
        line_chart, series, title="Score against training samples", x_label="training samples",
        y_label=comparison.metric, x_log=True, plot_height=300,
    )  # fmt: skip
    return figure(chart)


def _size_series(index: int, curve: SizeCurve, is_kernel: bool) -> Series:
    """A point for each number of samples, with the standard deviation over runs."""
    return Series(
        curve.label,
        list(curve.scores),
        [mean(scores) for scores in curve.scores.values()],
        svg.PALETTE[index % len(svg.PALETTE)],
        errors=[deviation(scores) for scores in curve.scores.values()],
        shape=list(SHAPES)[index % len(SHAPES)],
        hollow=is_kernel,
        dashed=is_kernel,
    )


# -- learning --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learning:
    """The validation curves, and the groups that have none."""

    chart: Figure
    absent: Sequence[str]


def learning_chart(comparison: Comparison) -> Learning | None:
    """Draw the validation curve of each group, mean over runs; None where no run has one."""
    name = next((n for n in _CURVES if any(run.curve(n) for run in comparison.runs)), None)
    if name is None:
        return None
    series = _series(comparison, lambda group: mean_curve([run.curve(name) for run in group.runs]))
    values = finite(y for s in series for y in s.y)
    drawn = {s.label for s in series}
    chart = partial(
        line_chart,
        series,
        title="Validation by epoch and by round",
        x_label="epoch or round",
        y_label=name,
        y_log=min(values, default=0.0) > 0 and max(values) > _WIDE_RANGE * min(values),
        plot_height=300,
    )
    return Learning(figure(chart), [group.label for group in comparison.groups if group.label not in drawn])


def feature_charts(comparison: Comparison) -> list[Figure]:
    """Draw what the data set knows of the features that are to be learned, by epoch and round."""
    names = sorted({name for run in comparison.runs for row in run.metrics for name in row})
    drawn = [name for name in names if name.startswith(_FEATURES) and not name.startswith(_OF_MACHINES)]
    return [figure(partial(_feature_chart, comparison, name), width=svg.HALF) for name in drawn]


def _feature_chart(comparison: Comparison, name: str, *, width: int) -> Markup:
    series = _series(comparison, lambda group: mean_curve(run.curve(name) for run in group.runs))
    return line_chart(
        series, title=name.removeprefix(_FEATURES), x_label="epoch or round", y_label=name, width=width
    )


def mean_curve(curves: Iterable[Sequence[Point]]) -> list[Point]:
    """Mean over curves where all of them have a value; those without any point take no part."""
    known = [{x: y for x, y in curve if math.isfinite(y)} for curve in curves]
    known = [curve for curve in known if curve]
    shared = set.intersection(*map(set, known)) if known else set()
    return [(x, mean(curve[x] for curve in known)) for x in sorted(shared)]


# -- ansatz ----------------------------------------------------------------------------------------


def ansatz_charts(comparison: Comparison) -> list[Figure]:
    """Draw alignment by relative depth, and its mean by epoch; empty where nothing was measured."""
    by_depth = _series(comparison, lambda group: depth_curve(group.runs))
    by_epoch = _series(comparison, lambda group: mean_curve(map(_epochs, group.runs)))
    charts = (
        (by_depth, "Alignment by depth", "relative depth, 0 input, 1 output", "alignment"),
        (by_epoch, "Mean alignment by epoch and by round", "epoch or round", "mean alignment"),
    )
    return [
        figure(
            partial(
                line_chart,
                series,
                title=title,
                x_label=x_label,
                y_label=y_label,
                rules=[0.0],
                plot_height=280,
            ),
            width=svg.HALF,
        )
        for series, title, x_label, y_label in charts
        if by_depth and series
    ]


def depth_curve(runs: Iterable[Run]) -> list[Point]:
    """(relative depth, alignment) of the layers measured last, mean over the runs that have a layer."""
    layers: dict[str, list[Point]] = {}
    for run in runs:
        known = [row for row in run.last if not row.skipped]
        for i, row in enumerate(known):
            if row.measured and math.isfinite(row.alignment):
                layers.setdefault(row.layer, []).append((i / max(len(known) - 1, 1), row.alignment))
    return sorted((mean(x for x, _ in points), mean(y for _, y in points)) for points in layers.values())


def _epochs(run: Run) -> list[Point]:
    """(epoch, mean alignment over layers) of each measurement of a run."""
    epochs: dict[float, list[float]] = {}
    for row in run.ansatz:
        if row.measured and math.isfinite(row.epoch):
            epochs.setdefault(row.epoch, []).append(row.alignment)
    return [(epoch, mean(values)) for epoch, values in sorted(epochs.items())]
