"""The charts of a comparison: scores against what they cost, learning, and the ansatz by depth and epoch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from nfa.ansatz.words import finite
from nfa.compare import Comparison, Run
from nfa.compare.comparison import Group
from nfa.compare.runs import mean
from nfa.page import svg
from nfa.page.marks import SHAPES
from nfa.page.svg import Series, figure, line_chart
from nfa.page.text import escape

Point = tuple[float, float]

_CURVES = ("val/accuracy", "val/mse", "val/loss")
_MOST_NAMED = 16  # groups beyond which names beside points would cover them, and a legend takes their place
_WIDE_RANGE = 20  # factor beyond which an axis is logarithmic
_KEY = "Filled and solid: nets; hollow and dashed: kernel machines."


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


def _pair(*figures: str) -> str:
    return f'<div class="pair">{"".join(figures)}</div>'


# -- score and cost --------------------------------------------------------------------------------


def cost_section(comparison: Comparison) -> str:
    """Draw scores against seconds and against memory, a point a run; empty where no run tells of them."""
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
            options = {"title": title, "x_label": x_label, "y_label": comparison.metric, "x_log": log}
            named = len(series) <= _MOST_NAMED
            chart = partial(line_chart, series, named=named, plot_height=300, **options)
            charts.append(figure(chart, width=svg.HALF))
    if not charts:
        return ""
    better = "Up" if comparison.metric == "test/accuracy" else "Down"
    note = f"A point a run. {better} and to the left is better. {_KEY}"
    return f'<h2>Score and cost</h2>\n<p class="note">{note}</p>{_pair(*charts)}'


def _costs(group: Group, name: str) -> list[Point]:
    pairs = ((run.summary.get(name), run.score) for run in group.runs)
    return [(float(x), y) for x, y in pairs if x is not None and math.isfinite(x) and x > 0]


# -- learning --------------------------------------------------------------------------------------


def learning_section(comparison: Comparison) -> str:
    """Draw the validation curve of each group, mean over runs; empty where no run has one."""
    name = next((n for n in _CURVES if any(run.curve(n) for run in comparison.runs)), None)
    if name is None:
        return ""
    series = _series(comparison, lambda group: mean_curve([run.curve(name) for run in group.runs]))
    values = finite(y for s in series for y in s.y)
    log = min(values, default=0.0) > 0 and max(values) > _WIDE_RANGE * min(values)
    drawn = {s.label for s in series}
    absent = [group.label for group in comparison.groups if group.label not in drawn]
    words = f" Without validation data: {escape(', '.join(absent))}." if absent else ""
    chart = partial(
        line_chart,
        series,
        title="Validation by epoch and by round",
        x_label="epoch or round",
        y_label=name,
        y_log=log,
        plot_height=300,
    )
    caption = f"Mean over runs. {_KEY} Epoch 1 of a kernel machine is round 0, the plain kernel.{words}"
    return f"<h2>Learning</h2>\n{figure(chart, caption)}"


def mean_curve(curves: Iterable[Sequence[Point]]) -> list[Point]:
    """Mean over curves where all of them have a value; those without any point take no part."""
    known = [{x: y for x, y in curve if math.isfinite(y)} for curve in curves]
    known = [curve for curve in known if curve]
    shared = set.intersection(*map(set, known)) if known else set()
    return [(x, mean(curve[x] for curve in known)) for x in sorted(shared)]


# -- ansatz ----------------------------------------------------------------------------------------


def ansatz_section(comparison: Comparison) -> str:
    """Draw alignment by relative depth, and its mean by epoch; empty where nothing was measured."""
    by_depth = _series(comparison, lambda group: depth_curve(group.runs))
    by_epoch = _series(comparison, lambda group: mean_curve(map(_epochs, group.runs)))
    if not by_depth:
        return ""
    depth = partial(
        line_chart,
        by_depth,
        title="Alignment by depth",
        x_label="relative depth, 0 input, 1 output",
        y_label="alignment",
        rules=[0.0],
        plot_height=280,
    )
    epoch = partial(
        line_chart,
        by_epoch,
        title="Mean alignment by epoch and by round",
        x_label="epoch or round",
        y_label="mean alignment",
        rules=[0.0],
        plot_height=280,
    )
    note = (
        "Alignment of weights and sensitivity in each layer: 0 by chance, 1 where the ansatz with "
        f"α\u00a0=\u00a0½ holds. Means over runs. {_KEY} Layers of which it is undefined, like the last map "
        "of raw logits, count for the depth but have no point."
    )
    charts = [figure(depth, width=svg.HALF), *([figure(epoch, width=svg.HALF)] if by_epoch else [])]
    return f'<h2>Ansatz by depth</h2>\n<p class="note">{note}</p>{_pair(*charts)}'


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
    epochs: Mapping[float, list[float]] = {}
    for row in run.ansatz:
        if row.measured and math.isfinite(row.epoch):
            epochs.setdefault(row.epoch, []).append(row.alignment)
    return [(epoch, mean(values)) for epoch, values in sorted(epochs.items())]
