"""Rows as a table of pandas, which is imported when it is asked for."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nfa.ansatz.row import AUDIT_COLUMNS, TRAIN_COLUMNS, AnsatzRow
from nfa.errors import NfaError

if TYPE_CHECKING:
    import pandas


def frame_of(rows: Sequence[AnsatzRow]) -> "pandas.DataFrame":
    """The columns of a CSV file, with the verdict; the epoch where there is any.

    Raises:
        NfaError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise NfaError("to_pandas needs pandas: pip install pandas") from None
    columns = TRAIN_COLUMNS if any(math.isfinite(row.epoch) for row in rows) else AUDIT_COLUMNS
    names = [*columns, "verdict"]
    return pandas.DataFrame({name: [getattr(row, name) for row in rows] for name in names})
