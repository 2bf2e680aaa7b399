"""Cells of CSV files: numbers, and names that a spreadsheet shows and does not run."""

import math
import re
from collections.abc import Iterable, Sequence

_RUN = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # what a spreadsheet takes for the beginning of a formula
_FORMULA = re.compile(f"'*[{_RUN}]")
_GUARDED = re.compile(f"'+[{_RUN}]")


def cell(value: object) -> str:
    """A value as text: undefined numbers and None are empty, a would-be formula begins with an apostrophe."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """The text of a CSV file: a line of names, and the `cell` of each value of each row."""
    lines = [columns, *(map(cell, row) for row in rows)]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def _quoted(text: str) -> str:
    # The writer of the standard library leaves a lone return unquoted, at which its reader ends the row.
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def text_of(written: str) -> str:
    """The text that `cell` wrote."""
    return written[1:] if _GUARDED.match(written) else written
