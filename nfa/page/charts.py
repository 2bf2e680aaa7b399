"""The charts of a page: statistics by depth, by part and by epoch, and the curves of a training."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from nfa.ansatz.row import VERDICTS, AnsatzRow
from nfa.ansatz.words import UNDEFINED, finite, show
from nfa.layers.parts import OTHER, Parts, find_parts, shown_part
from nfa.page import svg
from nfa.page.axes import Axis, range_of
from nfa.page.svg import Band, Figure, Series, figure, line_chart
from nfa.page.text import minus

Curves = Mapping[str, Sequence[tuple[float, float]]]

_PUBLISHED_ALPHAS = (0.5, 1.0)
_MOST_JOINED = 40  # layers of a part that a line joins: that of the heads of all blocks would be a thicket
_MEDIANS = {"alignment": "+.3f", "alpha_fit": ".2f", "cosine": ".3f", "null_mean": ".3f"}
_MOST_REFERENCES = 200  # layers beyond which rings, but those of the alignment, would hide the points


def _column(rows: Iterable[AnsatzRow], name: str) -> list[float]:
    return [getattr(row, name) for row in rows]


# -- by depth --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepthCharts:
    """Statistics of measured layers by depth, coloured by part where parts recur."""

    alignment: Figure
    cosine: Figure
    alpha: Figure
    fit: Figure
    errors: bool  # whether alignments have bars
    powers: Sequence[float]  # of the AGOP in the cosine
    parts: "PartTable | None"


def depth_charts(rows: Sequence[AnsatzRow], *, width: int = svg.WIDE) -> DepthCharts:
    """Draw alignment, cosine and exponent of measured layers, so many px wide where there is room."""
    parts = find_parts([row.layer for row in rows])
    draws = (_alignment_chart, _cosine_chart, _alpha_chart, _fit_chart)
    alignment, cosine, alpha, fit = (figure(draw(rows, parts), width=width) for draw in draws)
    errors = bool(finite(_errors(rows)))
    powers = sorted(set(finite(_column(rows, "power"))))
    table = _part_table(rows, parts) if parts else None
    return DepthCharts(alignment, cosine, alpha, fit, errors, powers, table)


def _depth_chart(
    rows: Sequence[AnsatzRow], parts: Parts | None, series: Sequence[Series], **options: Any
) -> Callable[..., Markup]:
    return partial(
        line_chart,
        series,
        x_label="layer, from input to output",
        x_names=[row.layer for row in rows],
        x_groups=parts.block_of_layer if parts else None,
        **options,
    )


def _errors(rows: Sequence[AnsatzRow]) -> list[float]:
    """Two standard errors of each alignment; of few layers, since bars of many would hide the points."""
    few = len(rows) <= _MOST_REFERENCES
    return [2 * error for error in _column(rows, "alignment_stderr")] if few else []


def _points(
    label: str,
    rows: Sequence[AnsatzRow],
    column: str,
    parts: Parts | None,
    errors: Sequence[float] = (),
) -> list[Series]:
    """Make the series of a statistic: one line, or one in its own colour for each part."""
    values = _column(rows, column)
    if not parts:
        return [Series(label, range(len(rows)), values, svg.BLUE, errors=errors)]
    series = []
    for part in parts.names:
        places = parts.layers(part)
        joined = part != OTHER and len(places) <= _MOST_JOINED
        color = part_color(parts, part)
        drawn = [values[i] for i in places]
        bars = [errors[i] for i in places] if errors else ()
        series.append(Series(shown_part(part), places, drawn, color, line=joined, faint=True, errors=bars))
    return series


def part_color(parts: Parts, part: str) -> str:
    """Colour of a part in all charts of the page."""
    return svg.GREY if part == OTHER else svg.PALETTE[parts.names.index(part)]


def _rings(
    label: str, rows: Sequence[AnsatzRow], column: str, color: str, parts: Parts | None = None
) -> Series:
    """Make the series of a reference value: rings that no line connects, grey where colours are parts."""
    color = svg.GREY if parts else color
    return Series(label, range(len(rows)), _column(rows, column), color, line=False, hollow=True)


def _alignment_chart(rows: Sequence[AnsatzRow], parts: Parts | None) -> Callable[..., Markup]:
    depth = range(len(rows))
    sds = [row.chance_sd for row in rows]
    series = [
        *_points("alignment", rows, "alignment", parts, _errors(rows)),
        _rings("at initialisation", rows, "init_alignment", svg.VERMILLION, parts),
    ]
    bands = [Band("chance, ± 2 sd", depth, [-2 * sd for sd in sds], [2 * sd for sd in sds])]
    title = "Alignment of weights and sensitivity"
    chart = _depth_chart(rows, parts, series, title=title, y_label="alignment", bands=bands, rules=[0.0])
    return partial(chart, plot_height=280)


def _cosine_chart(rows: Sequence[AnsatzRow], parts: Parts | None) -> Callable[..., Markup]:
    depth = range(len(rows))
    series = _points("cosine", rows, "cosine", parts)
    if len(rows) <= _MOST_REFERENCES:
        series.append(_rings("at initialisation", rows, "init_cosine", svg.VERMILLION, parts))
    if not parts:
        series.append(_rings("isotropic null", rows, "null_isotropic", svg.GREEN))
    means, sds = _column(rows, "null_mean"), _column(rows, "null_std")
    low = [mean - 2 * sd for mean, sd in zip(means, sds, strict=True)]
    high = [mean + 2 * sd for mean, sd in zip(means, sds, strict=True)]
    bands = [Band("null, mean ± 2 sd", depth, low, high)]
    title = "Cosine of NFM and AGOP"
    return _depth_chart(rows, parts, series, title=title, y_label="cosine", bands=bands)


def _alpha_chart(rows: Sequence[AnsatzRow], parts: Parts | None) -> Callable[..., Markup]:
    series = _points("fitted α", rows, "alpha_fit", parts)
    known = [v for s in series for v in finite(s.y)] + [0.0, 1.0]
    limits = max(min(known), -1.1) - 0.05, min(max(known), 1.6) + 0.1
    return _depth_chart(
        rows,
        parts,
        series,
        title="Fitted exponent",
        y_label="α",
        rules=_PUBLISHED_ALPHAS,
        y_range=limits,
    )


def _fit_chart(rows: Sequence[AnsatzRow], parts: Parts | None) -> Callable[..., Markup]:
    return _depth_chart(
        rows,
        parts,
        _points("r", rows, "alpha_r", parts),
        title="How well the exponent fits",
        y_label="r, correlation of the fit",
        rules=[0.0],
        y_range=(-1.05, 1.05),
    )


# -- by part ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartLine:
    """The layers of a part: how many, how many of the first four verdicts, their alignments, and medians."""

    name: str
    color: str
    layers: int
    verdicts: Sequence[int]
    strip: Markup
    medians: Sequence[str]


@dataclass(frozen=True)
class PartTable:
    """A line a part; the strips of all run over the same limits."""

    lines: Sequence[PartLine]
    limits: Sequence[str]


def _part_table(rows: Sequence[AnsatzRow], parts: Parts) -> PartTable:
    known = [*finite(_column(rows, "alignment")), 0.0]
    limits = min(known), max(known)
    lines = [
        _part_line(part, [rows[i] for i in parts.layers(part)], part_color(parts, part), limits)
        for part in parts.names
    ]
    return PartTable(lines, [minus(show(limit, ".2f")) for limit in limits])


def _part_line(part: str, rows: Sequence[AnsatzRow], color: str, limits: tuple[float, float]) -> PartLine:
    found = [row.verdict for row in rows]
    verdicts = [found.count(verdict) for verdict in VERDICTS[:4]]
    medians = [_median(_column(rows, column), spec) for column, spec in _MEDIANS.items()]
    strip = _strip(_column(rows, "alignment"), limits, color)
    return PartLine(shown_part(part), color, len(rows), verdicts, strip, medians)


def _strip(values: Iterable[float], limits: tuple[float, float], color: str, *, width: int = 180) -> Markup:
    """Draw values as translucent dots on a line, with an upright mark at zero; for a cell of a table."""
    axis = Axis(*range_of(limits, False, 0.0), 6, width - 6)
    dots = "".join(f'<circle cx="{axis(v):.1f}" cy="11" r="3.5"/>' for v in finite(values))
    return Markup(
        f'<svg class="strip" viewBox="0 0 {width} 22" aria-hidden="true">'
        f'<path d="M{axis.start} 11H{axis.stop}" stroke="currentColor" opacity=".2"/>'
        f'<path d="M{axis(0.0):.1f} 2V20" stroke="currentColor" opacity=".55"/>'
        f'<g style="fill:{color}" opacity=".55">{dots}</g></svg>'
    )


def _median(values: Iterable[float], spec: str) -> str:
    known = finite(values)
    return minus(show(statistics.median(known), spec)) if known else UNDEFINED


# -- by epoch --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Statistic:
    """What a chart by epoch shows, and what chance gives: a mean and a standard deviation of each row."""

    column: str
    title: str
    chance: str
    by_chance: Callable[[AnsatzRow], tuple[float, float]]


def _no_chance(row: AnsatzRow) -> tuple[float, float]:
    return math.nan, math.nan


_BY_EPOCH = (
    _Statistic("alignment", "Alignment while training", "chance, ± 2 sd", lambda row: (0.0, row.chance_sd)),
    _Statistic(
        "cosine", "Cosine while training", "null, mean ± 2 sd", lambda row: (row.null_mean, row.null_std)
    ),
)
_Y_LABELS = {"fact": "FACT", "fact_snapshot": "FACT now"}
_FACT_BY_EPOCH = (
    _Statistic("fact", "FACT of the mean gradient while training", "", _no_chance),
    _Statistic("fact_snapshot", "FACT of the gradient at the time", "", _no_chance),
)


def history_charts(history: Sequence[AnsatzRow]) -> list[Figure]:
    """Draw alignment and cosine of all layers over the epochs of a training, with median and chance.

    FACT too, where there is any; chance gives it nothing.
    """
    known = [told for told in _FACT_BY_EPOCH if finite(_column(history, told.column))]
    return [figure(_epoch_chart(history, told), width=svg.HALF) for told in (*_BY_EPOCH, *known)]


def _epoch_chart(history: Sequence[AnsatzRow], told: _Statistic) -> Callable[..., Markup]:
    known = [
        row
        for row in history
        if row.measured and math.isfinite(row.epoch) and math.isfinite(getattr(row, told.column))
    ]
    return partial(
        line_chart,
        [*_median_over_layers(known, told.column), *_layer_curves(known, told.column)],
        title=told.title,
        x_label="epoch",
        y_label=_Y_LABELS.get(told.column, told.column),
        bands=[_chance_by_epoch(known, told)],
        rules=[0.0] if told.column != "cosine" else [],
    )


def _layer_curves(rows: Sequence[AnsatzRow], column: str) -> list[Series]:
    layers: dict[str, list[AnsatzRow]] = {}
    for row in rows:
        layers.setdefault(row.layer, []).append(row)
    few = len(layers) <= len(svg.PALETTE)
    colors = svg.PALETTE if few else svg.ramp(len(layers))
    labelled = range(len(layers)) if few else (0, len(layers) // 2, len(layers) - 1)
    return [
        Series(
            layer, _column(own, "epoch"), _column(own, column), colors[i], in_legend=i in labelled, faint=True
        )
        for i, (layer, own) in enumerate(layers.items())
    ]


def _by_epoch(rows: Sequence[AnsatzRow]) -> dict[float, list[AnsatzRow]]:
    epochs: dict[float, list[AnsatzRow]] = {}
    for row in rows:
        epochs.setdefault(row.epoch, []).append(row)
    return dict(sorted(epochs.items()))


def _median_over_layers(rows: Sequence[AnsatzRow], column: str) -> list[Series]:
    """The median of each epoch; of one layer it would be that layer."""
    medians = {epoch: statistics.median(_column(own, column)) for epoch, own in _by_epoch(rows).items()}
    if len({row.layer for row in rows}) < 2:
        return []
    return [Series("median over layers", list(medians), list(medians.values()), svg.INK, heavy=True)]


def _chance_by_epoch(rows: Sequence[AnsatzRow], told: _Statistic) -> Band:
    """What chance gives the median layer of each epoch, two standard deviations to either side."""
    found = []
    for epoch, own in _by_epoch(rows).items():
        known = [pair for pair in map(told.by_chance, own) if all(map(math.isfinite, pair))]
        if known:
            found.append((epoch, *(statistics.median(values) for values in zip(*known, strict=True))))
    label = told.chance if len({row.layer for row in rows}) < 2 else f"{told.chance}, of the median layer"
    return Band(
        label,
        [epoch for epoch, _, _ in found],
        [mean - 2 * sd for _, mean, sd in found],
        [mean + 2 * sd for _, mean, sd in found],
    )


def curve_charts(curves: Curves) -> list[Figure]:
    """Draw a chart a metric; what comes before the last ``/``, like ``train``, keeps its colour in all."""
    stages = list(dict.fromkeys(name.rpartition("/")[0] for name in curves))
    charts: dict[str, list[Series]] = {}
    for name, points in curves.items():
        stage, _, metric = name.rpartition("/")
        color = svg.PALETTE[stages.index(stage) % len(svg.PALETTE)]
        series = Series(name, [x for x, _ in points], [y for _, y in points], color, hollow=len(points) == 1)
        charts.setdefault(metric, []).append(series)
    return [figure(_metric_chart(metric, series), width=svg.HALF) for metric, series in charts.items()]


def _metric_chart(metric: str, series: Sequence[Series]) -> Callable[..., Markup]:
    values = finite(y for s in series for y in s.y)
    wide_range = bool(values) and min(values) > 0 and max(values) > 100 * min(values)
    series = sorted(series, key=lambda s: len(s.x))  # a single point, a test result, lies on top
    title = metric[:1].upper() + metric[1:]
    return partial(line_chart, series, title=title, x_label="epoch", y_label=metric, y_log=wide_range)
