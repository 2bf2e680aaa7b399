"""Line charts as inline SVG: a depth plot, an epoch curve or a spectrum, without a plotting library.

Colours are CSS variables with a fallback and text takes the colour around it, so that one chart serves light
and dark pages as well as a file of its own. Widths and heights are in px.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from nfa.ansatz.words import abbreviate, finite
from nfa.page.axes import Axis, range_of
from nfa.page.colours import BLUE, GREEN, GREY, INK, ORANGE, PALETTE, PURPLE, SKY, VERMILLION, ramp
from nfa.page.drawing import SHAPE_RADIUS, draw_band, draw_series, ends_of, markers_of, names_beside, path_of
from nfa.page.marks import marker
from nfa.page.plot import CHARACTER, FONT, Plot, text_at, text_width
from nfa.page.series import Band, Series
from nfa.page.text import escape
from nfa.page.ticks import level_line, x_ticks, y_ticks

__all__ = [
    "BLUE", "GREEN", "GREY", "HALF", "INK", "ORANGE", "PALETTE", "PHONE", "PURPLE", "SKY", "VERMILLION",
    "WIDE", "Band", "Figure", "Series", "figure", "key", "line_chart", "ramp",
]  # fmt: skip

WIDE, HALF, PHONE = 1080, 520, 360  # of a chart of a page: alone, one of two, and on a phone
_MOST_MARKERS, _MOST_NAMED_MARKERS = 600, 3000


class Figure(NamedTuple):
    """A chart at two widths, of which the style sheet of a page shows the one that fits the screen."""

    wide: Markup
    narrow: Markup


def figure(chart: Callable[..., Markup], *, width: int = WIDE) -> Figure:
    """Draw a chart, which takes a ``width``, for phones and for wider screens."""
    return Figure(chart(width=width), chart(width=PHONE))


def key(series: Series) -> Markup:
    """Draw the marker of a series alone, for a table beside the charts."""
    drawn = markers_of([marker(series.shape, 8, 8, SHAPE_RADIUS)], series)
    looks = f'class="key" style="color:{series.color}"'
    return Markup(f'<svg {looks} viewBox="0 0 16 16" aria-hidden="true">{drawn}</svg>')


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
    x_range: tuple[float, float] | None = None,
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
        x_range: limits of the x axis, by default those of the data.
        y_range: limits of the y axis, by default those of the data; a point beyond is drawn at the edge, and
            its tooltip has its value.
        x_log: logarithmic x axis, which says so; what is not positive is left out.
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
    x_limits = x_range or range_of(positions, x_log, padding)
    drawn = [v for s in series for v in (*s.y, *ends_of(s))] + [v for b in bands for v in (*b.low, *b.high)]
    y_limits = y_range or range_of([*drawn, *rules], y_log, 0.05)
    plot = Plot(
        Axis(*((-0.5, len(x_names) - 0.5) if x_names else x_limits), 58, width - 14, x_log),
        Axis(*y_limits, top + plot_height, top, y_log),
        x_names,
        x_groups,
        _radius(series, width, len(x_names or ())),
    )
    ticks, bottom = x_ticks(plot, whole=all(float(v).is_integer() for s in series for v in s.x))
    body = [
        f'<text x="0" y="15" font-size="15" font-weight="600">{escape(title)}</text>',
        *legend,
        *(draw_band(plot, band) for band in bands),
        *y_ticks(plot, _scaled(y_label, y_log)),
        *(level_line(plot, y, 'opacity=".55" stroke-dasharray="4 4"') for y in rules),
        *ticks,
        text_at(
            (plot.x.start + plot.x.stop) / 2,
            bottom + 18,
            _scaled(x_label, x_log),
            anchor="middle",
            muted=True,
        ),
        *(draw_series(plot, s) for s in reversed(series)),
        *(names_beside(plot, series) if named else ()),
    ]
    if not drawn:
        middle = (plot.x.start + plot.x.stop) / 2
        body.append(text_at(middle, top + plot_height / 2, "nothing to draw", anchor="middle", muted=True))
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 24:.0f}" role="img" '
        f'aria-label="{escape(name or title)}" font-family="system-ui, sans-serif" font-size="{FONT}" '
        f'fill="currentColor">{"".join(body)}</svg>'
    )


def _scaled(label: str, log: bool) -> str:
    return f"{label}, log scale" if log else label


def _radius(series: Sequence[Series], width: float, positions: int) -> float:
    """Large markers where there is room, small ones where there is less, else lines alone."""
    counts = [len(s.x) for s in series] or [0]
    if sum(counts) > (_MOST_NAMED_MARKERS if positions else _MOST_MARKERS):
        return 0.0
    if positions > 150 or 4 * positions > width:
        return 1.8
    crowded = not positions and len(series) > len(PALETTE)
    return 2.4 if crowded or 10 * max(positions, *counts, 0) > width else 3.5


def _legend(entries: Sequence[Series | Band], width: float) -> tuple[list[str], float]:
    """Lay out samples with their labels, in as many lines as needed; and say where the plot begins below."""
    x, y, parts = 0.0, 38.0, []
    for entry in entries:
        if isinstance(entry, Series) and not entry.in_legend:
            continue
        label = abbreviate(entry.label, int((width - 26) / CHARACTER))
        sample = 12 if isinstance(entry, Series) and not entry.line else 20
        of_options = isinstance(entry, Series) and bool(entry.shape)
        needed = sample + 6 + text_width(label, of_options=of_options)
        if x and x + needed > width:
            x, y = 0.0, y + 19
        parts.append(f'<g style="color:{entry.color}">{_sample(entry, x, y - 4, sample)}</g>')
        parts.append(text_at(x + sample + 6, y, label))
        x += needed + 16
    return parts, y + 16 if parts else 32.0


def _sample(entry: Series | Band, x: float, y: float, width: float) -> str:
    if isinstance(entry, Band):
        place = f'x="{x:.1f}" y="{y - 6:.1f}" width="{width}" height="12"'
        return f'<rect {place} fill="currentColor" opacity=".22"/>'
    line = path_of([(x, y), (x + width, y)], dashed=entry.dashed, heavy=entry.heavy) if entry.line else ""
    return line if entry.heavy else line + markers_of([marker(entry.shape, x + width / 2, y, 3.5)], entry)
