"""Two reports of one network, layer by layer."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfa.ansatz.row import AnsatzRow
from nfa.errors import NfaError

if TYPE_CHECKING:
    from nfa.ansatz.report import AnsatzReport

_SIZES = ("kind", "in_features", "out_features", "groups")


@dataclass(frozen=True)
class LayerDifference:
    """One report less another in one layer; NaN where one of them has no number.

    The standard errors are those of independent samples. Where both reports saw the same samples, what these
    have in common is in both, and the difference is known better than they tell.

    Attributes:
        layer: dotted module name.
        alignment: difference of the alignments.
        alignment_stderr: its standard error, the root of the sum of both squared.
        cosine: difference of the cosines.
        stderr: its standard error, likewise.
        alpha_fit: difference of the fitted exponents.
        verdicts: before and after, of the other report and of this one.
    """

    layer: str
    alignment: float
    alignment_stderr: float
    cosine: float
    stderr: float
    alpha_fit: float
    verdicts: tuple[str, str]


def differences(report: "AnsatzReport", other: "AnsatzReport") -> list[LayerDifference]:
    """What `nfa.AnsatzReport.diff` gives.

    Raises:
        NfaError: the reports are of different networks, or of different powers.
    """
    if not isinstance(other, type(report)):
        raise NfaError(f"a report is compared with a report, got {type(other).__name__}")
    before = {row.layer: row for row in other.rows}
    after = {row.layer: row for row in report.rows}
    shared = [layer for layer in after if layer in before]
    if len(shared) < min(len(before), len(after)) or not shared:
        apart = next((layer for layer in (*after, *before) if layer not in shared), "any layer")
        raise NfaError(
            f"the reports are of different networks: only one of them has {apart!r}. Compare two reports of "
            "one network, at two times or on two data sets"
        )
    for layer in shared:
        _check_alike(before[layer], after[layer])
    both = [layer for layer in shared if before[layer].measured and after[layer].measured]
    return [_difference(before[layer], after[layer]) for layer in both]


def _check_alike(before: AnsatzRow, after: AnsatzRow) -> None:
    for name in _SIZES:
        ours, theirs = getattr(after, name), getattr(before, name)
        if ours != theirs:
            raise NfaError(
                f"the reports are of different networks: {name} of {after.layer} is {ours!r} here and "
                f"{theirs!r} in the other"
            )
    if before.measured and after.measured and before.power != after.power:
        raise NfaError(
            f"the reports took the AGOP to different powers, {after.power:g} here and {before.power:g} in "
            "the other: audit with the same power"
        )


def _difference(before: AnsatzRow, after: AnsatzRow) -> LayerDifference:
    return LayerDifference(
        after.layer,
        alignment=after.alignment - before.alignment,
        alignment_stderr=math.hypot(after.alignment_stderr, before.alignment_stderr),
        cosine=after.cosine - before.cosine,
        stderr=math.hypot(after.stderr, before.stderr),
        alpha_fit=after.alpha_fit - before.alpha_fit,
        verdicts=(before.verdict, after.verdict),
    )
