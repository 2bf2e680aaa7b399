"""Which columns of a table are inputs: what is asked for, and what no network should see."""

from collections.abc import Sequence

import numpy as np

from nfa.errors import NfaError
from nfa.inputs.tables import IDENTIFIER_SHARE, PLAIN, Notation, Table, is_number, missing

_IDENTIFIERS = ("id", "index", "row", "#", "unnamed 0", "unnamed: 0", "__index_level_0__")  # whole numbers
_STRAY = 0.9  # share of numbers above which the other values of a text column are taken for mistakes
_MARKS = 2  # different texts that may be somebody's gaps, among more numbers than classes have
MOST_CLASSES = 20  # different whole numbers up to which they are taken as classes


def choose_inputs(
    table: Table, target: str, drop: Sequence[str | int], categorical: Sequence[str | int]
) -> tuple[Table, dict[str, str]]:
    """Leave out the target, what is to be dropped, and row numbers; make text of what is categorical.

    Row numbers tell the class where rows were sorted by class once: whole numbers, nearly all different, in
    a column called like them (id, index, row, or as pandas writes its index).

    Returns:
        The input columns, and why others but the target were left out.

    Raises:
        NfaError: there is no such column, or one holds infinity, or numbers with a few texts between, or
            numbers that are written otherwise.
    """
    asked = [table.find(column, "data.drop") for column in drop]
    if target in asked:
        raise NfaError(f"data.drop holds the target {target!r}: leave it out of one of them")
    texts = [name for name in (table.find(c, "data.categorical") for c in categorical) if name != target]
    dropped = dict.fromkeys(asked, "data.drop")
    for name, values in table.columns.items():
        if name != target and name not in dropped and name not in texts:
            reason = _identifies(name, values) or table.about.get(name, PLAIN).unused
            dropped |= {name: reason} if reason else {}
    inputs = table.without([target, *dropped]).with_gaps()
    for name in inputs.columns:
        if name not in texts:
            _check(name, inputs)
    return inputs.with_text(name for name in texts if name not in dropped), dropped


def _identifies(name: str, values: np.ndarray) -> str:
    """Why a column tells rows apart and no more; empty if it does not."""
    if name.lower() not in _IDENTIFIERS or not is_number(values):
        return ""
    if not np.isfinite(values).all() or (values % 1 != 0).any():
        return ""
    return "identifier (row numbers)" if len(np.unique(values)) >= IDENTIFIER_SHARE * len(values) else ""


def _check(name: str, table: Table) -> None:
    values = table.columns[name]
    doubt = table.about.get(name, PLAIN).doubt
    if doubt:
        raise NfaError(f"{doubt}, or add it to data.categorical or data.drop")
    if is_number(values):
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise NfaError(
                f"column {name!r} of {table.source} has {len(infinite)} infinite values, the first in row "
                f"{infinite[0] + 1}: repair them, or add it to data.drop"
            )
        return
    stray = stray_texts(values, table.how)
    if len(stray):
        raise NfaError(
            f"column {name!r} of {table.source} holds numbers but for {len(stray)} of "
            f"{int((~missing(values)).sum())} values, the first is {values[stray[0]]!r} in row "
            f"{stray[0] + 1}: repair them, name them in data.missing if they are gaps, or add it to "
            "data.categorical or data.drop"
        )


def stray_texts(values: np.ndarray, how: Notation | None) -> np.ndarray:
    """Rows of the texts in a column that would hold numbers without them; none if it holds texts.

    They are few, or all alike among many different numbers, as somebody's own mark for a gap is.
    """
    how = how or Notation()
    known = np.flatnonzero(~missing(values))
    stray = np.array([i for i in known if how.read(values[i]) is None], dtype=np.int64)
    if len(stray) <= (1 - _STRAY) * len(known):
        return stray
    marks = len(set(values[stray])) <= _MARKS and 2 * len(stray) < len(known)
    numbers = set(values[known]) - set(values[stray])
    return stray if marks and len(numbers) > MOST_CLASSES else stray[:0]
