"""How much a kernel machine looks at each column of a table: the diagonal of M, added up by column."""

from collections.abc import Sequence

from nfa.errors import NfaError
from nfa.inputs.tables.encoder import TableEncoder
from nfa.machines.network import DeepNetwork, KernelNetwork


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


def importances(network: KernelNetwork | DeepNetwork, encoder: TableEncoder) -> dict[str, float]:
    """Columns and their importances, the largest first, of the network of a machine on encoded rows.

    Of a deep one it is the M of the first layer, which the inputs come into.
    """
    first = network.layers[0] if isinstance(network, DeepNetwork) else network
    sums = by_column(encoder, first.feature_map.weight.detach().double().square().sum(0).tolist())
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def importances_sentence(found: dict[str, float], most: int = 8) -> str:
    """The largest ones, for the reader of a report."""
    shown = ", ".join(f"{name} {value:.3g}" for name, value in list(found.items())[:most])
    more = f", … ({len(found)} columns)" if len(found) > most else ""
    return f"Importances: by column, the diagonal of M, one-hot inputs added up: {shown}{more}"
