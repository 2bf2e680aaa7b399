"""A table of named columns: numbers or text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nfa.errors import NfaError
from nfa.inputs.tables.numerals import Notation, is_like_na

_SHOWN = 12  # column names listed in a message


@dataclass(frozen=True)
class About:
    """What was understood of the cells of a column.

    Attributes:
        written: how its numbers were written where not plainly: ``in %``, ``dates, as days since …``.
        note: what else was guessed.
        doubt: a sentence that says why the column is not taken for text unless it is asked for.
        unused: why it is no input.
    """

    written: str = ""
    note: str = ""
    doubt: str = ""
    unused: str = ""

    def __bool__(self) -> bool:
        return bool(self.written or self.note or self.doubt or self.unused)


PLAIN = About()
NONE = np.array(None)  # a missing text, to be compared with or put into columns


@dataclass(frozen=True)
class Table:
    """Columns of one length.

    Attributes:
        columns: by name, in order: numbers, float64 (n,) with NaN where missing; or text, object (n,) of str
            with None where missing.
        source: where they come from, for messages.
        about: what was understood of columns; those that are plain are not in it.
        how: how numbers of the file are written, and what stands for gaps; None where it was no file.
    """

    columns: Mapping[str, np.ndarray]
    source: str
    about: Mapping[str, About] = field(default_factory=dict)
    how: Notation | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, rows: np.ndarray | slice) -> "Table":
        """Keep some rows: int64 indices, a bool mask or a range."""
        return replace(self, columns={name: values[rows] for name, values in self.columns.items()})

    def without(self, names: Iterable[str]) -> "Table":
        """Leave columns out."""
        gone = set(names)
        return replace(self, columns={k: v for k, v in self.columns.items() if k not in gone})

    def find(self, column: str | int, option: str) -> str:
        """Name of a column that an option names, or counts: from 0, or from the end if negative.

        Raises:
            NfaError: there is none.
        """
        return find_name(list(self.columns), column, option, self.source)

    def with_text(self, names: Iterable[str]) -> "Table":
        """Turn columns of numbers into text."""
        columns = dict(self.columns)
        for name in names:
            if is_number(columns[name]):
                columns[name] = _as_texts(columns[name])
        return replace(self, columns=columns)

    def with_gaps(self) -> "Table":
        """Take texts like NA for gaps in all columns of text; till then they may be classes of a target."""
        if self.how is None or self.how.gaps is not None:
            return self
        columns = dict(self.columns)
        for name, values in columns.items():
            if not is_number(values):
                columns[name] = objects(None if v is None or is_like_na(v) else v for v in values)
        return replace(self, columns=columns)

    def joined(self, other: "Table") -> "Table":
        """Append the rows of a table with the same columns, in whatever order.

        A column that holds numbers in one of them and text, or numbers in another unit, in the other becomes
        text in doubt.

        Raises:
            NfaError: columns differ in name.
        """
        differing = set(self.columns).symmetric_difference(other.columns)
        if differing:
            raise NfaError(
                f"expected the same columns in {self.source} and {other.source}, only one of them has "
                f"{', '.join(sorted(differing)[:_SHOWN])}: make them equal"
            )
        columns, about = {}, {**other.about, **self.about}
        for name in self.columns:
            first, second = self._part(name, other), other._part(name, self)
            if first[1] != second[1]:
                said = f"column {name!r} holds {first[1]} in {self.source} and {second[1]} in {other.source}"
                about[name] = About(doubt=f"{said}: make them equal")
            texts = is_number(first[0]) != is_number(second[0])
            columns[name] = np.concatenate([_as_texts(v) if texts else v for v, _ in (first, second)])
        return replace(self, columns=columns, about=about)

    def _part(self, name: str, other: "Table") -> tuple[np.ndarray, str]:
        """A column and what it holds; without any value, it holds what that of the other table does."""
        values = self.columns[name]
        if is_number(values) and np.isnan(values).all():
            empty = values if is_number(other.columns[name]) else objects([None] * len(values))
            return empty, other._holds(name)
        return values, self._holds(name)

    def _holds(self, name: str) -> str:
        if not is_number(self.columns[name]):
            return "text"
        return f"numbers {self.about.get(name, PLAIN).written}".strip()


def is_number(values: np.ndarray) -> bool:
    """Whether a column holds numbers, not text."""
    return values.dtype == np.float64


def missing(values: np.ndarray) -> np.ndarray:
    """Where a column has no value: bool (n,)."""
    return np.isnan(values) if is_number(values) else np.equal(values, NONE)


def objects(values: Iterable[object]) -> np.ndarray:
    """Make a column of text: object (n,)."""
    values = list(values)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def as_text(value: float | str) -> str:
    """A value as people write it: 3, not 3.0."""
    if isinstance(value, str):
        return value
    value = float(value)
    return str(int(value)) if value.is_integer() else repr(value)


def find_name(names: list[str], column: str | int, option: str, source: str) -> str:
    """As `Table.find`, among the names of columns."""
    if column in names:
        return str(column)
    if isinstance(column, int) and -len(names) <= column < len(names):
        return names[column]
    more = f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
    raise NfaError(
        f"expected {option} to be one of the columns {', '.join(names[:_SHOWN])}{more} of {source}, "
        f"got {column!r}"
    )


def _as_texts(values: np.ndarray) -> np.ndarray:
    if not is_number(values):
        return values
    return objects(None if np.isnan(v) else as_text(v) for v in values)
