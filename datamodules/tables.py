"""Tables of named columns, read from CSV and Parquet files."""

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfa.errors import NfaError

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".data")
PARQUET_ENDINGS = (".parquet", ".pq")
_MISSING = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?"))
_DELIMITERS = ",;\t|"
_SHOWN = 12  # column names listed in a message


@dataclass(frozen=True)
class Table:
    """Columns of one length.

    Attributes:
        columns: by name, in order: numbers, float64 (n,) with NaN where missing; or text, object (n,) of str
            with None where missing.
        source: where they come from, for messages.
    """

    columns: Mapping[str, np.ndarray]
    source: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, rows: np.ndarray) -> "Table":
        """Keep some rows: int64 indices or a bool mask."""
        return Table({name: values[rows] for name, values in self.columns.items()}, self.source)

    def without(self, names: Iterable[str]) -> "Table":
        """Leave columns out."""
        gone = set(names)
        return Table({k: v for k, v in self.columns.items() if k not in gone}, self.source)

    def find(self, column: str | int, option: str) -> str:
        """Name of a column that an option names, or counts: from 0, or from the end if negative.

        Raises:
            NfaError: there is none.
        """
        names = list(self.columns)
        if column in self.columns:
            return str(column)
        if isinstance(column, int) and -len(names) <= column < len(names):
            return names[column]
        more = f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
        raise NfaError(
            f"expected {option} to be one of the columns {', '.join(names[:_SHOWN])}{more} of {self.source}, "
            f"got {column!r}"
        )

    def with_text(self, names: Iterable[str]) -> "Table":
        """Turn columns of numbers into text."""
        columns = dict(self.columns)
        for name in names:
            if is_number(columns[name]):
                columns[name] = objects(None if np.isnan(v) else as_text(v) for v in columns[name])
        return Table(columns, self.source)

    def joined(self, other: "Table") -> "Table":
        """Append the rows of a table with the same columns, in whatever order.

        Raises:
            NfaError: columns differ, in name or in kind.
        """
        differing = set(self.columns).symmetric_difference(other.columns)
        if differing:
            raise NfaError(
                f"expected the same columns in {self.source} and {other.source}, only one of them has "
                f"{', '.join(sorted(differing)[:_SHOWN])}: make them equal"
            )
        columns = {}
        for name, values in self.columns.items():
            pair = [_empty_as(values, other.columns[name]), _empty_as(other.columns[name], values)]
            kinds = [("numbers" if is_number(v) else "text") for v in pair]
            if kinds[0] != kinds[1]:
                raise NfaError(
                    f"column {name!r} holds {kinds[0]} in {self.source} and {kinds[1]} in {other.source}: "
                    "make them equal, or add it to data.categorical or data.drop"
                )
            columns[name] = np.concatenate(pair)
        return Table(columns, self.source)


def is_number(values: np.ndarray) -> bool:
    """Whether a column holds numbers, not text."""
    return values.dtype == np.float64


def missing(values: np.ndarray) -> np.ndarray:
    """Where a column has no value: bool (n,)."""
    return np.isnan(values) if is_number(values) else np.equal(values, None)


def objects(values: Iterable[Any]) -> np.ndarray:
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


def read_table(path: Path, *, header: bool = True) -> Table:
    """Read a CSV file (also separated by semicolons, tabs or bars) or a Parquet file.

    A CSV column is numeric if all its values are; empty cells and those like NA, NaN, null or ? are missing.

    Args:
        path: the file.
        header: whether the first line of a CSV file holds names; if not, columns are called 0, 1, ….

    Raises:
        NfaError: there is no such file, or it cannot be read as described.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise NfaError(
            f"expected a CSV or Parquet file at {path.absolute()}, found {found}: give another path"
        )
    ending = path.suffix.lower()
    if ending not in CSV_ENDINGS + PARQUET_ENDINGS:
        raise NfaError(
            f"expected {path} to end with one of {' '.join(CSV_ENDINGS + PARQUET_ENDINGS)}: save it as CSV "
            "or Parquet"
        )
    table = Table(_read_parquet(path) if ending in PARQUET_ENDINGS else _read_csv(path, header), str(path))
    if len(table) == 0:
        raise NfaError(f"{path} is empty: expected columns and at least one row")
    return table


# ---- CSV --------------------------------------------------------------------------------------------------


def _read_csv(path: Path, header: bool) -> dict[str, np.ndarray]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = _rows(handle, path)
            first = next(rows, None)
            if first is None:
                raise NfaError(f"{path} is empty: expected columns and at least one row")
            names = _names(first, path) if header else [str(i) for i in range(len(first))]
            cells = list(zip(*(rows if header else itertools.chain([first], rows)), strict=True))
    except UnicodeDecodeError as error:
        raise NfaError(f"{path} is no UTF-8 text ({error.reason}): save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise NfaError(f"{path} cannot be read as CSV ({error}): repair it") from None
    return {name: _typed(column) for name, column in zip(names, cells, strict=False)}


def _rows(handle: Iterable[str], path: Path) -> Iterator[list[str]]:
    """Cells of the lines that are not blank, stripped; all of the length of the first."""
    lines, seen = iter(handle), []
    for line in lines:
        seen.append(line)
        if line.strip():
            break
    delimiter = max(_DELIMITERS, key="".join(seen).count)
    reader = csv.reader(itertools.chain(seen, lines), delimiter=delimiter, skipinitialspace=True)
    width = 0
    for cells in reader:
        if not any(cells):  # blank, or separators only
            continue
        width = width or len(cells)
        if len(cells) != width:
            raise NfaError(
                f"expected {width} values in every line of {path}, as in the first, got {len(cells)} in line "
                f"{reader.line_num}: repair it"
            )
        if any("\0" in cell for cell in cells):
            raise NfaError(
                f"{path} holds NUL bytes in line {reader.line_num}, as no text does: save it as CSV in UTF-8"
            )
        yield [cell.strip() for cell in cells]


def _names(first: list[str], path: Path) -> list[str]:
    """Check that a first line holds names."""
    data = next((cell for cell in first if not cell.isdigit() and _is_float(cell)), None)
    names = [name or f"unnamed {i}" for i, name in enumerate(first)]
    if data is not None:
        raise NfaError(f"the first line of {path} holds data ({data}), no names: pass data.header=false")
    _check_unique(names, path)
    return names


def _check_unique(names: list[str], path: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        hint = ", or pass data.header=false if that line holds data" if repeated[0].isdigit() else ""
        raise NfaError(
            f"expected different names for all columns of {path}, {repeated[0]!r} is there "
            f"{names.count(repeated[0])} times: rename them{hint}"
        )


def _typed(cells: Iterable[str | None]) -> np.ndarray:
    """Numbers if all cells that are not missing are, else text."""
    known = [None if cell is None or cell.lower() in _MISSING else cell for cell in cells]
    try:
        return np.array([np.nan if cell is None else float(cell) for cell in known], dtype=np.float64)
    except ValueError:
        return objects(known)


def _is_float(cell: str) -> bool:
    try:
        return cell.lower() not in _MISSING and bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _empty_as(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Give a column without any value the kind of another."""
    if is_number(values) and not is_number(other) and np.isnan(values).all():
        return objects([None] * len(values))
    return values


# ---- Parquet ----------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise NfaError(
            f"reading {path} needs pyarrow: install it (pip install pyarrow), or save the table as CSV"
        ) from None
    try:
        names = parquet.read_schema(path).names
        _check_unique(names, path)
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise NfaError(f"{path} cannot be read as Parquet ({reason}): write it again") from None
    return {name: _from_arrow(name, table.column(name), path) for name in names}


def _from_arrow(name: str, column: Any, path: Path) -> np.ndarray:
    """A pyarrow ChunkedArray as numbers or text; dates and truth values are text."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_null(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    if types.is_boolean(kind) or types.is_temporal(kind):
        return objects(None if value is None else str(value) for value in column.to_pylist())
    if types.is_string(kind) or types.is_large_string(kind) or kind == pyarrow.string_view():
        cells = ((None if value is None else value.strip()) for value in column.to_pylist())
        return objects(None if cell is None or cell.lower() in _MISSING else cell for cell in cells)
    raise NfaError(
        f"column {name!r} of {path} holds {kind}, neither numbers nor text: leave it out of the file"
    )
