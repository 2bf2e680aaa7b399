"""What is known of each input of a network, added up by the column of the table that it was made of."""

from collections.abc import Sequence

from nfa.errors import NfaError
from nfa.inputs.tables.encoder import TableEncoder


def by_column(encoder: TableEncoder, values: Sequence[float]) -> dict[str, float]:
    """Sums over the inputs of each column, in the order of the columns; columns left out have 0, at the end.

    Args:
        encoder: that made the inputs.
        values: one for each of them.

    Raises:
        NfaError: there are more or fewer values than inputs.
    """
    if len(values) != len(encoder.feature_names):
        raise NfaError(f"expected {len(encoder.feature_names)} values, one an input, got {len(values)}")
    sums, start = {}, 0
    for column in encoder.columns:
        end = start + len(column.feature_names)
        sums[column.name] = float(sum(values[start:end]))
        start = end
    return sums | dict.fromkeys(encoder.dropped, 0.0)
