"""Scores of the same model with several numbers of training samples."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from nfa.compare.comparison import Comparison
from nfa.compare.labels import ABSENT, differing, told_by
from nfa.compare.runs import Run

_LEAST_RATIO = 1.5  # of the largest number to the smallest: below, it is not what the runs are about


@dataclass(frozen=True)
class SizeCurve:
    """One model.

    Attributes:
        label: it, with the options that tell it from others, but for those that make the number of samples.
        scores: number of training samples, rising, to the scores of its runs.
    """

    label: str
    scores: dict[int, list[float]]

    @property
    def is_told(self) -> bool:
        """Whether there are several numbers of samples."""
        return len(self.scores) > 1


def size_curves(comparison: Comparison) -> list[SizeCurve]:
    """Of each model its scores by number of training samples; none where that number is much the same."""
    runs = [run for run in comparison.runs if run.summary.get("n_train")]
    sizes = {_size(run) for run in runs}
    if not sizes or max(sizes) < _LEAST_RATIO * min(sizes):
        return []
    makes_size = {name for name in differing(runs) if name.startswith("data.") and _tells_size(name, runs)}
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[told_by(run, runs, makes_size)][_size(run)].append(run.score)
    curves = [SizeCurve(label, dict(sorted(scores.items()))) for label, scores in found.items()]
    return curves if any(curve.is_told for curve in curves) else []


def _size(run: Run) -> int:
    return int(run.summary["n_train"])


def _tells_size(name: str, runs: Sequence[Run]) -> bool:
    """Whether an option of the data makes the number of samples: no two values have a number in common."""
    values: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        values[repr(run.settings.get(name, ABSENT))].add(_size(run))
    all_sizes = [size for sizes in values.values() for size in sizes]
    return len(values) > 1 and len(all_sizes) == len(set(all_sizes))
