"""Tables: a CSV or Parquet file, or a set by name."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import TensorDataModule
from datamodules.checks import check_trainable
from datamodules.columns import choose_inputs
from datamodules.splits import Split, cut, cut_fold
from datamodules.table_sets import NamedTable, check_name, open_named
from datamodules.targets import read_target
from lab.options import SAMPLES, TABULAR, check_all
from nfa.errors import NfaError
from nfa.inputs.stratify import generator
from nfa.inputs.tables import PLAIN, SIGNS, Notation, Outputs, Table, TableEncoder, missing, read_table

_SHOWN = 8  # columns listed in a line on the screen


class Tabular(TensorDataModule):
    """Rows of a table as flat inputs, for classification or regression.

    Numbers are standardised and text is one-hot (a level that the training rows do not have is all zeros).
    Missing numbers become the median, with an input more that says so; missing text is a level of its own.
    Columns that are empty, constant, row numbers, or text that differs in nearly every row are left out. All
    of this is fitted on the training split alone, after validation and test rows were set aside (row numbers
    are known by their name), and told in `summary` and `remarks`. Dates become days.

    The test set is that of `test_path`; else fold `fold` of `folds`; else a `test_fraction`: seeded, and
    stratified by class. The folds of one seed are disjoint and cover all rows.

    Targets of a regression are standardised by the training split, so that one learning rate fits all: losses
    and ``mse`` are in units of ``target_std`` squared (``summary()["target_std"]``), ``r2`` has no unit.

    Args:
        path: a CSV file (also with tabs, semicolons, bars or blanks, and packed: ``.csv.gz``), a Parquet file
            (needs pyarrow), or an Excel file (needs openpyxl).
        target: name of the column to predict, or its position, from 0, negative from the end.
        name: instead of `path`: ``breast_cancer``, ``diabetes``, ``iris`` or ``wine``, bundled with
            scikit-learn; ``california_housing`` or ``openml:NUMBER``, downloaded.
        test_path: a second file with the test rows.
        task: ``classification``, ``regression``; ``auto`` takes text and up to 20 different whole numbers as
            classes.
        drop: columns to leave out.
        categorical: columns of numbers to treat as text.
        header: whether the first line of a CSV or Excel file holds names; if not, columns are called 0, 1, ….
        decimal: ``comma`` for numbers like 13,8; None is ``point``, or ``comma`` if thousands have points.
        thousands: ``comma``, ``point``, ``blank`` or ``apostrophe``, for numbers like 14,700.
        missing: texts and numbers that stand for gaps, in all columns. None takes those like NA, NaN, null
            and ? but in a target of text, where they are classes, and lone points and dashes among numbers.
            Empty cells always are gaps.
        root: folder of downloads.
        download: fetch what is missing there.
        test_fraction: in (0, 1).
        folds: number of folds, at least 2.
        fold: which of them is the test set, from 0; None takes `test_fraction`.
        normalize: ``feature`` or, the same for flat inputs, ``channel``: standardise numbers; ``none``.
        normalize_target: standardise targets of a regression.
        base: other options of `TensorDataModule`.

    Attributes:
        table_encoder: from rows to inputs, once the data are loaded; a run writes it to ``table.json``.

    Raises:
        NfaError: an option is out of range, or (in `setup`) the table cannot be used as described.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        target: str | int | None = None,
        *,
        name: str | None = None,
        test_path: str | Path | None = None,
        task: str = "auto",
        drop: Sequence[str | int] = (),
        categorical: Sequence[str | int] = (),
        header: bool = True,
        decimal: str | None = None,
        thousands: str | None = None,
        missing: str | float | Sequence[str | float] | None = None,
        root: str | Path = "data",
        download: bool = True,
        test_fraction: float = 0.2,
        folds: int = 5,
        fold: int | None = None,
        normalize: str = "feature",
        normalize_target: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(normalize="none", **base)  # columns differ in kind: the encoder scales them
        where = {"path": path, "target": target, "name": name, "test_path": test_path, "root": root}
        how = {"task": task, "drop": drop, "categorical": categorical, "normalize": normalize}
        numerals = {"decimal": decimal, "thousands": thousands, "missing": missing}
        flags = {"header": header, "download": download, "normalize_target": normalize_target}
        parts = {"test_fraction": test_fraction, "folds": folds, "fold": fold}
        check_all("data", SAMPLES | TABULAR, where | how | numerals | flags | parts)
        _check_source(path, name, target, test_path)
        _check_fold(folds, fold, test_path)
        self.path, self.target, self.name, self.test_path = path, target, name, test_path
        self.forced_task, self.header, self.how = task, header, _notation(decimal, thousands, missing)
        self.drop, self.categorical = _listed(drop), _listed(categorical)
        self.root, self.download = Path(root).expanduser(), download
        self.test_fraction, self.folds, self.fold = test_fraction, folds, fold
        self.standardize, self.normalize_target = normalize != "none", normalize_target
        self._opened: NamedTable | None = None  # between prepare_data and setup: OpenML's files take long
        self._facts: dict[str, Any] = {}
        self._note_of_target = ""
        self.table_encoder: TableEncoder | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order: ``age``, ``age missing``, ``colour=red``, ``colour missing``."""
        self._split("train")
        return tuple(self._facts["feature_names"])

    def prepare_data(self) -> None:
        """Download if allowed and needed."""
        if self.name is not None:
            self._opened = self._open_named()

    def load(self) -> tuple[Split, Split]:
        """Read, choose the rows of each split, fit on those of training, and encode all."""
        source, num_fixed = self._read()
        inputs, left_out = choose_inputs(source.table, source.target, self.drop, self.categorical)
        known = self._with_target(source)
        y = self._read_target(source, known)
        inputs = inputs.take(known)
        train, test = self._cut(y, None if num_fixed is None else int(known[:num_fixed].sum()))
        train = train[self.subset(y[train], self.n_train, "n_train")]
        test = test[self.subset(y[test], self.n_test, "n_test")]
        fitted = train[self.set_aside(y[train])[0]]  # the cut that `setup` makes
        check_trainable(y[fitted])
        encoder = TableEncoder.fit(inputs.take(fitted.numpy()), standardize=self.standardize)
        used = inputs.take(torch.cat([train, test]).numpy())
        self._facts = {
            "target": source.target,
            "n_without_target": int((~known).sum()),
            "n_missing": {k: n for k, v in used.columns.items() if (n := int(missing(v).sum()))},
            "dropped": {**left_out, **encoder.dropped},
            "one_hot": encoder.one_hot,
            "read_as": self._read_as(used, source),
            "n_one_hot": encoder.num_one_hot,
            "feature_names": list(encoder.feature_names),
        }
        x, y = encoder.transform(used), self._scale(y, fitted)
        scale = (self._facts.get("target_mean", 0.0), self._facts.get("target_std", 1.0))
        outputs = Outputs(source.target, tuple(map(str, self.class_names)), *scale)
        self.table_encoder = replace(encoder, header=self.header, how=self.how, outputs=outputs)
        return Split(x[: len(train)], y[train]), Split(x[len(train) :], y[test])

    def summary(self) -> dict[str, Any]:
        """Describe what was loaded, in plain values.

        Beside those of every data set: ``target``; ``n_without_target``, rows left out; ``n_missing`` of each
        column; ``dropped`` columns and why; ``one_hot``, columns of text and their number of inputs;
        ``read_as``, what was guessed of how columns are written; ``n_one_hot`` inputs; ``feature_names``; for
        regression ``target_mean`` and ``target_std``: targets are ``(value - target_mean) / target_std``.
        """
        return {**super().summary(), **self._facts}

    def remarks(self) -> list[str]:
        """Lines that say what was dropped, made one-hot or guessed, for the screen."""
        rows = self._facts["n_without_target"]
        columns = {"dropped": self._facts["dropped"], "one-hot": self._facts["one_hot"]}
        lines = [
            f"{word}  {_told(f'{k} ({v})' for k, v in some.items())}"
            for word, some in columns.items()
            if some
        ]
        lines += [f"read as  {name}: {text}" for name, text in self._facts["read_as"].items()]
        return lines + ([f"left out {rows} rows without {self._facts['target']}"] if rows else [])

    def _read(self) -> tuple[NamedTable, int | None]:
        """The whole table, and how many of its rows, the first, are for training if that is given."""
        if self.name is not None:
            source, self._opened = self._opened or self._open_named(), None
            return source, None
        table = self._open(self.path)
        target = table.find(self.target, "data.target")
        if self.test_path is None:
            return NamedTable(table, target, "auto"), None
        return NamedTable(table.joined(self._open(self.test_path)), target, "auto"), len(table)

    def _open(self, path: str | Path) -> Table:
        text = {"data.categorical": self.categorical}
        if self.forced_task == "classification":
            text["data.target"] = (self.target,)
        return read_table(Path(path).expanduser(), header=self.header, how=self.how, text=text)

    def _open_named(self) -> NamedTable:
        return open_named(self.name, self.root, download=self.download, target=self.target)

    def _with_target(self, source: NamedTable) -> np.ndarray:
        """Which rows have a target: bool (n,)."""
        known = ~missing(source.table.columns[source.target])
        if 2 * known.sum() < len(known) or known.sum() < 2:
            raise NfaError(
                f"expected a target {source.target!r} in most rows of {source.table.source}, and in two or "
                f"more, got {known.sum()} in {len(known)} rows: add some, or pass another data.target"
            )
        return known

    def _read_target(self, source: NamedTable, known: np.ndarray) -> Tensor:
        """Targets int64 (n,) or float64 (n, 1); sets `class_names`."""
        task = source.task if self.forced_task == "auto" else self.forced_task
        target = read_target(source.table.take(known), source.target, task, source.class_names)
        self.class_names = target.class_names
        self._note_of_target = target.note
        return target.y

    def _read_as(self, used: Table, source: NamedTable) -> dict[str, str]:
        """What was guessed of how the columns in use are written."""
        told = {}
        for name in (*used.columns, source.target):
            about = source.table.about.get(name, PLAIN)
            note = self._note_of_target if name == source.target else ""
            told[name] = "; ".join(part for part in (about.written, about.note, note) if part)
        return {name: text for name, text in told.items() if text}

    def _scale(self, y: Tensor, fitted: Tensor) -> Tensor:
        """Standardise targets of a regression, all rows by the fitted ones; classes stay as they are."""
        if not y.is_floating_point():
            return y
        mean, std = float(y[fitted].mean()), float(y[fitted].std(correction=0))
        if not math.isfinite(mean) or not math.isfinite(std):
            raise NfaError(
                f"the targets have numbers too far apart, from {float(y.min()):.3g} to {float(y.max()):.3g}: "
                "repair them, or pass another data.target"
            )
        mean, std = (mean, std or 1.0) if self.normalize_target else (0.0, 1.0)
        self._facts |= {"target_mean": mean, "target_std": std}
        return ((y - mean) / std).float()

    def _cut(self, y: Tensor, num_fixed: int | None) -> tuple[Tensor, Tensor]:
        """Rows of training (with validation) and test."""
        if num_fixed is not None:
            rows = torch.arange(len(y))
            return rows[:num_fixed], rows[num_fixed:]
        if self.fold is None:
            return cut(y, self.test_fraction, generator(self.seed, "test"))
        if len(y) < self.folds:
            raise NfaError(f"expected at least data.folds={self.folds} rows, got {len(y)}: lower data.folds")
        return cut_fold(y, self.folds, self.fold, generator(self.seed, "folds"))


def _check_source(
    path: str | Path | None, name: str | None, target: str | int | None, test_path: Any
) -> None:
    if (path is None) == (name is None):
        got = "neither" if path is None else "both"
        raise NfaError(f"expected data.path=FILE or data.name=NAME, got {got}: pass one")
    if name is not None:
        check_name(name)
        if test_path is not None:
            raise NfaError("data.test_path goes with data.path, not with data.name: leave one out")
    elif target is None:
        raise NfaError(
            "pass data.target=COLUMN, the name or the position (from 0) of what is to be predicted"
        )


def _check_fold(folds: int, fold: int | None, test_path: Any) -> None:
    if fold is None:
        return
    if fold >= folds:
        raise NfaError(f"expected data.fold from 0 to {folds - 1}, for data.folds={folds}, got {fold!r}")
    if test_path is not None:
        raise NfaError("data.fold cuts the test set out of data.path: leave out data.test_path, or data.fold")


def _notation(
    decimal: str | None, thousands: str | None, gaps: str | float | Sequence[str | float] | None
) -> Notation:
    if decimal is not None and decimal == thousands:
        raise NfaError(f"data.decimal and data.thousands are both {decimal}: pass two different ones")
    one = isinstance(gaps, str | float | int)
    return Notation(
        SIGNS.get(decimal), SIGNS.get(thousands), (gaps,) if one else None if gaps is None else tuple(gaps)
    )


def _told(items: Iterable[str]) -> str:
    """A few of them, and how many more there are."""
    items = list(items)
    more = f", … ({len(items)} in all)" if len(items) > _SHOWN else ""
    return f"{', '.join(items[:_SHOWN])}{more}"


def _listed(columns: str | int | Sequence[str | int]) -> tuple[str | int, ...]:
    """One column may be given without brackets."""
    return (columns,) if isinstance(columns, str | int) else tuple(columns)
