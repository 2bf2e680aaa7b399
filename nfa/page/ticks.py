"""Ticks of a chart: values of its axes, and names of positions, turned and thinned as space demands."""

import math
from collections.abc import Iterable
from itertools import accumulate, groupby

from nfa.ansatz.words import abbreviate
from nfa.page.axes import tick_text
from nfa.page.plot import Plot, text_at
from nfa.page.text import escape

_LINE_HEIGHT = 16
_TICK_FONT = 11
_TICK_CHARACTER = 5.9
_LONGEST_TICK = 16
_TURN = 50  # degrees by which crowded names are rotated


def y_ticks(plot: Plot, label: str) -> Iterable[str]:
    """Lines of the grid with their values, and what runs up."""
    for value in plot.y.ticks(46):
        yield level_line(plot, value, 'opacity=".14"')
        text = tick_text(value, plot.y)
        yield text_at(plot.x.start - 8, plot.y(value) + 4, text, anchor="end", muted=True, size=_TICK_FONT)
    middle = (plot.y.start + plot.y.stop) / 2
    yield (
        f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle" opacity=".72">'
        f"{escape(label)}</text>"
    )


def x_ticks(plot: Plot, *, whole: bool) -> tuple[list[str], float]:
    """Tick labels, and how far down they reach."""
    base = plot.y.start
    if plot.names:
        return _group_ticks(plot, base) if plot.groups else _name_ticks(plot, base)
    ticks = [
        text_at(plot.x(v), base + 18, tick_text(v, plot.x), anchor="middle", muted=True, size=_TICK_FONT)
        for v in plot.x.ticks(64, whole=whole)
    ]
    return ticks, base + 22


def _name_ticks(plot: Plot, base: float) -> tuple[list[str], float]:
    names = [abbreviate(name, _LONGEST_TICK) for name in plot.names or ()]
    longest = _TICK_CHARACTER * max(map(len, names))
    if longest + 8 <= plot.slot:
        level = [
            text_at(plot.x(i), base + 18, name, anchor="middle", muted=True, size=_TICK_FONT)
            for i, name in enumerate(names)
        ]
        return level, base + 22
    every = math.ceil(_LINE_HEIGHT / plot.slot)
    turned = [_turned(plot.x(i) + 4, base + 14, names[i]) for i in range(0, len(names), every)]
    return turned, base + 20 + longest * math.sin(math.radians(_TURN))


def _group_ticks(plot: Plot, base: float) -> tuple[list[str], float]:
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
            text_at(x, base + 18, name, anchor="middle", muted=True, size=_TICK_FONT)
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


def level_line(plot: Plot, value: float, looks: str) -> str:
    """A horizontal line at a value, all through the plot."""
    path = f"M{plot.x.start:.1f} {plot.y(value):.1f}H{plot.x.stop:.1f}"
    return f'<path d="{path}" stroke="currentColor" {looks}/>'
