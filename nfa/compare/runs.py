"""Run folders: which are finished, what they hold, and why others are left out."""

import csv
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nfa.compare.together import FEATURES, SUMMARY
from nfa.errors import NfaError
from nfa.nets.registry import canonical
from nfa.rows import AnsatzRow, read_csv

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
    if not path.is_dir() or _is_run(path):
        return [path]
    inner = sorted(folder for folder in path.iterdir() if folder.is_dir() and _is_run(folder))
    return inner or [path]


def _is_run(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def read_run(folder: Path) -> Run:
    """Read the files of a finished run.

    Raises:
        NfaError: there is no run, it did not finish, another version wrote it, or a file cannot be read.
    """
    summary = _summary(folder)
    try:
        metrics = _numbers(folder / "metrics.csv")
        ansatz = read_csv(folder / "ansatz.csv") if (folder / "ansatz.csv").is_file() else []
        tensors, facts = _tensors(folder / FEATURES)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NfaError(f"the files of {folder} cannot be read ({reason}): run it again") from None
    return Run(folder, summary, metrics, ansatz, tensors, facts)


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY
    if not folder.is_dir():
        raise NfaError(f"{folder} is no folder")
    if not _is_run(folder):
        raise NfaError(f"{folder} holds no run of train.py")
    if not path.is_file():
        raise NfaError(f"{folder} is not finished: it has no {SUMMARY}. Go on with it, or leave it out")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise NfaError(f"{path} cannot be read as JSON: run {folder} again") from None
    if not isinstance(summary, dict):
        raise NfaError(f"{path} holds no summary of a run: run {folder} again")
    missing = [name for name in _NEEDED if name not in summary]
    if missing:
        raise NfaError(
            f"{folder} was written by another version (nfa {summary.get('nfa', 'unknown')}): its {SUMMARY} "
            f"does not tell {', '.join(missing)}. Run it again"
        )
    wrong = [k for k, kind in _KINDS.items() if not _is_of(summary.get(k), kind)]
    if wrong or not all(isinstance(option, str) for option in summary.get("options") or ()):
        raise NfaError(f"{path} is damaged ({', '.join(wrong) or 'options'}): run {folder} again")
    name = next((name for name in _SCORES if name in summary), "test/accuracy")
    score = summary.get(name)
    most = 1.0 if name == "test/accuracy" else sys.float_info.max
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= most:
        if name not in summary:
            raise NfaError(f"{folder} was not tested: its {SUMMARY} has no test accuracy or error")
        raise NfaError(f"{folder} has no finite test accuracy or error in its {SUMMARY}")
    return {k: v for k, v in summary.items() if v is not None or k == "seed"}


def _is_of(value: object, kind: type | tuple[type, ...]) -> bool:
    """Whether a value is of a kind, or absent; a number has to be finite, and is no truth value."""
    if value is None:
        return True
    if kind == (int, float):
        return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < sys.float_info.max
    return isinstance(value, kind)


def _numbers(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(handle)]


def _tensors(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    if not path.is_file():
        return {}, {}
    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        facts = dict(file.metadata() or {})
    for name in ("patch", "input_shape"):
        if name in facts and not re.fullmatch(r"\d+(x\d+)*", facts[name]):
            raise ValueError(f"{name} is {facts[name]!r} and no shape")
    for name, shape in shapes.items():
        square = len(shape) in (2, 3) and shape[-1] == shape[-2]
        if 0 in shape or not (square or (name == "inputs" and len(shape) == 2)):
            raise ValueError(f"{name} has the shape {shape}")
    inputs, whole = shapes.get("inputs"), shapes.get("input_agop")
    if inputs and whole and inputs[1] != whole[0]:
        raise ValueError(f"inputs of length {inputs[1]} and an AGOP of size {whole[0]}")
    return shapes, facts
