"""Ranges that cover a length, for work that is done in parts."""

import itertools
from collections.abc import Iterator


def spans(length: int, step: int, start: int = 0) -> Iterator[slice]:
    """Ranges of at most ``step`` that cover ``length`` from ``start`` on."""
    return (slice(first, min(first + step, length)) for first in range(start, length, step))


def even_spans(length: int, step: int) -> list[slice]:
    """Ranges of nearly equal length, at most ``step``, that cover ``length``."""
    count = max(-(-length // step), 1)
    bounds = [length * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]
