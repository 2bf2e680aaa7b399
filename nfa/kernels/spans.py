"""Ranges that cover a length, for work that is done in parts."""

import itertools
from collections.abc import Iterator


def spans(length: int, step: int) -> Iterator[slice]:
    """Ranges of at most ``step`` that cover ``length``."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def even_spans(length: int, step: int) -> list[slice]:
    """Ranges of nearly equal length, at most ``step``, that cover ``length``."""
    count = max(-(-length // step), 1)
    bounds = [length * k // count for k in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]
