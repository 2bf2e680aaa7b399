"""A DataFrame as a table: its columns have their types already."""

from datetime import date, time, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.errors import NfaError
from nfa.inputs.tables.dates import DAYS, days
from nfa.inputs.tables.table import PLAIN, About, Table, as_text, objects

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SOURCE = "the DataFrame"


def is_frame(value: Any) -> bool:
    """Whether something is a DataFrame of pandas, without importing that."""
    return type(value).__module__.split(".")[0] == "pandas" and hasattr(value, "columns")


def table_of_frame(frame: "DataFrame") -> Table:
    """The columns of a DataFrame as numbers or texts.

    Numbers stay numbers, dates and times become days, and bools, categories and all else become texts; a
    column of objects is numbers or dates if all its values are. Missing values are gaps.

    Raises:
        NfaError: two columns of one name, or complex numbers.
    """
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise NfaError(
            f"expected columns of different names in {SOURCE}, got two called {twice!r}: rename one"
        )
    found = {name: _column(frame.iloc[:, place], name) for place, name in enumerate(names)}
    columns = {name: values for name, (values, _) in found.items()}
    about = {name: said for name, (_, said) in found.items() if said}
    return Table(columns, SOURCE, about)


def _column(series: "Series", name: str) -> tuple[np.ndarray, About]:
    from pandas.api import types

    kind = series.dtype
    if types.is_complex_dtype(kind):
        raise NfaError(f"column {name!r} of {SOURCE} holds complex numbers: take their parts apart")
    if types.is_numeric_dtype(kind) and not types.is_bool_dtype(kind):
        return series.to_numpy(dtype=np.float64, na_value=np.nan), PLAIN
    gaps = series.isna().to_numpy()
    cells = [None if gap else value for gap, value in zip(gaps, series.tolist(), strict=True)]
    if not types.is_bool_dtype(kind) and not hasattr(kind, "categories"):
        known = [cell for cell in cells if cell is not None]
        if known and all(_is_number(cell) for cell in known):
            return np.array([np.nan if cell is None else float(cell) for cell in cells]), PLAIN
        if known and all(_is_date(cell) for cell in known):
            values = np.array([np.nan if cell is None else days(cell) for cell in cells])
            return values, About(f"dates, as {DAYS}")
    return objects(None if v is None else as_text(v) if _is_number(v) else str(v) for v in cells), PLAIN


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_date(value: Any) -> bool:
    return isinstance(value, date | time | timedelta)
