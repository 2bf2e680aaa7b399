"""Layers in which verdict and cosine disagree, and why: the cosine hangs on few directions of the weight."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nfa.ansatz.row import CHANCE, AnsatzRow

if TYPE_CHECKING:
    from nfa.ansatz.report import AnsatzReport


def contradictions(rows: Sequence[AnsatzRow]) -> list[AnsatzRow]:
    """Rows above null whose cosine is below its null by more than chance, or the reverse; worst first."""
    opposed = [
        row
        for row in rows
        if (row.verdict == "above null" and row.decided_by == "alignment" and _deviations(row) < -CHANCE)
        or (row.verdict == "below null" and _deviations(row) > CHANCE)
    ]
    return sorted(opposed, key=lambda row: -abs(_deviations(row)))


def contradiction_sentence(report: "AnsatzReport") -> str | None:
    """What to tell the reader of a table in which verdict and cosine disagree; None where they do not."""
    opposed = contradictions(report.rows)
    if not opposed:
        return None
    worst, count = opposed[0], len(opposed)
    where = f"in {worst.layer}" if count == 1 else f"in {count} layers, most in {worst.layer}"
    deviations = _deviations(worst)
    side = "above" if deviations > 0 else "below"
    sentence = (
        f"Verdict and cosine disagree {where}: z is {worst.z:+.1f}, the cosine {abs(deviations):.1f} "
        f"standard deviations {side} its null."
    )
    if worst.layer not in report.weights:  # of a file, which keeps no matrices
        return sentence
    share, sensitivity = report.pair(worst.layer).strongest_direction()
    return (
        f"{sentence} {100 * share:.0f} % of ‖N‖² lies in the strongest direction "
        f"of W, to which the outputs are {sensitivity:.2g} times as sensitive as to the average one: the "
        "cosine hangs on that direction, the alignment on all of them."
    )


def _deviations(row: AnsatzRow) -> float:
    """The cosine from its null, in standard deviations of that and of its own error."""
    error = row.stderr if math.isfinite(row.stderr) else 0.0
    scale = math.hypot(row.null_std, error)
    return (row.cosine - row.null_mean) / scale if scale > 0 else math.nan
