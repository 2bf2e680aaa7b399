"""Series and bands of a chart as SVG: lines, markers, error bars, areas, and names beside points."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from nfa.ansatz.words import abbreviate
from nfa.page.colours import PAGE
from nfa.page.marks import marker, place_names
from nfa.page.plot import CHARACTER, Plot, text_at, text_width
from nfa.page.series import Band, Series
from nfa.page.text import escape

SHAPE_RADIUS = 4.2
_SHAPE_SPACING = 34
_CAP = 2.5  # px to either side, of the end of an error bar


def path_of(
    points: Sequence[tuple[float, float]], *, faint: bool = False, dashed: bool = False, heavy: bool = False
) -> str:
    """A line through points, in px."""
    commands = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    width = 3 if heavy else 1.75
    stroke = 'stroke-width="1" opacity=".5"' if faint else f'stroke-width="{width:g}"'
    dashes = ' stroke-dasharray="5 3"' if dashed else ""
    looks = f'fill="none" stroke="currentColor" {stroke}{dashes} stroke-linejoin="round"'
    return f'<path d="M{commands}" {looks}/>'


def markers_of(markers: Sequence[str], series: Series) -> str:
    """Markers with a transparent rim, or rings with a wide one, so that a pointer finds them."""
    rim = f"{PAGE};stroke-width:1" if series.shape else "transparent;stroke-width:8"
    style = (
        f"fill:{PAGE};stroke:currentColor;stroke-width:1.5"
        if series.hollow
        else f"fill:currentColor;stroke:{rim}"
    )
    return f'<g style="{style}">{"".join(markers)}</g>'


def _drawable(plot: Plot, series: Series) -> list[list[tuple[float, float]]]:
    """Stretches of consecutive points that have a place in the chart."""
    points = list(zip(series.x, series.y, strict=True))
    return _runs(points, lambda p: plot.x.defines(p[0]) and plot.y.defines(p[1]))


def draw_series(plot: Plot, series: Series) -> str:
    """A line with its markers, on the bars of its errors."""
    runs = _drawable(plot, series)
    radius = 0.0 if series.heavy else SHAPE_RADIUS if series.shape else plot.radius
    faint = series.faint and bool(radius)
    lines = [
        path_of(
            [(plot.x(x), plot.y(y)) for x, y in run], faint=faint, dashed=series.dashed, heavy=series.heavy
        )
        for run in runs
        if len(run) > 1
    ]
    points = [point for run in runs for point in run]
    step = _thinning(plot, points) if series.shape and series.line else 1
    markers = [_point(plot, series, x, y, radius) for x, y in points[::step]] if radius else []
    tooltip = "" if radius else f"<title>{escape(series.label)}</title>"
    line = f"<g>{tooltip}{''.join(lines)}</g>" if series.line else ""
    body = line + _error_bars(plot, series) + markers_of(markers, series)
    return f'<g style="color:{series.color}">{body}</g>'


def ends_of(series: Series) -> list[float]:
    """Values at which the error bars of a series end."""
    known = [(y, e) for y, e in zip(series.y, series.errors, strict=False) if math.isfinite(y + e)]
    return [y + sign * e for y, e in known for sign in (-1, 1)]


def _error_bars(plot: Plot, series: Series) -> str:
    """Upright bars with an end to either side, one through each point whose error is known."""
    bars = []
    for x, y, error in zip(series.x, series.y, series.errors, strict=False):
        if plot.x.defines(x) and math.isfinite(y + error) and error > 0:
            low, high = plot.y(y - error), plot.y(y + error)
            ends = (f"M{plot.x(x) - _CAP:.1f} {end:.1f}h{2 * _CAP:g}" for end in (low, high))
            bars.append(f"M{plot.x(x):.1f} {low:.1f}V{high:.1f}{''.join(ends)}")
    return f'<path d="{"".join(bars)}" fill="none" stroke="currentColor" opacity=".75"/>' if bars else ""


def _thinning(plot: Plot, points: Sequence[tuple[float, float]]) -> int:
    """The step at which points along a line leave room for markers."""
    if len(points) < 2:
        return 1
    apart = (plot.x(points[-1][0]) - plot.x(points[0][0])) / (len(points) - 1)
    return max(math.ceil(_SHAPE_SPACING / apart), 1) if apart > 0 else 1


def _point(plot: Plot, series: Series, x: float, y: float, radius: float) -> str:
    where = plot.names[int(x)] if plot.names else f"{x:g}"
    return marker(series.shape, plot.x(x), plot.y(y), radius, f"{series.label}\n{where}: {y:.4g}")


def names_beside(plot: Plot, series: Sequence[Series]) -> Iterable[str]:
    """Names beside points, joined to them by a line where they had to go further away."""
    places = [(s, [(plot.x(x), plot.y(y)) for run in _drawable(plot, s) for x, y in run]) for s in series]
    places = [(s, points) for s, points in places if points]
    longest = int((plot.x.stop - plot.x.start) / 1.8 / CHARACTER)
    labels = [abbreviate(s.label, longest) for s, _ in places]
    limits = plot.x.start, plot.y.stop, plot.x.stop + 12, plot.y.start
    widths = [text_width(label, of_options=True) for label in labels]
    names = place_names([points for _, points in places], widths, limits)
    halo = f'paint-order="stroke" style="stroke:{PAGE};stroke-width:3;stroke-linejoin:round"'
    for (s, _), name in zip(places, names, strict=True):
        if name.leader:
            yield f'<g style="color:{s.color}">{path_of(name.leader, faint=True)}</g>'
    for label, name in zip(labels, names, strict=True):
        yield f"<g {halo}>{text_at(name.x, name.y, label, anchor=name.anchor)}</g>"


def draw_band(plot: Plot, band: Band) -> str:
    """The areas of a band."""
    points = list(zip(band.x, band.low, band.high, strict=True))
    runs = _runs(points, lambda p: all(map(plot.y.defines, p[1:])))
    areas = []
    for run in runs:
        edges = [edge for p in run for edge in _band_edges(plot, *p)]
        outline = [(x, low) for x, low, _ in edges] + [(x, high) for x, _, high in reversed(edges)]
        areas.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + "Z")
    return f'<path style="color:{band.color}" d="{"".join(areas)}" fill="currentColor" opacity=".22"/>'


def _band_edges(plot: Plot, x: float, low: float, high: float) -> list[tuple[float, float, float]]:
    """Pixels of one position: a step as wide as its slot where positions have names, else one point."""
    half = plot.slot / 2 if plot.names else 0.0
    offsets = (-half, half) if plot.names else (0.0,)
    return [(plot.x(x) + offset, plot.y(low), plot.y(high)) for offset in offsets]


def _runs(points: Sequence[tuple], defined: Callable[[tuple], bool]) -> list[list[tuple]]:
    """Stretches of consecutive points that are defined."""
    return [list(run) for known, run in groupby(points, defined) if known]
