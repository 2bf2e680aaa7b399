"""Charts of a training step by step, one below the other, so that what happens at once stands in line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

from nfa.page import svg
from nfa.page.marks import SHAPES
from nfa.page.svg import Figure, Series, figure, line_chart

_MOST_POINTS = 1500  # of a line: of more steps the least and the greatest of each few are drawn

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class StepCurves:
    """What one chart shows.

    Attributes:
        title: above it.
        y_label: what runs up.
        lines: name of each to its ``(step, value)`` pairs.
        marks: the same of what is marked on them, by shapes that no line connects.
        rules: heights of dashed horizontal lines.
        log: whether values are drawn by their logarithm.
        caption: below it.
    """

    title: str
    y_label: str
    lines: Mapping[str, Points]
    marks: Mapping[str, Points] = field(default_factory=dict)
    rules: Sequence[float] = ()
    log: bool = False
    caption: str = ""


def step_charts(curves: Sequence[StepCurves]) -> list[tuple[Figure, str]]:
    """Draw each, with its caption."""
    steps = [step for told in curves for line in told.lines.values() for step, _ in line]
    ends = (min(steps), max(steps)) if steps and min(steps) < max(steps) else None
    return [(figure(partial(_chart, told, ends)), told.caption) for told in curves]


def _chart(told: StepCurves, ends: tuple[float, float] | None, *, width: int) -> svg.Markup:
    colors = iter(svg.PALETTE)
    lines = [Series(name, *_columns(thinned(p)), next(colors)) for name, p in told.lines.items()]
    marks = [
        Series(name, *_columns(p), next(colors), line=False, shape=shape)
        for (name, p), shape in zip(told.marks.items(), cycle(SHAPES), strict=False)
    ]
    return line_chart(
        [*marks, *lines],
        title=told.title,
        x_label="step",
        y_label=told.y_label,
        rules=told.rules,
        x_range=ends,
        y_log=told.log,
        width=width,
    )


def thinned(points: Points, most: int = _MOST_POINTS) -> Points:
    """As many points at most, the least and the greatest value of each stretch among them, and both ends."""
    if len(points) <= most:
        return points
    each = -(-2 * len(points) // (most - 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), each):
        stretch = range(start, min(start + each, len(points)))
        kept |= {min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
