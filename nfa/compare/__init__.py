"""Finished runs side by side: scores against seed noise, and whether they learned the same features."""

from nfa.compare.comparison import Comparison, compare, compare_each
from nfa.compare.runs import Run

__all__ = ["Comparison", "Run", "compare", "compare_each"]
