"""Which columns of a table are inputs: what is asked for, and what no network should see."""

from collections.abc import Sequence

import numpy as np

from datamodules.tables import Table, is_number, missing
from nfa.errors import NfaError

IDENTIFIER_SHARE = 0.9  # share of different values above which a column identifies its rows
_IDENTIFIERS = ("id", "index", "row", "unnamed 0", "unnamed: 0", "__index_level_0__")  # for whole numbers
_STRAY = 0.9  # share of numbers above which the other values of a text column are taken for mistakes


def choose_inputs(
    table: Table, target: str, drop: Sequence[str | int], categorical: Sequence[str | int]
) -> tuple[Table, dict[str, str]]:
    """Leave out the target, what is to be dropped, and row numbers; make text of what is categorical.

    Row numbers tell the class where rows were sorted by class once: whole numbers, nearly all different, in
    a column called like them (id, index, row, or as pandas writes its index).

    Returns:
        The input columns, and why others but the target were left out.

    Raises:
        NfaError: there is no such column, or one holds infinity, or numbers with a few texts between.
    """
    asked = [table.find(column, "data.drop") for column in drop]
    if target in asked:
        raise NfaError(f"data.drop holds the target {target!r}: leave it out of one of them")
    texts = [name for name in (table.find(c, "data.categorical") for c in categorical) if name != target]
    dropped = dict.fromkeys(asked, "data.drop")
    for name, values in table.columns.items():
        if name != target and name not in dropped and name not in texts and _identifies(name, values):
            dropped[name] = "identifier (row numbers)"
    inputs = table.without([target, *dropped])
    for name, values in inputs.columns.items():
        if name not in texts:
            _check(name, values, table.source)
    return inputs.with_text(name for name in texts if name not in dropped), dropped


def _identifies(name: str, values: np.ndarray) -> bool:
    if name.lower() not in _IDENTIFIERS or not is_number(values):
        return False
    if not np.isfinite(values).all() or (values % 1 != 0).any():
        return False
    return len(np.unique(values)) >= IDENTIFIER_SHARE * len(values)


def _check(name: str, values: np.ndarray, source: str) -> None:
    if is_number(values):
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise NfaError(
                f"column {name!r} of {source} has {len(infinite)} infinite values, the first in row "
                f"{infinite[0] + 1}: repair them, or add it to data.drop"
            )
        return
    known = np.flatnonzero(~missing(values))
    stray = [i for i in known if not is_numeral(values[i])]
    if 0 < len(stray) <= (1 - _STRAY) * len(known):
        raise NfaError(
            f"column {name!r} of {source} holds numbers but for {len(stray)} of {len(known)} values, "
            f"the first is {values[stray[0]]!r} in row {stray[0] + 1}: repair them, or add it to "
            "data.categorical or data.drop"
        )


def is_numeral(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
