"""Run folders: which are finished, what they hold, and why others are left out."""

import itertools
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nfa.ansatz.row import AnsatzRow, above_null
from nfa.compare.examined import EXAMINED, Examined, examined_of
from nfa.compare.reading import (
    LARGEST,
    UNREADABLE,
    is_number,
    is_plain,
    is_regular,
    read_ansatz,
    read_json,
    read_metrics,
    read_shapes,
    reason_of,
)
from nfa.compare.together import ANSATZ, FEATURES, METRICS, SUMMARY, disagreement
from nfa.errors import NfaError
from nfa.nets.registry import canonical

_SCORES = ("test/accuracy", "test/mse")
_NEEDED = ("model", "data", "seed", "fit_seconds", "run", "test_split")
_MARKS = (SUMMARY, "metrics.csv", ".hydra", "checkpoints")  # of a folder in which a run was begun
_REPLICATE = "data.fold="  # an option that, like the seed, makes another repetition and not another model
_KINDS: dict[str, type | tuple[type, ...]] = {  # of what is in a summary, where it is there
    "options": list, "settings": dict,
    **dict.fromkeys(("model", "data", "run", "test_split", "kind", "normalize", "nfa", "torch"), str),
    **dict.fromkeys(
        ("fit_seconds", "fit_memory_mb", "num_parameters", "num_centers", "n_train", "n_val", "n_test",
         "epochs", "rounds", "best_round"),
        (int, float),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One finished run of the lab.

    Attributes:
        path: its folder.
        summary: what ``summary.json`` holds.
        metrics: the rows of ``metrics.csv``, empty cells left out.
        ansatz: the rows of ``ansatz.csv``; empty where nothing was measured.
        tensors: names and shapes in ``features.safetensors``.
        facts: what that file says of the first layer: ``layer``, ``kind``, ``patch``, ``input_shape``.
    """

    path: Path
    summary: dict[str, Any]
    metrics: list[dict[str, float]]
    ansatz: list[AnsatzRow]
    tensors: dict[str, tuple[int, ...]]
    facts: dict[str, str]

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.summary["model"])

    @property
    def is_kernel(self) -> bool:
        """Whether it was fitted by solving, a round an epoch."""
        return self.summary.get("kind") == "kernel"

    @property
    def metric(self) -> str:
        """``test/accuracy``, or ``test/mse`` for regression."""
        return next(name for name in _SCORES if name in self.summary)

    @property
    def score(self) -> float:
        """Value of `metric`."""
        return float(self.summary[self.metric])

    @property
    def options(self) -> list[str]:
        """Options that were typed, ``key=value``, but those that make another repetition only."""
        return [o for o in self.summary.get("options", ()) if not o.startswith(_REPLICATE)]

    @property
    def settings(self) -> dict[str, Any]:
        """All options that make another model or training, by dotted name; where unknown, those typed."""
        typed = dict(option.partition("=")[::2] for option in self.options)
        known = self.summary.get("settings") or typed
        return {
            k: canonical(v) if k == "model._target_" and isinstance(v, str) else v for k, v in known.items()
        }

    @property
    def replicate(self) -> str:
        """Which repetition it is: seed, and fold of a cross-validation; without a seed, one of its own."""
        seed = self.summary["seed"]
        folds = [o for o in self.summary.get("options", ()) if o.startswith(_REPLICATE)]
        first = f"seed {seed}" if seed is not None else f"run {self.summary['run']}"
        return ", ".join([first, *(fold.replace(_REPLICATE, "fold ") for fold in folds)])

    @property
    def examined(self) -> Examined | None:
        """What it tells of single samples; None for nothing."""
        return examined_of(self.summary)

    @cached_property
    def last(self) -> list[AnsatzRow]:
        """Rows of the last measurement, input side first."""
        epoch = max((row.epoch for row in self.ansatz), default=math.nan)
        return [row for row in self.ansatz if row.epoch == epoch]

    @property
    def first_from_start(self) -> float:
        """Cosine of the first layer's NFM with the one at initialisation; NaN where it is unknown."""
        first = next((row for row in self.last if row.measured), None)
        return math.nan if first is None or self.is_kernel else first.init_nfm_cosine

    @property
    def above_null(self) -> tuple[int, int]:
        """How many layers the last measurement found above their null, and of how many it can tell."""
        return above_null(self.last)

    def mean(self, column: str) -> float:
        """Mean of a column of the last measurement over the layers measured; NaN where there is none."""
        return mean(getattr(row, column) for row in self.last if row.measured)

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(epoch, value) of a metric; a round of a kernel machine is an epoch."""
        return [(row["epoch"], row[name]) for row in self.metrics if name in row]


def mean(values: Iterable[float]) -> float:
    """Mean of the finite values; NaN without any."""
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def find_runs(paths: Sequence[str | os.PathLike]) -> tuple[list[Run], list[str]]:
    """Read the finished runs in folders and, where a folder is a sweep, in the folders in it.

    Returns:
        Runs in the order given, each once; and a sentence on each folder that is left out.
    """
    runs: dict[str, Run] = {}
    left_out, seen = [], set()
    for folder in itertools.chain.from_iterable(_run_folders(Path(path)) for path in paths):
        if (real := folder.resolve()) in seen:
            continue
        seen.add(real)
        try:
            run = read_run(folder)
        except NfaError as error:
            left_out.append(str(error))
            continue
        twin = runs.setdefault(run.summary["run"], run)
        if twin is not run:
            left_out.append(f"{folder} is a copy of {twin.path}")
    return list(runs.values()), left_out


def _run_folders(path: Path) -> list[Path]:
    """The folder itself or, of a sweep, the folders of its jobs."""
    if not path.is_dir() or is_run(path):
        return [path]
    inner = sorted(folder for folder in path.iterdir() if folder.is_dir() and is_run(folder))
    return inner or [path]


def is_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return any((folder / mark).exists() for mark in _MARKS)


def read_run(folder: Path) -> Run:
    """Read the files of a finished run.

    Raises:
        NfaError: there is no run, it did not finish, another version wrote it, or a file cannot be read.
    """
    summary = _summary(folder)
    try:
        if not is_regular(folder / METRICS):
            raise ValueError(f"it has no {METRICS}")
        metrics = read_metrics(folder / METRICS)
        ansatz = read_ansatz(folder / ANSATZ) if is_regular(folder / ANSATZ) else []
        tensors, facts = read_shapes(folder / FEATURES)
        together = disagreement(folder, summary, report=False) or _difference(summary, metrics, ansatz)
    except UNREADABLE as error:
        raise NfaError(f"the files of {folder} cannot be read ({reason_of(error)}): run it again") from None
    if together is not None:
        raise NfaError(
            f"{folder} is not finished, or was used again: {together}. Go on with it (ckpt_path=last), "
            "or leave it out"
        )
    return Run(folder, summary, metrics, ansatz, tensors, facts)


def _difference(
    summary: dict[str, Any], metrics: list[dict[str, float]], ansatz: list[AnsatzRow]
) -> str | None:
    """How files that were not written together differ in epochs and score; what all versions tell."""
    epochs = summary.get("epochs", math.inf)
    trained = max(row["epoch"] for row in metrics)
    measured = max((row.epoch for row in ansatz), default=0.0)  # perhaps before the end of the last epoch
    if epochs not in (trained, math.inf):
        return f"its {METRICS} ends with epoch {trained:g}, and its {SUMMARY} tells of {epochs:g}"
    for name in _SCORES:
        told = [row[name] for row in metrics if name in row]
        if told and not math.isclose(told[-1], summary.get(name, math.nan), rel_tol=1e-6):
            return f"its {METRICS} has {name} {told[-1]:g}, and its {SUMMARY} {summary.get(name)}"
    if measured > epochs:
        return f"its {ANSATZ} ends with epoch {measured:g}, and its {SUMMARY} tells of {epochs:g}"
    return None


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    if not folder.is_dir():
        raise NfaError(f"{folder} is no folder")
    if not is_run(folder):
        raise NfaError(f"{folder} holds no run of train.py")
    try:
        there = is_regular(path)
        summary = read_json(path) if there else {}
    except UNREADABLE as error:
        raise NfaError(f"{path} cannot be read as JSON ({reason_of(error)}): run {folder} again") from None
    if not there:
        raise NfaError(f"{folder} is not finished: it has no {SUMMARY}. Go on with it, or leave it out")
    missing = [name for name in _NEEDED if name not in summary]
    if missing:
        raise NfaError(
            f"{folder} was written by another version (nfa {summary.get('nfa', 'unknown')}): its {SUMMARY} "
            f"does not tell {', '.join(missing)}. Run it again"
        )
    wrong = [k for k, kind in _KINDS.items() if not _is_of(summary.get(k), kind)]
    wrong += [k for k in ("model", "data", "run", "test_split") if not summary[k]]
    if not isinstance(summary["seed"], int | None) or isinstance(summary["seed"], bool):
        wrong.append("seed")
    if not is_plain(summary.get("settings")):
        wrong.append("settings")
    if summary.get("kind") not in (None, "net", "kernel"):
        wrong.append("kind")
    try:
        examined_of(summary)
    except ValueError:
        wrong.append(EXAMINED)
    if wrong or not all(isinstance(option, str) for option in summary.get("options") or ()):
        raise NfaError(f"{path} is damaged ({', '.join(wrong) or 'options'}): run {folder} again")
    name = next((name for name in _SCORES if name in summary), "test/accuracy")
    score = summary.get(name)
    if not is_number(score) or not 0 <= score <= (1.0 if name == "test/accuracy" else LARGEST):
        if name not in summary:
            raise NfaError(f"{folder} was not tested: its {SUMMARY} has no test accuracy or error")
        raise NfaError(f"{folder} has no finite test accuracy or error in its {SUMMARY}")
    return {k: v for k, v in summary.items() if v is not None or k == "seed"}


def _is_of(value: object, kind: type | tuple[type, ...]) -> bool:
    """Whether a value is of a kind, or absent; a number is not below 0, and no truth value."""
    if value is None:
        return True
    if kind == (int, float):
        return is_number(value) and value >= 0
    return isinstance(value, kind)
