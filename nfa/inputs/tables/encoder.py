"""Rows of a table to inputs of a network, by a ColumnTransformer whose state is plain values."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nfa.device import free_memory
from nfa.errors import NfaError
from nfa.inputs.tables.features import Levels, Numbers, Outputs
from nfa.inputs.tables.files import needed, read_table
from nfa.inputs.tables.numerals import Notation
from nfa.inputs.tables.table import PLAIN, Table, is_number, missing, objects

if TYPE_CHECKING:
    from pandas import DataFrame
    from sklearn.compose import ColumnTransformer

MAX_ONE_HOT = 10_000
IDENTIFIER_SHARE = 0.9  # share of different values above which a column identifies its rows
_VARIES = 1e-12  # of the mean: standard deviations that are rounding
_BLOCK = 2**22  # numbers made at a time, in double precision
_SHOWN = 12  # columns listed in a message


@dataclass(frozen=True)
class TableEncoder:
    """The map from rows to inputs, all of it fitted on training rows.

    Numbers are standardised, their gaps filled with the median and told in an input of their own; text is
    one-hot.

    Attributes:
        columns: those in use, in order.
        dropped: columns left out, and why.
        header: whether the first line of files holds names, see `read_table`.
        how: how numbers of files are written, and what stands for gaps.
        outputs: what is predicted from the inputs, where that is known.
    """

    columns: tuple[Numbers | Levels, ...]
    dropped: Mapping[str, str] = field(default_factory=dict)
    header: bool = True
    how: Notation = field(default_factory=Notation)
    outputs: Outputs | None = None

    @classmethod
    def fit(cls, train: Table, *, standardize: bool = True) -> "TableEncoder":
        """Find medians, means, deviations and levels of training rows, and columns that tell nothing.

        Args:
            train: training rows only.
            standardize: give numeric inputs mean 0 and variance 1; else mean and std are 0 and 1.

        Raises:
            NfaError: no column is left, or the levels are too many.
        """
        dropped = {name: why for name, values in train.columns.items() if (why := _useless(values))}
        kept = [name for name in train.columns if name not in dropped]
        found = _fitted(train, kept, standardize)
        dropped |= {name: "constant" for name, column in found.items() if not column.feature_names}
        columns = tuple(found[name] for name in kept if name not in dropped)
        dropped = {name: dropped[name] for name in train.columns if name in dropped}
        if not columns:
            listed = ", ".join(f"{name}: {why}" for name, why in list(dropped.items())[:5])
            reasons = listed or "it has no other than the target"
            raise NfaError(f"no input column is left in {train.source} ({reasons}): add some that vary")
        encoder = cls(columns, dropped, how=train.how or Notation())
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

    def read(self, path: str | os.PathLike) -> Table:
        """Read a file as that of the training rows was read.

        Raises:
            NfaError: as `read_table`.
        """
        texts = {c.name: not c.are_numbers for c in self.columns if isinstance(c, Levels)}
        return read_table(Path(path).expanduser(), header=self.header, how=self.how, known=texts)

    def transform(self, rows: "Table | str | os.PathLike") -> Tensor:
        """Inputs of rows; columns come in any order, and others than those in use do not matter.

        Args:
            rows: a table, or a file to `read`.

        Returns:
            Float32 (n, features), in the order of `feature_names`.

        Raises:
            NfaError: columns are missing, or hold something else than those of the training rows; the inputs
                take more than half of the free memory.
        """
        table = rows if isinstance(rows, Table) else self.read(rows)
        table = self._checked(table)
        x = self._room(len(table))
        step = max(_BLOCK // x.shape[1], 1)
        for start in range(0, len(table), step):
            block = slice(start, start + step)
            with np.errstate(over="ignore"):  # beyond float32 they are infinite
                x[block] = self._encode(table.take(block))
            bad = np.argwhere(~np.isfinite(x[block]))
            if len(bad):
                raise NfaError(
                    f"column {self.feature_names[bad[0, 1]]!r} of {table.source} has a number in row "
                    f"{start + bad[0, 0] + 1} that is too far from those of training: repair it"
                )
        return torch.from_numpy(x)

    def save(self, path: str | os.PathLike) -> None:
        """Write the state as JSON, from which `load_encoder` builds the same encoder."""
        from nfa.inputs.tables.encoder_file import save

        save(self, Path(path))

    # ---- rows ---------------------------------------------------------------------------------------------

    def _checked(self, table: Table) -> Table:
        """The columns in use, each of the kind that it had in training."""
        gone = [column.name for column in self.columns if column.name not in table.columns]
        if gone:
            more = f", … ({len(gone)} in all)" if len(gone) > _SHOWN else ""
            raise NfaError(
                f"expected the columns of the training rows in {table.source}, it has no "
                f"{', '.join(gone[:_SHOWN])}{more}: add what is missing"
            )
        used = {column.name: table.columns[column.name] for column in self.columns}
        table = Table(used, table.source, table.about, table.how).with_gaps()
        table = table.with_text(column.name for column in self.columns if isinstance(column, Levels))
        numbers = {c.name: _checked_numbers(c, table) for c in self.columns if isinstance(c, Numbers)}
        return replace(table, columns={**table.columns, **numbers})

    def _room(self, n: int) -> np.ndarray:
        size, free = 4 * n * len(self.feature_names), free_memory(torch.device("cpu"))
        if free is not None and size > free / 2:
            raise NfaError(
                f"{n} rows of {len(self.feature_names)} inputs need {size / 1e9:.2f} GB, more than half of "
                f"the {free / 1e9:.2f} GB of free memory: use fewer rows (data.n_train), or add columns to "
                "data.drop"
            )
        return np.empty((n, len(self.feature_names)), dtype=np.float32)

    def _encode(self, rows: Table) -> np.ndarray:
        """Inputs float64 (n, features) of rows that were checked."""
        return self._transformer.transform(_frame(rows.columns))[:, self._order]

    @cached_property
    def _transformer(self) -> "ColumnTransformer":
        """Fitted to one row of medians and first levels, then given the means and deviations."""
        numbers = [c for c in self.columns if isinstance(c, Numbers) and c.varies]
        row = {
            c.name: np.array([c.median]) if isinstance(c, Numbers) else objects(c.levels[:1])
            for c in self.columns
        }
        transformer = _transformer(self.columns, [c.levels for c in self.columns if isinstance(c, Levels)])
        transformer.fit(_frame(row))
        if numbers:
            scaler = transformer.named_transformers_["numbers"][-1]
            scaler.mean_ = np.array([c.mean for c in numbers])
            scaler.scale_ = np.array([c.std for c in numbers])
            scaler.var_ = scaler.scale_**2
        return transformer

    @cached_property
    def _order(self) -> np.ndarray:
        """Where the inputs, in the order of columns, are among those of the transformer."""
        places = list(enumerate(self.columns))
        made = [i for i, c in places if isinstance(c, Numbers) and c.varies]
        made += [i for i, c in places if isinstance(c, Numbers) and c.indicator]
        made += [i for i, c in places if isinstance(c, Levels) for _ in c.levels]
        return np.argsort(made, kind="stable")

    def _check_levels(self) -> None:
        if self.num_one_hot > MAX_ONE_HOT:
            widest = max(self.one_hot, key=self.one_hot.__getitem__)
            raise NfaError(
                f"the text columns would make {self.num_one_hot} inputs, more than {MAX_ONE_HOT}, "
                f"{self.one_hot[widest]} of them of {widest!r}: add it to data.drop"
            )


def _useless(values: np.ndarray) -> str:
    """Why a column cannot be an input, as far as that is seen without its moments; else empty."""
    gaps = missing(values)
    if gaps.all():
        return "empty"
    if is_number(values):
        return ""
    known = len(values) - int(gaps.sum())
    different = len(set(values[~gaps]))
    if different + gaps.any() < 2:
        return "constant"
    if different >= IDENTIFIER_SHARE * known:
        return f"identifier ({different} different texts in {known} training rows)"
    return ""


def _fitted(train: Table, names: Sequence[str], standardize: bool) -> dict[str, Numbers | Levels]:
    """Columns by name, with the state that a transformer finds on training rows."""
    gaps = {name: bool(missing(train.columns[name]).any()) for name in names}
    plan = [
        Numbers(name, 0.0, 0.0, 1.0, True, gaps[name]) if is_number(train.columns[name]) else Levels(name, ())
        for name in names
    ]
    numbers = [column.name for column in plan if isinstance(column, Numbers)]
    found: dict[str, Numbers | Levels] = {}
    if not plan:
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        transformer = _transformer(plan).fit(_frame({name: train.columns[name] for name in names}))
    if numbers:
        imputer, scaler = transformer.named_transformers_["numbers"]
        moments = zip(imputer.statistics_, scaler.mean_, np.sqrt(scaler.var_), strict=True)
        for name, (median, mean, std) in zip(numbers, moments, strict=True):
            _check_moments(name, train.columns[name], mean, std)
            varies = bool(std > _VARIES * abs(mean))
            scale = (float(mean), float(std)) if standardize and varies else (0.0, 1.0)
            written = train.about.get(name, PLAIN).written
            found[name] = Numbers(name, float(median), *scale, varies, gaps[name], written)
    if len(numbers) < len(names):
        texts = (name for name in names if name not in found)
        for name, levels in zip(texts, transformer.named_transformers_["levels"].categories_, strict=True):
            found[name] = Levels(name, tuple(levels))
    return found


def _transformer(
    columns: Sequence[Numbers | Levels], levels: Sequence[Sequence[str | None]] | None = None
) -> "ColumnTransformer":
    """Numbers that vary, then indicators of gaps, then levels, each in the order of the columns.

    Levels that are not given are found; what is made then is sparse, since it is made of all rows at once.
    """
    compose, impute, pipeline, preprocessing = (
        needed(f"sklearn.{name}", "encoding tables")
        for name in ("compose", "impute", "pipeline", "preprocessing")
    )
    numbers = [c for c in columns if isinstance(c, Numbers)]
    scaled = pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.StandardScaler())
    one_hot = preprocessing.OneHotEncoder(
        categories="auto" if levels is None else levels,
        handle_unknown="ignore",
        sparse_output=levels is None,
        dtype=np.float32,
    )
    parts = [
        ("numbers", scaled, [c.name for c in numbers if c.varies]),
        ("gaps", impute.MissingIndicator(features="all"), [c.name for c in numbers if c.indicator]),
        ("levels", one_hot, [c.name for c in columns if isinstance(c, Levels)]),
    ]
    return compose.ColumnTransformer(parts, sparse_threshold=1.0).set_output(transform="default")


def _frame(columns: Mapping[str, np.ndarray]) -> "DataFrame":
    """Columns under their names; texts stay objects, with None for gaps."""
    pandas = needed("pandas", "encoding tables")
    numbers = {name: values for name, values in columns.items() if is_number(values)}
    texts = {name: values for name, values in columns.items() if name not in numbers}
    blocks = [
        pandas.DataFrame(np.stack([*some.values()]).T, columns=[*some], dtype=dtype)
        for some, dtype in ((numbers, np.float64), (texts, object))
        if some
    ]
    return pandas.concat(blocks, axis=1)


def _check_moments(name: str, values: np.ndarray, mean: float, std: float) -> None:
    if not np.isfinite([mean, std]).all():
        raise NfaError(
            f"column {name!r} has numbers too far apart to standardise, from {np.nanmin(values):.3g} to "
            f"{np.nanmax(values):.3g}: repair them, or add it to data.drop"
        )


def _checked_numbers(column: Numbers, table: Table) -> np.ndarray:
    """Refuse a column that was numbers in training, and here is text, infinite, or in another unit."""
    values, about = table.columns[column.name], table.about.get(column.name, PLAIN)
    gaps = missing(values)
    if gaps.all():
        return np.full(len(values), np.nan)
    title = f"column {column.name!r} of {table.source}"
    if not is_number(values):
        said = f"{title} holds texts such as {values[~gaps][0]!r}, and held numbers in training: repair them"
        raise NfaError(about.doubt or said)
    if np.isinf(values).any():
        raise NfaError(f"{title} has infinite values: repair them")
    if about.written != column.written:
        here, then = (f"numbers {written}".strip() for written in (about.written, column.written))
        raise NfaError(f"{title} holds {here}, and held {then} in training: make them equal")
    return values
