"""What tells series of a chart apart without colour: the shapes of markers, and names beside points."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nfa.page.text import escape

Point = tuple[float, float]

_REACHES = (9.0, 18.0, 30.0, 46.0, 66.0, 90.0)  # px from a point to its name
_DIRECTIONS = tuple((math.cos(a), math.sin(a)) for a in (math.pi * i / 8 for i in range(16)))
_MARKER, _RISE, _FALL = 6.0, 10.0, 4.0  # px: of a marker, and of a line of text above and below its baseline
_OUTSIDE, _COVERED = 40.0, 300.0  # what it costs a name to leave the plot by a px, and to cover a marker


def _around(count: int, turn: float, *radii: float) -> tuple[Point, ...]:
    """Corners at equal angles, of one radius after the other."""
    angles = [turn + 2 * math.pi * i / count for i in range(count)]
    return tuple(
        (radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a))
        for i, a in enumerate(angles)
    )


def _turned(corners: Iterable[Point], turn: float) -> tuple[Point, ...]:
    c, s = math.cos(turn), math.sin(turn)
    return tuple((c * x - s * y, s * x + c * y) for x, y in corners)


_PLUS = tuple(
    corner
    for i in range(4)
    for corner in _turned(((0.42, -0.42), (1.2, -0.42), (1.2, 0.42)), math.pi * i / 2)
)
# Corners of each shape for a marker of radius 1, of about equal area; the circle has none.
SHAPES: dict[str, tuple[Point, ...]] = {
    "circle": (),
    "square": _around(4, math.pi / 4, 1.25),
    "triangle": _around(3, -math.pi / 2, 1.45),
    "diamond": _around(4, 0.0, 1.4),
    "plus": _PLUS,
    "wedge": _around(3, math.pi / 2, 1.45),
    "star": _around(10, -math.pi / 2, 1.6, 0.7),
    "cross": _turned(_PLUS, math.pi / 4),
}


def marker(shape: str, x: float, y: float, radius: float, tooltip: str = "") -> str:
    """Draw one marker as SVG, a circle where the shape has no corners."""
    corners = "L".join(f"{x + radius * dx:.1f} {y + radius * dy:.1f}" for dx, dy in SHAPES.get(shape, ()))
    tag = "path" if corners else "circle"
    place = f'd="M{corners}Z"' if corners else f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"'
    return f"<{tag} {place}><title>{escape(tooltip)}</title></{tag}>" if tooltip else f"<{tag} {place}/>"


@dataclass(frozen=True)
class Name:
    """Where the name of a series stands.

    Attributes:
        x: where its baseline is anchored.
        y: height of its baseline.
        anchor: ``start``, ``middle`` or ``end``, the end that is next to its point.
        leader: ends of a line from the name to its point; None where it stands beside it.
    """

    x: float
    y: float
    anchor: str
    leader: tuple[Point, Point] | None


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "_Box") -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def beyond(self, other: "_Box") -> float:
        """Px by which this leaves the other."""
        sides = (
            other.left - self.left,
            self.right - other.right,
            other.top - self.top,
            self.bottom - other.bottom,
        )
        return sum(max(side, 0.0) for side in sides)

    def nearest(self, point: Point) -> Point:
        return min(max(point[0], self.left), self.right), min(max(point[1], self.top), self.bottom)


def place_names(
    groups: Sequence[Sequence[Point]], widths: Sequence[float], limits: tuple[float, float, float, float]
) -> list[Name]:
    """Find places for names beside points, so that they cover neither points nor each other if possible.

    Args:
        groups: for each name the points that it may stand beside, at least one.
        widths: of the names, in px.
        limits: left, top, right and bottom of the area that the names should keep to.
    """
    area = _Box(*limits)
    markers = [
        _Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for points in groups for x, y in points
    ]
    placed: list[_Box] = []
    names = []
    for points, width in zip(groups, widths, strict=True):
        found = [(point, _beside(point, reach, to, width)) for point in points for reach, to in _ways()]
        costs = [_cost(point, box, area, markers, placed) for point, box in found]
        point, box = found[costs.index(min(costs))]
        placed.append(box)
        names.append(_name(point, box))
    return names


def _name(point: Point, box: _Box) -> Name:
    end = box.nearest(point)
    leader = (point, end) if math.dist(point, end) > 1.5 * _REACHES[0] else None
    if point[0] <= box.left:
        return Name(box.left, box.bottom - _FALL, "start", leader)
    if point[0] >= box.right:
        return Name(box.right, box.bottom - _FALL, "end", leader)
    return Name((box.left + box.right) / 2, box.bottom - _FALL, "middle", leader)


def _ways() -> list[tuple[float, Point]]:
    return [(reach, to) for reach in _REACHES for to in _DIRECTIONS]


def _beside(point: Point, reach: float, to: Point, width: float) -> _Box:
    """The box of a name whose near side is so far from a point in a direction."""
    height = _RISE + _FALL
    x = point[0] + reach * to[0] + width / 2 * (round(to[0], 3) > 0) - width / 2 * (round(to[0], 3) < 0)
    y = point[1] + (reach + height / 2) * to[1]
    return _Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _cost(point: Point, box: _Box, area: _Box, markers: Sequence[_Box], placed: Sequence[_Box]) -> float:
    covered = sum(box.overlap(other) > 0 for other in markers)
    over = sum(box.overlap(other) for other in placed)
    return math.dist(point, box.nearest(point)) + 8 * over + _COVERED * covered + _OUTSIDE * box.beyond(area)
