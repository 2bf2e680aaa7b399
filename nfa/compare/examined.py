"""What runs tell of single samples: how many are right in each group of them, and a map of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXAMINED = "examined"  # under which a summary has it
TRAINED, RIGHT, WRONG, ELSEWHERE = SIGNS = ".+- "
_LARGEST = 1000  # lines of a map, and characters of a line


@dataclass(frozen=True)
class Examined:
    """Samples of one run that it was not trained on.

    Attributes:
        groups: name of each to how many of it are right, and how many there are.
        grid: a line for each place of a first coordinate, a sign of `SIGNS` in it for each of a second one.
    """

    groups: dict[str, tuple[int, int]]
    grid: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """``Right: 197 of 197, reflection trained; 0 of 224, reflection not trained``."""
        parts = [f"{right} of {count}, {name}" for name, (right, count) in self.groups.items()]
        return f"Right: {'; '.join(parts)}"


def examined_of(summary: Mapping[str, Any]) -> Examined | None:
    """What a summary tells of single samples; None where it tells nothing.

    Raises:
        ValueError: it is not of this form.
    """
    found = summary.get(EXAMINED)
    if found is None:
        return None
    if not isinstance(found, Mapping) or set(found) != {"groups", "grid"}:
        raise ValueError(f"{EXAMINED} holds no groups and no grid")
    groups, grid = found["groups"], found["grid"]
    if not isinstance(groups, Mapping) or not all(map(_are_counts, groups.values())):
        raise ValueError(f"the groups of {EXAMINED} are not two counts each")
    if not isinstance(grid, list | tuple) or not 0 < len(grid) <= _LARGEST or not all(map(_is_line, grid)):
        raise ValueError(f"the grid of {EXAMINED} is no lines of {SIGNS!r}")
    if len({len(line) for line in grid}) != 1:
        raise ValueError(f"the grid of {EXAMINED} has lines of several lengths")
    counts = {str(name): (right, count) for name, (right, count) in groups.items()}
    return Examined(counts, tuple(grid))


def _are_counts(value: object) -> bool:
    """Whether a value is a pair of whole numbers, the first of at most the second."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    return whole and 0 <= value[0] <= value[1]


def _is_line(line: object) -> bool:
    return isinstance(line, str) and 0 < len(line) <= _LARGEST and set(line) <= set(SIGNS)
