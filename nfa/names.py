"""Suggestions for names that nobody knows."""

import difflib
from collections.abc import Iterable


def near(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """``; near ones: a, b``, or nothing."""
    lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=cutoff)
    return f"; near ones: {', '.join(lower[match] for match in found)}" if found else ""
