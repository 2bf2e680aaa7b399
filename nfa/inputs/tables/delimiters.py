"""Lines of a text file to rows of cells: what stands between them, and what stands before."""

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nfa.errors import NfaError
from nfa.inputs.tables.numerals import Notation, is_numeral

BLANKS = " "  # any run of blanks and tabs
_DELIMITERS = "\t;|,"  # a comma may be part of numbers
_SAMPLE = 50  # lines that must agree
_BLANK_RUN = re.compile(r"\S[ \t]{2,}\S|\S \t|\t \S")


@dataclass(frozen=True)
class Rows:
    """Rows of a text file.

    Attributes:
        names: of the columns, as far as a line before the data holds them in a comment.
        rows: cells of the lines that are not blank, stripped; all of one length.
    """

    names: list[str] | None
    rows: Iterator[list[str]]


def read_rows(lines: Iterable[str], path: Path, how: Notation, *, header: bool) -> Rows:
    """Cut lines into cells.

    A first line ``sep=;`` tells the delimiter, as for Excel. Lines in front that begin with ``#`` are
    comments, and the last of them holds the names if it has as many as there are columns and data follow.

    Raises:
        NfaError: (in iterating too) lines differ in their number of cells, or hold NUL bytes.
    """
    lines, comments, delimiter, before = iter(lines), [], None, 0
    first = ""
    for line in lines:
        text = line.strip()
        told = re.fullmatch(r"sep=(.)", line.strip("\r\n "), re.IGNORECASE)
        if told and not before:
            delimiter = told[1]
        elif text.startswith("#"):
            comments.append(line)
        elif text:
            first = line
            break
        before += 1
    if not first and comments:  # nothing follows: it is no comment
        first = comments.pop()
    sample = [first, *itertools.islice(lines, _SAMPLE)]
    delimiter = delimiter or _find_delimiter(sample)
    start = next(_cut(sample, delimiter), [])
    names = None
    if comments and header:
        bare = next(_cut([comments[-1].strip()[1:]], delimiter), [])
        whole = next(_cut([comments[-1]], delimiter), [])
        last = whole if whole[:1] == ["#"] and len(whole) == len(start) else bare
        if len(last) == len(start) and any(how.read(cell) or is_numeral(cell) for cell in start):
            names = last
    return Rows(names, _checked(itertools.chain(sample, lines), delimiter, path, before))


def _find_delimiter(sample: list[str]) -> str:
    """The first that cuts all lines of a sample into as many cells; else what the first line has most of."""
    widths = {}
    for delimiter in (*_DELIMITERS, BLANKS):
        found = _widths(sample, delimiter)
        if found is not None and found > 1:
            widths[delimiter] = found
    blanks = widths.pop(BLANKS, 0)
    best = next(iter(widths), None)
    if blanks and (best is None or (best == "\t" and blanks > widths["\t"] and _has_runs(sample))):
        return BLANKS
    return best or max(reversed(_DELIMITERS), key=sample[0].count)


def _has_runs(sample: list[str]) -> bool:
    """Whether cells are set apart by more than one blank in every line, as in columns of fixed width."""
    return all(_BLANK_RUN.search(line.strip()) for line in sample if line.strip())


def _widths(sample: list[str], delimiter: str) -> int | None:
    """Number of cells in every line, None if lines differ."""
    try:
        rows = list(_cut(sample, delimiter))
    except csv.Error:
        return None
    if len(rows) > 2 and len(sample) > _SAMPLE:
        rows.pop()  # it may be cut off within quotes
    return len(rows[0]) if rows and len({len(row) for row in rows}) == 1 else None


def _cut(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    for cells, _ in _numbered(lines, delimiter):
        yield cells


def _numbered(lines: Iterable[str], delimiter: str) -> Iterator[tuple[list[str], int]]:
    """Cells that are not all empty, and the number of the line they end in."""
    prepare: Callable[[str], str] = _spaced if delimiter == BLANKS else str
    reader = csv.reader(map(prepare, lines), delimiter=delimiter, skipinitialspace=True)
    for cells in reader:
        if any(cells):
            yield [cell.strip() for cell in cells], reader.line_num


def _spaced(line: str) -> str:
    return line.replace("\t", " ").strip() + "\n"


def _checked(lines: Iterable[str], delimiter: str, path: Path, before: int) -> Iterator[list[str]]:
    width = 0
    for cells, line in _numbered(lines, delimiter):
        width = width or len(cells)
        if len(cells) != width:
            raise NfaError(
                f"expected {width} values in every line of {path}, as in the first, got {len(cells)} in line "
                f"{before + line}: repair it"
            )
        if any("\0" in cell for cell in cells):
            raise NfaError(
                f"{path} holds NUL bytes in line {before + line}, as no text does: save it as CSV in UTF-8"
            )
        yield cells
