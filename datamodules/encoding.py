"""Columns of a table to network inputs; everything is fitted on the training rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from datamodules.columns import IDENTIFIER_SHARE
from datamodules.images import available_memory
from nfa.errors import NfaError
from nfa.inputs.tables import Table, is_number, missing

MAX_ONE_HOT = 10_000


@dataclass(frozen=True)
class Numbers:
    """One column of numbers: ``(x - mean) / std``, missing ones replaced by the median before.

    Attributes:
        name: of the column.
        median: of the training values.
        mean: subtracted.
        std: divided by.
        varies: whether training values differ; if not, only the indicator is an input.
        indicator: whether a second input is 1 where the value is missing, else 0.
    """

    name: str
    median: float
    mean: float
    std: float
    varies: bool
    indicator: bool

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs made of it."""
        return (self.name,) * self.varies + (f"{self.name} missing",) * self.indicator

    def fill(self, values: np.ndarray, out: np.ndarray) -> None:
        """Write the inputs of values float64 (n,) to out float32 (n, inputs)."""
        unknown = np.isnan(values)
        if self.varies:
            with np.errstate(over="ignore"):  # beyond float32 they are infinite, and refused as such
                out[:, 0] = (np.where(unknown, self.median, values) - self.mean) / self.std
        if self.indicator:
            out[:, -1] = unknown


@dataclass(frozen=True)
class Levels:
    """One column of text: an input for every level, 1 where the text is that level; 0 for unknown text.

    Attributes:
        name: of the column.
        levels: texts among the training values, sorted; None, the last, if there are missing ones.
    """

    name: str
    levels: tuple[str | None, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs made of it."""
        return tuple(
            f"{self.name} missing" if level is None else f"{self.name}={level}" for level in self.levels
        )

    def fill(self, values: np.ndarray, out: np.ndarray) -> None:
        """Write the inputs of values object (n,) to out float32 (n, levels)."""
        position = {level: i for i, level in enumerate(self.levels)}
        code = np.array([position.get(value, -1) for value in values], dtype=np.int64)
        known = np.flatnonzero(code >= 0)
        out[known, code[known]] = 1


@dataclass(frozen=True)
class Encoder:
    """The map from rows to inputs.

    Attributes:
        columns: those in use, in order.
        dropped: columns left out, and why.
    """

    columns: tuple[Numbers | Levels, ...]
    dropped: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def fit(cls, train: Table, *, standardize: bool) -> "Encoder":
        """Find medians, means, deviations and levels of training rows, and columns that tell nothing.

        Args:
            train: training rows only.
            standardize: give numeric inputs mean 0 and variance 1; else mean and std are 0 and 1.

        Raises:
            NfaError: no column is left, or the levels are too many.
        """
        columns, dropped = [], {}
        for name, values in train.columns.items():
            found = _numbers(name, values, standardize) if is_number(values) else _levels(name, values)
            if isinstance(found, str):
                dropped[name] = found
            else:
                columns.append(found)
        if not columns:
            listed = ", ".join(f"{name}: {why}" for name, why in list(dropped.items())[:5])
            reasons = listed or "it has no other than the target"
            raise NfaError(f"no input column is left in {train.source} ({reasons}): add some that vary")
        encoder = cls(tuple(columns), dropped)
        encoder._check_levels()
        return encoder

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def one_hot(self) -> dict[str, int]:
        """Number of inputs that stand for a level of each column of text."""
        return {column.name: len(column.levels) for column in self.columns if isinstance(column, Levels)}

    @property
    def num_one_hot(self) -> int:
        """Number of inputs that stand for a level."""
        return sum(self.one_hot.values())

    def __call__(self, rows: Table) -> Tensor:
        """Inputs float32 (n, features) of rows.

        Raises:
            NfaError: they take more than half of the free memory.
        """
        shape = (len(rows), len(self.feature_names))
        needed, free = 4 * shape[0] * shape[1], available_memory()
        if needed > free / 2:
            raise NfaError(
                f"{shape[0]} rows of {shape[1]} inputs need {needed / 1e9:.2f} GB, more than half of the "
                f"{free / 1e9:.2f} GB of free memory: lower data.n_train, or add columns to data.drop"
            )
        x = np.zeros(shape, dtype=np.float32)
        start = 0
        for column in self.columns:
            stop = start + len(column.feature_names)
            column.fill(rows.columns[column.name], x[:, start:stop])
            start = stop
        return torch.from_numpy(x)

    def _check_levels(self) -> None:
        if self.num_one_hot > MAX_ONE_HOT:
            widest = max(
                (column for column in self.columns if isinstance(column, Levels)),
                key=lambda column: len(column.levels),
            )
            raise NfaError(
                f"the text columns would make {self.num_one_hot} inputs, more than {MAX_ONE_HOT}, "
                f"{len(widest.levels)} of them of {widest.name!r}: add it to data.drop"
            )


def _numbers(name: str, values: np.ndarray, standardize: bool) -> Numbers | str:
    """Fit a column, or say why not."""
    unknown = np.isnan(values)
    if unknown.all():
        return "empty"
    median = float(np.median(values[~unknown]))
    filled = np.where(unknown, median, values)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(filled.mean()), float(filled.std())
    if not np.isfinite([mean, std]).all():
        raise NfaError(
            f"column {name!r} has numbers too far apart to standardise, from {filled.min():.3g} to "
            f"{filled.max():.3g}: repair them, or add it to data.drop"
        )
    varies = std > 1e-12 * abs(mean)
    if not (varies or unknown.any()):
        return "constant"
    moments = (mean, std) if standardize and varies else (0.0, 1.0)
    return Numbers(name, median, *moments, varies=varies, indicator=bool(unknown.any()))


def _levels(name: str, values: np.ndarray) -> Levels | str:
    """Fit a column, or say why not."""
    unknown = missing(values)
    levels = sorted(set(values[~unknown]))
    if not levels:
        return "empty"
    if len(levels) + unknown.any() < 2:
        return "constant"
    known = len(values) - int(unknown.sum())
    if len(levels) >= IDENTIFIER_SHARE * known:
        return f"identifier ({len(levels)} different texts in {known} training rows)"
    return Levels(name, (*levels, None) if unknown.any() else tuple(levels))
