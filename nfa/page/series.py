"""What a chart draws: lines and points, and shaded bands behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

from nfa.page.colours import BLUE, GREY


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
        heavy: draw a thick line, without markers.
        dashed: draw a dashed line.
        errors: half the length of an upright bar through each point, as many as values; NaN is none.
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
    errors: Sequence[float] = ()
    heavy: bool = False


@dataclass(frozen=True)
class Band:
    """A shaded area between two curves; over named positions, one step for each. NaN is a gap."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    color: str = GREY
