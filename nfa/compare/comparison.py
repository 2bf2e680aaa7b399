"""Runs of one data set grouped by model: means over seeds, paired differences, and who won."""

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from nfa.compare.data_sets import data_sets
from nfa.compare.labels import labelled
from nfa.compare.runs import Run, find_runs, mean
from nfa.compare.similarity import FeatureSpace, feature_spaces
from nfa.errors import NfaError

# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom; beyond, that of the normal distribution.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
      2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
      2.045, 2.042)  # fmt: skip
_VERSIONS = ("nfa", "torch")
_IDLE = 0.95  # cosine of an NFM with that at initialisation, beyond which little was learned


@dataclass(frozen=True)
class Group:
    """The runs of one model, which differ in seed or fold alone.

    Attributes:
        label: the model, with the options that tell it from others of its name.
        runs: in the order of their replicates.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def is_kernel(self) -> bool:
        """Whether these are kernel machines."""
        return self.runs[0].is_kernel

    @property
    def scores(self) -> dict[str, float]:
        """Replicate to test accuracy or error."""
        return {run.replicate: run.score for run in self.runs}

    @property
    def score(self) -> float:
        """Mean test accuracy or error."""
        return statistics.fmean(self.scores.values())

    @property
    def score_std(self) -> float:
        """Its standard deviation over replicates; NaN for one."""
        return deviation(list(self.scores.values()))

    def number(self, name: str) -> float:
        """Mean over runs of a number in ``summary.json``; NaN where none has it."""
        return mean(float(run.summary[name]) for run in self.runs if run.summary.get(name) is not None)

    def ansatz(self, column: str) -> float:
        """Mean over runs of the mean over layers of a column of the last measurement."""
        return mean(run.mean(column) for run in self.runs)

    @property
    def above_null(self) -> tuple[float, float]:
        """How many layers are above their null, and of how many that can be told; means over runs."""
        above, told = zip(*(run.above_null for run in self.runs), strict=True)
        return statistics.fmean(above), statistics.fmean(told)


@dataclass(frozen=True)
class Difference:
    """Scores of the best group minus those of another, on the replicates that both have.

    Attributes:
        other: label of the other group.
        mean: of the differences; in the direction of better.
        std: their standard deviation; NaN for one replicate.
        count: of replicates.
    """

    other: str
    mean: float
    std: float
    count: int

    @property
    def margin(self) -> float:
        """Half the width of the 95 % confidence interval of `mean` (Student's t); NaN for one replicate."""
        if self.count < 2:
            return math.nan
        t = _T[self.count - 2] if self.count - 2 < len(_T) else 1.96
        return t * self.std / math.sqrt(self.count)

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0: the difference exceeds the noise of the seeds.

        Where it is the same for all of them, they tell nothing of noise.
        """
        return not self.is_constant and self.mean > self.margin

    @property
    def is_constant(self) -> bool:
        """Whether it is the same for several replicates, up to rounding."""
        return self.count > 1 and self.std <= 1e-12


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        data: name of the data set, with what tells it from another of that name that is compared beside it.
        metric: ``test/accuracy`` or ``test/mse``.
        groups: best first.
        differences: the best group against each of the others, in their order.
        spaces: similarity of features, one for each kind of matrix.
        notes: sentences on what is to be known beside the numbers.
        left_out: a sentence on each folder or run that takes no part.
    """

    data: str
    metric: str
    groups: list[Group]
    differences: list[Difference]
    spaces: list[FeatureSpace]
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]

    def label_of(self, run: Run) -> str:
        """Label of the group that a run is in."""
        return next(group.label for group in self.groups if run in group.runs)


def compare(paths: Sequence[str | os.PathLike]) -> Comparison:
    """Compare the finished runs in folders.

    Args:
        paths: run folders, or folders of sweeps. Those that hold no finished run are left out, with a reason.

    Raises:
        NfaError: fewer than two runs, or runs that must not be compared: of other data, tested on other
            samples, or twice the same model and seed.
    """
    runs, left_out = find_runs(paths)
    _check_enough(runs, left_out)
    _check_same_data(runs)
    return _compare(runs, left_out, str(runs[0].summary["data"]))


def compare_each(paths: Sequence[str | os.PathLike]) -> tuple[list[Comparison], list[str]]:
    """Compare the finished runs in folders, those of each data set by themselves.

    Args:
        paths: as for `compare`.

    Returns:
        A comparison for each data set of two runs or more; and, where there are several data sets, a sentence
        on each folder or run that has no part in any of them.

    Raises:
        NfaError: fewer than two runs, or no data set whose runs can be compared.
    """
    runs, left_out = find_runs(paths)
    _check_enough(runs, left_out)
    sets = data_sets(runs)
    if len(sets) == 1:
        return [_compare(runs, left_out, sets[0][0])], []
    left_out += [f"{some[0].path} is the only run on {name}" for name, some in sets if len(some) == 1]
    found, failed = [], []
    for name, members in sets:
        try:
            found += [_compare(members, [], name)] if len(members) > 1 else []
        except NfaError as error:
            failed.append(f"{name} is not compared: {error}")
    if not found:
        if failed:
            raise NfaError("; ".join(failed))
        names = ", ".join(f"{some[0].path} is of {name}" for name, some in sets[:4])
        raise NfaError(f"no two of these runs are of one data set ({names}): compare runs of one data set")
    return found, left_out + failed


def _compare(runs: list[Run], left_out: list[str], data: str) -> Comparison:
    groups = [Group(label, tuple(members)) for label, members in labelled(runs).items()]
    for group in groups:
        _check_once(group)
    _check_splits(runs)
    groups, alone = _on_common_splits(groups)
    left_out += alone
    runs = [run for group in groups for run in group.runs]
    _check_enough(runs, left_out)
    better = 1 if runs[0].metric == "test/accuracy" else -1
    groups.sort(key=lambda group: -better * group.score)
    differences = [_difference(groups[0], group, better) for group in groups[1:]]
    pairs = [(run, group.label) for group in groups for run in group.runs]
    runs = [run for run, _ in pairs]
    spaces, notes = feature_spaces(runs, [label for _, label in pairs])
    return Comparison(
        data,
        runs[0].metric,
        groups,
        differences,
        spaces,
        [_setting(runs), *_version_notes(runs), *_size_notes(runs), *_idle_notes(groups), *notes],
        left_out,
    )


# ---- what may be compared ----------------------------------------------------------------------------------


def _check_enough(runs: Sequence[Run], left_out: Sequence[str]) -> None:
    if len(runs) >= 2:
        return
    found = "only one finished run" if runs else "no finished run"
    why = "; ".join(left_out[:3]) + (f"; and {len(left_out) - 3} more" if len(left_out) > 3 else "")
    where = f" ({runs[0].path})" if runs else ""
    raise NfaError(f"a comparison needs two runs or more, found {found}{where}" + (f". {why}" if why else ""))


def _check_same_data(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for what, mine, theirs in (
            ("data", first.summary["data"], run.summary["data"]),
            ("metric", first.metric, run.metric),
        ):
            if mine != theirs:
                raise NfaError(
                    f"{first.path} has {what} {mine} and {run.path} {theirs}: compare runs of one data set"
                )


def _check_once(group: Group) -> None:
    seen: dict[str, Run] = {}
    for run in group.runs:
        twin = seen.setdefault(run.replicate, run)
        if twin is not run:
            raise NfaError(
                f"{group.label} with {run.replicate} is there twice, in {twin.path} and {run.path}: give one "
                "of them, since a repetition is no other seed"
            )


def _check_splits(runs: Sequence[Run]) -> None:
    """Refuse runs of one seed that were tested on other samples."""
    seen: dict[str, Run] = {}
    for run in runs:
        first = seen.setdefault(run.replicate, run)
        if first.summary["test_split"] != run.summary["test_split"]:
            raise NfaError(
                f"{first.path} and {run.path} were tested on other samples (test splits "
                f"{first.summary['test_split']} of {first.summary.get('n_test')} samples and "
                f"{run.summary['test_split']} of {run.summary.get('n_test')}): their scores cannot be "
                "compared. Run them with the same data options"
            )


def _on_common_splits(groups: list[Group]) -> tuple[list[Group], list[str]]:
    """Leave out runs on test splits that some other group was not tested on."""
    splits = [{run.summary["test_split"] for run in group.runs} for group in groups]
    common = set.intersection(*splits)
    if not common:
        parts = ", ".join(f"{g.label}: {', '.join(g.scores)}" for g in groups)
        raise NfaError(
            f"there is no test split on which all models were tested ({parts}): add the missing runs"
        )
    kept, alone = [], []
    for group in groups:
        members = tuple(run for run in group.runs if run.summary["test_split"] in common)
        kept.append(Group(group.label, members))
        alone += [
            f"{run.path} was tested on a split on which not all models were"
            for run in group.runs
            if run not in members
        ]
    return kept, alone


# ---- what is said of them ----------------------------------------------------------------------------------


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _difference(best: Group, other: Group, better: int) -> Difference:
    mine, theirs = best.scores, other.scores
    gaps = [better * (mine[name] - theirs[name]) for name in mine if name in theirs]
    return Difference(other.label, mean(gaps), deviation(gaps), len(gaps))


def _setting(runs: Sequence[Run]) -> str:
    """On what all of them were trained and tested, and with which options in common."""
    words = {"n_train": "training", "n_val": "validation", "n_test": "test"}
    sizes = {name: {run.summary.get(name) for run in runs} for name in words}
    counts = [f"{n:,} {words[name]}" for name, v in sizes.items() if len(v) == 1 for n in v if n is not None]
    common = [option for option in runs[0].options if all(option in run.options for run in runs)]
    parts = [f"{', '.join(counts)} samples" if counts else "", " ".join(common)]
    return f"Setting: {'; '.join(filter(None, [str(runs[0].summary['data']), *parts]))}"


def _idle_notes(groups: Sequence[Group]) -> list[str]:
    """Nets whose first layer is still close to its random start: its NFM tells little of what was learned."""
    starts = {group.label: mean(run.first_from_start for run in group.runs) for group in groups}
    idle = [f"{label} {value:.3f}" for label, value in starts.items() if value > _IDLE]
    note = "First layers close to their random start (cosine of their NFM with it)"
    return [f"{note}: {', '.join(idle)}"] if idle else []


def _version_notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    for name in _VERSIONS:
        found = sorted({str(run.summary.get(name, "unknown")) for run in runs})
        if len(found) > 1:
            notes.append(f"Versions differ: {name} {', '.join(found)}")
    return notes


def _size_notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    for name, words in (("n_train", "training samples"), ("normalize", "normalisation")):
        found = sorted({str(run.summary.get(name, "unknown")) for run in runs})
        if len(found) > 1:
            notes.append(f"Not all had the same {words}: {', '.join(found)}")
    return notes
