"""One measurement as flat numbers: those of every layer, or the few that are followed over time."""

import math
import statistics
from collections.abc import Iterable, Sequence

from nfa.ansatz.row import AnsatzRow, above_null
from nfa.ansatz.words import finite
from nfa.layers.groups import layer_groups

SPREAD = ("alignment", "cosine", "alpha_fit")  # over layers of any size alike: z is not
MEDIANS = ("null_mean", "cnfc", "init_nfm_cosine")
STATISTICS = (
    "alignment", "z", "alpha_fit", "alpha_r",
    "cosine", "null_mean", "pearson", "offdiag", "cnfc", "init_nfm_cosine",
)  # fmt: skip
ALL_STATISTICS = (
    *STATISTICS, "null_std", "null_isotropic", "alignment_stderr", "drift", "basis", "basis_z", "init_cosine",
    "init_alignment", "stderr", "alpha_low", "alpha_high", "best_alignment", "best_z", "basis_stderr",
    "basis_percentile", "rank_correlation", "uc_nfc",
    "cnfc_null", "cnfc_null_std",
    "fact", "fact_cosine", "fact_residual", "fact_snapshot", "fact_snapshot_residual",
)  # fmt: skip
_TAKEN = {"all", "layers", "median", "minimum", "maximum"}


def metrics_of(rows: Iterable[AnsatzRow], statistics: Sequence[str] = STATISTICS) -> dict[str, float]:
    """Flat metrics ``nfa/<statistic>/<layer>`` of one measurement, undefined ones left out."""
    return {
        f"nfa/{name}/{row.layer}": getattr(row, name)
        for row in rows
        if row.measured
        for name in statistics
        if getattr(row, name) == getattr(row, name)
    }


def summary_metrics(rows: Sequence[AnsatzRow]) -> dict[str, float]:
    """The few curves of a network, by which architectures are compared; undefined ones are left out.

    Args:
        rows: one a layer, of one measurement, input side first.

    Returns:
        Of all measured layers ``nfa/<statistic>/median``, of `SPREAD` ``minimum`` and ``maximum`` too, and
        ``nfa/above_chance/all``, the share of layers whose alignment is above chance. Of a group of layers
        (`layer_groups`) ``nfa/alignment/<group> median``, ``… minimum``, ``… maximum`` and
        ``nfa/above_chance/<group>``; of a layer that is a group by itself ``nfa/alignment/<group>`` alone. A
        network of one layer has no groups.
    """
    measured = [row for row in rows if row.measured]
    found: dict[str, float] = {}
    for name in SPREAD:
        found |= _spread(f"nfa/{name}/", [getattr(row, name) for row in measured])
    for name in MEDIANS:
        if values := finite(getattr(row, name) for row in measured):
            found[f"nfa/{name}/median"] = statistics.median(values)
    found |= _share("all", measured)
    if len(measured) > 1:
        for group, members in _by_group(rows).items():
            found |= _of_group(group, members)
    return found


def _by_group(rows: Sequence[AnsatzRow]) -> dict[str, list[AnsatzRow]]:
    """Measured layers by group; all layers tell the groups, so that these stay the same over time."""
    group_of = layer_groups([row.layer for row in rows])
    groups: dict[str, list[AnsatzRow]] = {}
    for row in rows:
        if row.measured:
            name = group_of[row.layer]
            groups.setdefault(f"{name}_" if name in _TAKEN else name, []).append(row)
    return groups


def _of_group(group: str, rows: Sequence[AnsatzRow]) -> dict[str, float]:
    values = [row.alignment for row in rows]
    if len(rows) == 1:
        return {f"nfa/alignment/{group}": values[0]} if math.isfinite(values[0]) else {}
    return _spread(f"nfa/alignment/{group} ", values) | _share(group, rows)


def _spread(start: str, values: Sequence[float]) -> dict[str, float]:
    defined = finite(values)
    if not defined:
        return {}
    median = {f"{start}median": statistics.median(defined)}
    if len(values) == 1:
        return median
    return {**median, f"{start}minimum": min(defined), f"{start}maximum": max(defined)}


def _share(group: str, rows: Sequence[AnsatzRow]) -> dict[str, float]:
    above, told = above_null(rows)
    return {f"nfa/above_chance/{group}": above / told} if told else {}
