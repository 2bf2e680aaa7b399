"""The cells of one column to numbers, or to text."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, time, timedelta

import numpy as np

from nfa.inputs.tables.dates import DAYS, days, is_other_date, read_date
from nfa.inputs.tables.numerals import LONE_MARKS, Notation, is_numeral, looks_like_number, readings
from nfa.inputs.tables.table import NONE, PLAIN, About, as_text, is_number, missing, objects

_SHARE = 0.9  # of texts that look like numbers, above which they are taken for numbers written otherwise
_OTHER_DATES = "dates, and not written as 2024-12-31"
Cell = str | float | date | time | timedelta | None


def read_column(
    cells: Sequence[Cell] | np.ndarray, how: Notation, name: str, *, keep_text: bool = False
) -> tuple[np.ndarray, About]:
    """Make numbers of cells if all that are not gaps are numbers, or all are dates; else text.

    Args:
        cells: stripped texts, numbers, dates or None; or an array that has its type already.
        how: how numbers are written.
        name: of the column and its file, for a doubt.
        keep_text: make numbers of plain numerals alone: the column is to be text.

    Returns:
        The column, see `Table`, and what was understood of it.
    """
    if isinstance(cells, np.ndarray):
        return _without_gaps(cells, how), PLAIN
    known = [None if cell is None or cell == "" or how.is_gap(cell) else cell for cell in cells]
    number = _numbers(known, how)
    if number is not None and not (keep_text and number[1].written):
        return number
    if keep_text:
        return _texts(known), PLAIN
    return _dates(known, how) or _text(known, how, name)


def read_texts(cells: Sequence[Cell] | np.ndarray, how: Notation) -> np.ndarray:
    """Cells as texts, whatever they hold, with None for gaps: a column, see `Table`."""
    if isinstance(cells, np.ndarray):
        cells = [None if v is None or v != v else v for v in _without_gaps(cells, how).tolist()]
    return _texts([None if cell is None or cell == "" or how.is_gap(cell) else cell for cell in cells])


def _without_gaps(values: np.ndarray, how: Notation) -> np.ndarray:
    if not how.gaps:
        return values
    gaps = np.array([value is not None and how.is_gap(value) for value in values], dtype=bool)
    return np.where(gaps, np.nan, values) if is_number(values) else np.where(gaps, NONE, values)


def _numbers(cells: Sequence[Cell], how: Notation) -> tuple[np.ndarray, About] | None:
    """Numbers of one unit, or None."""
    values = np.full(len(cells), np.nan)
    units: set[str] = set()
    marks: Counter[str] = Counter()
    for i, cell in enumerate(cells):
        if isinstance(cell, str):
            read = how.read(cell)
            if read is not None:
                values[i] = read[0]
                units.add(read[1])
            elif not how.is_gap_among_numbers(cell):
                return None
            elif cell in LONE_MARKS:
                marks[cell] += 1
        elif isinstance(cell, float):
            values[i] = cell
            units.add("")
        elif cell is not None:
            return None
        if len(units) > 1:
            return None
    return values, About(f"in {unit}" if (unit := "".join(units)) else "", _gaps(marks))


def _gaps(marks: Counter[str]) -> str:
    return ", ".join(f"{count} cells of {mark!r} are gaps" for mark, count in marks.items())


def _dates(cells: Sequence[Cell], how: Notation) -> tuple[np.ndarray, About] | None:
    """Dates as numbers, or what cannot be read as dates though it looks so; None for others."""
    values, others = np.full(len(cells), np.nan), 0
    for i, cell in enumerate(cells):
        if cell is None or (isinstance(cell, str) and how.is_gap_among_numbers(cell)):
            continue
        value = read_date(cell) if isinstance(cell, str) else None if isinstance(cell, float) else days(cell)
        if value is not None:
            values[i] = value
        elif isinstance(cell, str) and is_other_date(cell):
            others += 1
        else:
            return None
    if others:
        return _texts(cells), About(unused=_OTHER_DATES)
    return values, About(f"dates, as {DAYS}")


def _text(cells: Sequence[Cell], how: Notation, name: str) -> tuple[np.ndarray, About]:
    values = _texts(cells)
    doubt = _doubt(list(values[~missing(values)]), how)
    return values, About(doubt=f"column {name} {doubt}" if doubt else "")


def _texts(cells: Sequence[Cell]) -> np.ndarray:
    return objects(
        None if cell is None else as_text(cell) if isinstance(cell, float) else str(cell) for cell in cells
    )


def _doubt(texts: list[str], how: Notation) -> str:
    """Whether texts are numbers written otherwise, and with which options they can be read."""
    texts = [text for text in texts if not how.is_gap_among_numbers(text)]
    others = [text for text in texts if not is_numeral(text) or how.read(text) is None]
    alike = [text for text in others if looks_like_number(text)]
    if not alike or len(texts) - len(others) + len(alike) < _SHARE * len(texts):
        return ""
    stray = next((text for text in others if not looks_like_number(text)), None)
    if stray is not None:
        return f"holds numbers written like {alike[0]!r}, and texts like {stray!r}: repair them"
    unread = [text for text in alike if how.read(text) is None] or alike
    said = f"holds numbers written like {unread[0]!r}"
    units = {read[1]: text for text in texts if (read := how.read(text)) is not None}
    if len(units) > 1:
        pair = list(units.values())[:2]
        return f"holds numbers in several units, such as {pair[0]!r} and {pair[1]!r}: repair them"
    ways = readings(texts, how)
    if not ways:
        reason = f"{how.options} does not read" if how.options else "are not all of one form"
        return f"{said}, which {reason}: repair them"
    meant = [(way.options, read) for way in ways if (read := way.read(unread[0])) is not None]
    return f"{said}: pass " + ", ".join(f"{options} if that is {as_text(read[0])}" for options, read in meant)
