"""Line charts as inline SVG: a depth plot, an epoch curve or a spectrum, without a plotting library.

Colours are CSS variables with a fallback and text takes the colour around it, so that one chart serves light
and dark pages as well as a file of its own. Widths and heights are in px.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple

from markupsafe import Markup

from nfa.ansatz.words import abbreviate, finite
from nfa.page.axes import Axis, range_of, tick_text
from nfa.page.marks import marker, place_names
from nfa.page.text import escape

# Okabe and Ito's colours, told apart by colour-blind eyes; a page may lighten them for a dark background.
BLUE = "var(--blue, #0072B2)"
VERMILLION = "var(--vermillion, #D55E00)"
GREEN = "var(--green, #009E73)"
PURPLE = "var(--purple, #CC79A7)"
ORANGE = "var(--orange, #E69F00)"
SKY = "var(--sky, #56B4E9)"
GREY = "var(--grey, #8A939B)"
_PAGE = "var(--page, #fff)"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
# For an order, like depth: of medium luminance throughout, to show on light and on dark.
_RAMP = ((0x3B, 0x7D, 0xD8), (0x85, 0x68, 0xD0), (0xC7, 0x50, 0x9B), (0xE0, 0x60, 0x5A), (0xE8, 0x96, 0x2E))

_FONT = 12
_NARROW, _NARROW_CHARACTER, _CHARACTER = frozenset("fijlrt1I.,:;/|()[] "), 4.2, 7.2  # px wide in that font
_BROAD, _BROAD_CHARACTER = frozenset("mwMW=+<>%@"), 10.4
_MOST_MARKERS, _MOST_NAMED_MARKERS = 600, 3000
_LINE_HEIGHT = 16
_TICK_FONT = 11
_TICK_CHARACTER = 5.9
_LONGEST_TICK = 16
_TURN = 50  # degrees by which crowded names are rotated
WIDE, HALF, PHONE = 1080, 520, 360  # of a chart of a page: alone, one of two, and on a phone
_SHAPE_RADIUS, _SHAPE_SPACING = 4.2, 34


@dataclass(frozen=True)
class Series:
    """One line of a chart. NaN is a gap.

    Attributes:
        label: its name, in the legend and in the points' tooltips.
        x: positions; indices of ``x_names`` where the chart has names.
        y: values, as many.
        color: any CSS colour.
        line: connect the points.
        hollow: draw the points as rings.
        in_legend: of many ordered series only some need an entry.
        faint: draw a thin line, which leaves the points to the eye.
        dashed: draw a dashed line.
        shape: one of `nfa.page.marks.SHAPES`, which tells the series apart without its colour; on a line only
            as many are drawn as leave room for it. By default all points are plain circles.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = BLUE
    line: bool = True
    hollow: bool = False
    in_legend: bool = True
    faint: bool = False
    dashed: bool = False
    shape: str = ""


@dataclass(frozen=True)
class Band:
    """A shaded area between two curves; over named positions, one step for each. NaN is a gap."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    color: str = GREY


def ramp(count: int) -> list[str]:
    """So many colours for series that have an order, first to last."""
    return [_ramp_color(i / max(count - 1, 1)) for i in range(count)]


def _ramp_color(position: float) -> str:
    left = min(int(position * (len(_RAMP) - 1)), len(_RAMP) - 2)
    weight = position * (len(_RAMP) - 1) - left
    mixed = (round(a + weight * (b - a)) for a, b in zip(_RAMP[left], _RAMP[left + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


class Figure(NamedTuple):
    """A chart at two widths, of which the style sheet of a page shows the one that fits the screen."""

    wide: Markup
    narrow: Markup


def figure(chart: Callable[..., Markup], *, width: int = WIDE) -> Figure:
    """Draw a chart, which takes a ``width``, for phones and for wider screens."""
    return Figure(chart(width=width), chart(width=PHONE))


def key(series: Series) -> Markup:
    """Draw the marker of a series alone, for a table beside the charts."""
    drawn = _markers([marker(series.shape, 8, 8, _SHAPE_RADIUS)], series)
    looks = f'class="key" style="color:{series.color}"'
    return Markup(f'<svg {looks} viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>')


# -- layout ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plot:
    """Where the data go."""

    x: Axis
    y: Axis
    names: Sequence[str] | None
    groups: Sequence[str] | None
    radius: float  # of a marker; 0 where there are too many to draw

    @property
    def slot(self) -> float:
        """Pixels from one named position to the next."""
        return abs(self.x.stop - self.x.start) / max(len(self.names or ()), 1)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    name: str = "",
    x_label: str,
    y_label: str,
    bands: Sequence[Band] = (),
    rules: Sequence[float] = (),
    x_names: Sequence[str] | None = None,
    x_groups: Sequence[str] | None = None,
    y_range: tuple[float, float] | None = None,
    x_log: bool = False,
    y_log: bool = False,
    named: bool = False,
    width: int = WIDE,
    plot_height: int = 240,
) -> Markup:
    """Draw lines over shaded bands, with a legend, ticks, and a tooltip on every point.

    Series without a single value to draw are left out; a chart without any says so.

    Args:
        series: the lines, the first one on top.
        title: above it.
        name: for screen readers; by default the title.
        x_label: what runs along.
        y_label: what runs up.
        bands: areas behind the lines.
        rules: heights of dashed horizontal lines.
        x_names: names of the positions 0, 1, …, like layers; abbreviated, turned, thinned as space demands.
        x_groups: for each of the named positions the group to which it belongs, like a block of layers; the
            axis then names the groups, and the tooltips the positions.
        y_range: limits of the y axis, by default those of the data; a point beyond is drawn at the edge, and
            its tooltip has its value.
        x_log: logarithmic x axis; what is not positive is left out.
        y_log: the same for y.
        named: write the names of the series beside their points, instead of a legend.
        width: of the chart, which shrinks and grows with what it stands in.
        plot_height: of the area of the data; legend and ticks come on top.

    Returns:
        An ``<svg>`` element.
    """
    series = [s for s in series if finite(s.y)]
    bands = [b for b in bands if finite(b.low)]
    legend, top = _legend([*series, *bands] if not named else bands, width)
    padding = 0.06 if named else 0.015 if any(s.shape for s in series) else 0.0
    positions = [v for s in series for v in s.x] + [v for b in bands for v in b.x]
    x_limits = range_of(positions, x_log, padding)
    drawn = [v for s in series for v in s.y] + [v for b in bands for v in (*b.low, *b.high)]
    y_limits = y_range or range_of([*drawn, *rules], y_log, 0.05)
    plot = _Plot(
        Axis(*((-0.5, len(x_names) - 0.5) if x_names else x_limits), 58, width - 14, x_log),
        Axis(*y_limits, top + plot_height, top, y_log),
        x_names,
        x_groups,
        _radius(series, width, len(x_names or ())),
    )
    ticks, bottom = _x_ticks(plot, whole=all(float(v).is_integer() for s in series for v in s.x))
    body = [
        f'<text x="0" y="15" font-size="15" font-weight="600">{escape(title)}</text>',
        *legend,
        *(_draw_band(plot, band) for band in bands),
        *_y_ticks(plot, y_label),
        *(_level(plot, y, 'opacity=".55" stroke-dasharray="4 4"') for y in rules),
        *ticks,
        _text((plot.x.start + plot.x.stop) / 2, bottom + 18, x_label, anchor="middle", muted=True),
        *(_draw_series(plot, s) for s in reversed(series)),
        *(_names(plot, series) if named else ()),
    ]
    if not drawn:
        middle = (plot.x.start + plot.x.stop) / 2
        body.append(_text(middle, top + plot_height / 2, "nothing to draw", anchor="middle", muted=True))
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 24:.0f}" role="img" '
        f'aria-label="{escape(name or title)}" font-family="system-ui, sans-serif" font-size="{_FONT}" '
        f'fill="currentColor">{"".join(body)}</svg>'
    )


def _radius(series: Sequence[Series], width: float, positions: int) -> float:
    """Large markers where there is room, small ones where there is less, else lines alone."""
    counts = [len(s.x) for s in series] or [0]
    if sum(counts) > (_MOST_NAMED_MARKERS if positions else _MOST_MARKERS):
        return 0.0
    if positions > 150 or 4 * positions > width:
        return 1.8
    crowded = not positions and len(series) > len(PALETTE)
    return 2.4 if crowded or 10 * max(positions, *counts, 0) > width else 3.5


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", muted: bool = False, size: int = _FONT
) -> str:
    looks = f' font-size="{size}"' if size != _FONT else ""
    looks += ' opacity=".72"' if muted else ""
    looks += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{looks}>{escape(text)}</text>'


def _legend(entries: Sequence[Series | Band], width: float) -> tuple[list[str], float]:
    """Lay out samples with their labels, in as many lines as needed; and say where the plot begins below."""
    x, y, parts = 0.0, 38.0, []
    for entry in entries:
        if isinstance(entry, Series) and not entry.in_legend:
            continue
        label = abbreviate(entry.label, int((width - 26) / _CHARACTER))
        sample = 12 if isinstance(entry, Series) and not entry.line else 20
        of_options = isinstance(entry, Series) and bool(entry.shape)
        needed = sample + 6 + _text_width(label, of_options=of_options)
        if x and x + needed > width:
            x, y = 0.0, y + 19
        parts.append(f'<g style="color:{entry.color}">{_sample(entry, x, y - 4, sample)}</g>')
        parts.append(_text(x + sample + 6, y, label))
        x += needed + 16
    return parts, y + 16 if parts else 32.0


def _text_width(text: str, *, of_options: bool = False) -> float:
    """Estimate px; names with options in them, as in ``mlp (width=128)``, need more."""
    widths = dict.fromkeys(_NARROW, _NARROW_CHARACTER)
    if of_options:
        widths |= dict.fromkeys(_BROAD, _BROAD_CHARACTER) | {"1": _CHARACTER}
    return sum(widths.get(c, _CHARACTER) for c in text)


def _sample(entry: Series | Band, x: float, y: float, width: float) -> str:
    if isinstance(entry, Band):
        place = f'x="{x:.1f}" y="{y - 6:.1f}" width="{width}" height="12"'
        return f'<rect {place} fill="currentColor" opacity=".22"/>'
    line = _path([(x, y), (x + width, y)], dashed=entry.dashed) if entry.line else ""
    return line + _markers([marker(entry.shape, x + width / 2, y, 3.5)], entry)


def _y_ticks(plot: _Plot, label: str) -> Iterable[str]:
    for value in plot.y.ticks(46):
        yield _level(plot, value, 'opacity=".14"')
        text = tick_text(value, plot.y)
        yield _text(plot.x.start - 8, plot.y(value) + 4, text, anchor="end", muted=True, size=_TICK_FONT)
    middle = (plot.y.start + plot.y.stop) / 2
    yield (
        f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle" opacity=".72">'
        f"{escape(label)}</text>"
    )


def _x_ticks(plot: _Plot, *, whole: bool) -> tuple[list[str], float]:
    """Tick labels, and how far down they reach."""
    base = plot.y.start
    if plot.names:
        return _group_ticks(plot, base) if plot.groups else _name_ticks(plot, base)
    ticks = [
        _text(plot.x(v), base + 18, tick_text(v, plot.x), anchor="middle", muted=True, size=_TICK_FONT)
        for v in plot.x.ticks(64, whole=whole)
    ]
    return ticks, base + 22


def _name_ticks(plot: _Plot, base: float) -> tuple[list[str], float]:
    names = [abbreviate(name, _LONGEST_TICK) for name in plot.names or ()]
    longest = _TICK_CHARACTER * max(map(len, names))
    if longest + 8 <= plot.slot:
        level = [
            _text(plot.x(i), base + 18, name, anchor="middle", muted=True, size=_TICK_FONT)
            for i, name in enumerate(names)
        ]
        return level, base + 22
    every = math.ceil(_LINE_HEIGHT / plot.slot)
    turned = [_turned(plot.x(i) + 4, base + 14, names[i]) for i in range(0, len(names), every)]
    return turned, base + 20 + longest * math.sin(math.radians(_TURN))


def _group_ticks(plot: _Plot, base: float) -> tuple[list[str], float]:
    """Name each group at its middle, where there is room, and separate them by faint lines."""
    counts = [(name, len(list(run))) for name, run in groupby(plot.groups or ())]
    ends = list(accumulate(count for _, count in counts))
    middles = [plot.x(end - (count + 1) / 2) for (_, count), end in zip(counts, ends, strict=True)]
    names = [abbreviate(name, _LONGEST_TICK) for name, _ in counts]
    edges = [plot.x(end - 0.5) for end in ends[:-1]] if len(counts) * 8 < plot.x.stop - plot.x.start else []
    line = f"{plot.y.stop:.1f}V{base:.1f}"
    path = "".join(f"M{x:.1f} {line}" for x in edges)
    lines = [f'<path d="{path}" stroke="currentColor" opacity=".1"/>'] if edges else []
    widths = [_TICK_CHARACTER * len(name) + 8 for name in names]
    if all(width <= plot.slot * count for width, (_, count) in zip(widths, counts, strict=True)):
        level = [
            _text(x, base + 18, name, anchor="middle", muted=True, size=_TICK_FONT)
            for x, name in zip(middles, names, strict=True)
        ]
        return lines + level, base + 22
    turned, last = [], -math.inf
    for x, name in zip(middles, names, strict=True):
        if x >= last + _LINE_HEIGHT:
            turned.append(_turned(x + 4, base + 14, name))
            last = x
    return lines + turned, base + 12 + max(widths) * math.sin(math.radians(_TURN))


def _turned(x: float, y: float, text: str) -> str:
    return (
        f'<text transform="translate({x:.1f} {y:.1f}) rotate({-_TURN})" text-anchor="end" opacity=".72" '
        f'font-size="{_TICK_FONT}">{escape(text)}</text>'
    )


# -- data ------------------------------------------------------------------------------------------


def _path(points: Sequence[tuple[float, float]], *, faint: bool = False, dashed: bool = False) -> str:
    commands = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    stroke = 'stroke-width="1" opacity=".5"' if faint else 'stroke-width="1.75"'
    dashes = ' stroke-dasharray="5 3"' if dashed else ""
    looks = f'fill="none" stroke="currentColor" {stroke}{dashes} stroke-linejoin="round"'
    return f'<path d="M{commands}" {looks}/>'


def _markers(markers: Sequence[str], series: Series) -> str:
    """Markers with a transparent rim, or rings with a wide one, so that a pointer finds them."""
    rim = f"{_PAGE};stroke-width:1" if series.shape else "transparent;stroke-width:8"
    style = (
        f"fill:{_PAGE};stroke:currentColor;stroke-width:1.5"
        if series.hollow
        else f"fill:currentColor;stroke:{rim}"
    )
    return f'<g style="{style}">{"".join(markers)}</g>'


def _level(plot: _Plot, value: float, looks: str) -> str:
    path = f"M{plot.x.start:.1f} {plot.y(value):.1f}H{plot.x.stop:.1f}"
    return f'<path d="{path}" stroke="currentColor" {looks}/>'


def _drawable(plot: _Plot, series: Series) -> list[list[tuple[float, float]]]:
    """Stretches of consecutive points that have a place in the chart."""
    points = list(zip(series.x, series.y, strict=True))
    return _runs(points, lambda p: plot.x.defines(p[0]) and plot.y.defines(p[1]))


def _draw_series(plot: _Plot, series: Series) -> str:
    runs = _drawable(plot, series)
    radius = _SHAPE_RADIUS if series.shape else plot.radius
    faint = series.faint and bool(radius)
    lines = [
        _path([(plot.x(x), plot.y(y)) for x, y in run], faint=faint, dashed=series.dashed)
        for run in runs
        if len(run) > 1
    ]
    points = [point for run in runs for point in run]
    step = _thinning(plot, points) if series.shape and series.line else 1
    markers = [_point(plot, series, x, y, radius) for x, y in points[::step]] if radius else []
    tooltip = "" if radius else f"<title>{escape(series.label)}</title>"
    body = (f"<g>{tooltip}{''.join(lines)}</g>" if series.line else "") + _markers(markers, series)
    return f'<g style="color:{series.color}">{body}</g>'


def _thinning(plot: _Plot, points: Sequence[tuple[float, float]]) -> int:
    """The step at which points along a line leave room for markers."""
    if len(points) < 2:
        return 1
    apart = (plot.x(points[-1][0]) - plot.x(points[0][0])) / (len(points) - 1)
    return max(math.ceil(_SHAPE_SPACING / apart), 1) if apart > 0 else 1


def _point(plot: _Plot, series: Series, x: float, y: float, radius: float) -> str:
    where = plot.names[int(x)] if plot.names else f"{x:g}"
    return marker(series.shape, plot.x(x), plot.y(y), radius, f"{series.label}\n{where}: {y:.4g}")


def _names(plot: _Plot, series: Sequence[Series]) -> Iterable[str]:
    """Names beside points, joined to them by a line where they had to go further away."""
    places = [(s, [(plot.x(x), plot.y(y)) for run in _drawable(plot, s) for x, y in run]) for s in series]
    places = [(s, points) for s, points in places if points]
    longest = int((plot.x.stop - plot.x.start) / 1.8 / _CHARACTER)
    labels = [abbreviate(s.label, longest) for s, _ in places]
    limits = plot.x.start, plot.y.stop, plot.x.stop + 12, plot.y.start
    widths = [_text_width(label, of_options=True) for label in labels]
    names = place_names([points for _, points in places], widths, limits)
    halo = f'paint-order="stroke" style="stroke:{_PAGE};stroke-width:3;stroke-linejoin:round"'
    for (s, _), name in zip(places, names, strict=True):
        if name.leader:
            yield f'<g style="color:{s.color}">{_path(name.leader, faint=True)}</g>'
    for label, name in zip(labels, names, strict=True):
        yield f"<g {halo}>{_text(name.x, name.y, label, anchor=name.anchor)}</g>"


def _draw_band(plot: _Plot, band: Band) -> str:
    points = list(zip(band.x, band.low, band.high, strict=True))
    runs = _runs(points, lambda p: all(map(plot.y.defines, p[1:])))
    areas = []
    for run in runs:
        edges = [edge for p in run for edge in _band_edges(plot, *p)]
        outline = [(x, low) for x, low, _ in edges] + [(x, high) for x, _, high in reversed(edges)]
        areas.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + "Z")
    return f'<path style="color:{band.color}" d="{"".join(areas)}" fill="currentColor" opacity=".22"/>'


def _band_edges(plot: _Plot, x: float, low: float, high: float) -> list[tuple[float, float, float]]:
    """Pixels of one position: a step as wide as its slot where positions have names, else one point."""
    half = plot.slot / 2 if plot.names else 0.0
    offsets = (-half, half) if plot.names else (0.0,)
    return [(plot.x(x) + offset, plot.y(low), plot.y(high)) for offset in offsets]


def _runs(points: Sequence[tuple], defined: Callable[[tuple], bool]) -> list[list[tuple]]:
    """Stretches of consecutive points that are defined."""
    return [list(run) for known, run in groupby(points, defined) if known]
