"""Files of tables: CSV and its kin, packed or not, Parquet and Excel."""

import bz2
import csv
import gzip
import itertools
import lzma
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TextIO

import numpy as np

from nfa.errors import NfaError
from nfa.inputs.tables.cells import Cell, read_column, read_texts
from nfa.inputs.tables.delimiters import read_rows
from nfa.inputs.tables.numerals import Notation, looks_like_number
from nfa.inputs.tables.table import PLAIN, About, Table, as_text, find_name, is_number, objects

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

_TEXT = (".csv", ".tsv", ".txt", ".data")
_PARQUET = (".parquet", ".pq")
_EXCEL = (".xlsx", ".xlsm")
_PACKED: dict[str, Callable[..., TextIO]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
ENDINGS = (*_TEXT, *_PARQUET, *_EXCEL)
_Cells = dict[str, Sequence[Cell] | np.ndarray]


def read_table(
    path: Path,
    *,
    header: bool = True,
    how: Notation | None = None,
    text: Mapping[str, Sequence[str | int]] | None = None,
    known: Mapping[str, bool] | None = None,
) -> Table:
    """Read a CSV file (also separated by semicolons, tabs, bars or blanks), a Parquet or an Excel file.

    A column is numeric if all its values are; dates are days. What looks like numbers and is written
    otherwise than `how` says is text in doubt, see `Table.about`.

    Args:
        path: the file; a text file may be packed (``.csv.gz``).
        header: whether the first line holds names; if not, columns are called 0, 1, …. Parquet has names.
        how: how numbers are written, and what stands for gaps.
        text: by the name of an option, columns which it asks to be text.
        known: columns that are known to be text, and whether numbers among it are kept as they are written.

    Raises:
        NfaError: there is no such file, or it cannot be read as described.
    """
    how = how or Notation()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise NfaError(
            f"expected a CSV, Parquet or Excel file at {path.absolute()}, found {found}: give another path"
        )
    cells = _read_cells(path, header, how)
    if not cells or not len(next(iter(cells.values()))):
        raise NfaError(f"{path} is empty: expected columns and at least one row")
    names = list(cells)
    kept = {find_name(names, c, option, str(path)) for option, some in (text or {}).items() for c in some}
    kept |= set(known or ())
    columns: dict[str, np.ndarray] = {}
    about: dict[str, About] = {}
    for name in names:
        said = f"{name!r} of {path}"
        typed = cells.pop(name)
        if (known or {}).get(name):
            columns[name], seen = read_texts(typed, how), PLAIN
        else:
            columns[name], seen = read_column(typed, how, said, keep_text=name in kept)
        if path.suffix.lower() in _PARQUET and is_number(columns[name]) and not seen and _are_texts(typed):
            seen = About(note="texts that are numbers")
        if seen:
            about[name] = seen
    return Table(columns, str(path), about, how)


def needed(module: str, purpose: str, otherwise: str = "") -> ModuleType:
    """Import what not every installation has.

    Raises:
        NfaError: it is not there; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        package = {"sklearn": "scikit-learn"}.get(name, name)
        advice = f"install it (pip install {package})" + (f", {otherwise}" if otherwise else "")
        raise NfaError(f"{purpose} needs {package}: {advice}") from None


def _are_texts(cells: Sequence[Cell] | np.ndarray) -> bool:
    return not isinstance(cells, np.ndarray) and any(isinstance(cell, str) for cell in cells)


def _read_cells(path: Path, header: bool, how: Notation) -> _Cells:
    ending, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    if ending in _PACKED and inner in _TEXT:
        return _read_text(path, header, how, _PACKED[ending])
    if ending in _TEXT:
        return _read_text(path, header, how, open)
    if ending in _PARQUET:
        return _read_parquet(path)
    if ending in _EXCEL:
        return _read_excel(path, header, how)
    raise NfaError(
        f"expected {path} to end with one of {' '.join(ENDINGS)}, or {_TEXT[0]}.gz: save it as CSV or Parquet"
    )


# ---- text -------------------------------------------------------------------------------------------------


def _read_text(path: Path, header: bool, how: Notation, opener: Callable[..., TextIO]) -> _Cells:
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as handle:
            found = read_rows(handle, path, how, header=header)
            names = _check_unique(_named(found.names), path) if found.names else None
            return _with_names(found.rows, path, how, header=header, names=names)
    except UnicodeDecodeError as error:
        raise NfaError(f"{path} is no UTF-8 text ({error.reason}): save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise NfaError(f"{path} cannot be read as CSV ({error}): repair it") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise NfaError(f"{path} cannot be unpacked ({error}): pack it again") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise NfaError(f"{path} cannot be unpacked ({error}): pack it again") from None


def _with_names(
    rows: Iterator[Sequence[Cell]], path: Path, how: Notation, *, header: bool, names: list[str] | None = None
) -> _Cells:
    """Columns of rows of one length under the names of the first, if that holds them."""
    first = next(rows, None)
    if first is None:
        raise NfaError(f"{path} is empty: expected columns and at least one row")
    if names is None and header:
        _check_names(first, path, how)
        names = _check_unique(_named(first), path)
    else:
        names, rows = names or [str(i) for i in range(len(first))], itertools.chain([first], rows)
    columns = list(zip(*rows, strict=True))
    return dict(zip(names, columns, strict=True)) if columns else {}


def _named(first: Sequence[Cell]) -> list[str]:
    shown = (as_text(name) if isinstance(name, float) else str(name or "") for name in first)
    return [name or f"unnamed {i}" for i, name in enumerate(shown)]


def _check_names(first: Sequence[Cell], path: Path, how: Notation) -> None:
    """Check that a first line holds names."""
    data = next((cell for cell in first if _is_data(cell, how)), None)
    if data is not None:
        raise NfaError(f"the first line of {path} holds data ({data}), no names: pass data.header=false")


def _is_data(cell: Cell, how: Notation) -> bool:
    """Whether a cell is a number that is no name, as a year may be."""
    if not isinstance(cell, str):
        return isinstance(cell, float) and not cell.is_integer()
    if cell.isdigit():
        return False
    value = how.read(cell)
    return looks_like_number(cell) if value is None else abs(value[0]) < float("inf")


def _check_unique(names: list[str], path: Path) -> list[str]:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        hint = ", or pass data.header=false if that line holds data" if repeated[0].isdigit() else ""
        raise NfaError(
            f"expected different names for all columns of {path}, {repeated[0]!r} is there "
            f"{names.count(repeated[0])} times: rename them{hint}"
        )
    return names


# ---- Parquet ----------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> _Cells:
    pyarrow, parquet = (
        needed(name, f"reading {path}", "or save the table as CSV") for name in ("pyarrow", "pyarrow.parquet")
    )
    try:
        names = _check_unique(parquet.read_schema(path).names, path)
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise NfaError(f"{path} cannot be read as Parquet ({reason}): write it again") from None
    return {name: _from_arrow(name, table.column(name), path) for name in names}


def _from_arrow(name: str, column: "ChunkedArray", path: Path) -> Sequence[Cell] | np.ndarray:
    """Cells of a pyarrow ChunkedArray: numbers, dates or texts; truth values and categories stay texts."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
        return objects(None if value is None else str(value) for value in column.to_pylist())
    kind = column.type
    if types.is_null(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    if types.is_timestamp(kind):
        column = column.cast(pyarrow.timestamp("us", kind.tz), safe=False)
    elif types.is_time64(kind):
        column = column.cast(pyarrow.time64("us"), safe=False)
    elif types.is_duration(kind):
        column = column.cast(pyarrow.duration("us"), safe=False)
    if types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind):
        return column.to_pylist()
    if types.is_boolean(kind):
        return objects(None if value is None else str(value) for value in column.to_pylist())
    if types.is_string(kind) or types.is_large_string(kind) or kind == pyarrow.string_view():
        return [None if value is None else value.strip() for value in column.to_pylist()]
    raise NfaError(
        f"column {name!r} of {path} holds {kind}, neither numbers nor text: leave it out of the file"
    )


# ---- Excel ------------------------------------------------------------------------------------------------


def _read_excel(path: Path, header: bool, how: Notation) -> _Cells:
    """The first sheet; it must be the only one that holds anything."""
    openpyxl = needed("openpyxl", f"reading {path}", "or save the sheet as CSV")
    try:
        with warnings.catch_warnings(), path.open("rb") as handle:
            warnings.simplefilter("ignore")  # of styles and the like
            book = openpyxl.load_workbook(handle, read_only=True, data_only=True)
            sheets = {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
            book.close()
    except Exception as error:  # the reader raises nearly anything on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NfaError(f"{path} cannot be read as Excel ({reason}): save the sheet as CSV") from None
    filled = {title: rows for title, rows in sheets.items() if any(c is not None for r in rows for c in r)}
    if len(filled) > 1:
        raise NfaError(
            f"{path} has {len(filled)} sheets with data ({', '.join(list(filled)[:5])}): save one as CSV"
        )
    rows = [[_from_excel(cell) for cell in row] for row in next(iter(filled.values()), [])]
    rows = [row for row in rows if any(cell is not None for cell in row)]
    width = max((i + 1 for row in rows for i, cell in enumerate(row) if cell is not None), default=0)
    padded = (row[:width] + [None] * (width - len(row)) for row in rows)
    return _with_names(padded, path, how, header=header)


def _from_excel(cell: Cell) -> Cell:
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, int | float):
        return float(cell)
    if isinstance(cell, str):
        return cell.strip() or None
    return cell
