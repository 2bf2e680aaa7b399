"""Two reports of one network, layer by layer."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfa.ansatz.row import CHANCE, NAN, AnsatzRow
from nfa.errors import NfaError

if TYPE_CHECKING:
    from nfa.ansatz.report import AnsatzReport

_SIZES = ("kind", "in_features", "out_features", "groups")
ROSE, FELL, WITHIN, UNKNOWN = "rose", "fell", "within errors", "no errors"
OUTCOMES = (ROSE, FELL, WITHIN, UNKNOWN)


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
        kind: of the layer, ``linear``, ``conv2d``, …; a grouped one says so.
        basis: difference of the shares of the eigenbasis.
        basis_stderr: its standard error, likewise.
        alpha_stderr: that of the exponents, from their intervals; infinite where one of these is.
        before: alignment and cosine of the other report.
        after: alignment and cosine of this one.

    Example:
        >>> from nfa.ansatz.difference import LayerDifference
        >>> change = LayerDifference("conv1", 0.3, 0.05, -0.01, 0.02, 0.1, ("within null", "above null"))
        >>> round(change.z, 1), change.outcome, change.cosine_outcome
        (6.0, 'rose', 'within errors')
    """

    layer: str
    alignment: float
    alignment_stderr: float
    cosine: float
    stderr: float
    alpha_fit: float
    verdicts: tuple[str, str]
    kind: str = ""
    basis: float = NAN
    basis_stderr: float = NAN
    alpha_stderr: float = NAN
    before: tuple[float, float] = (NAN, NAN)
    after: tuple[float, float] = (NAN, NAN)

    @property
    def z(self) -> float:
        """Difference of the alignments over its standard error."""
        return _over(self.alignment, self.alignment_stderr)

    @property
    def cosine_z(self) -> float:
        """Difference of the cosines over its standard error."""
        return _over(self.cosine, self.stderr)

    @property
    def outcome(self) -> str:
        """Whether the alignment changed by more than two errors, and which way; one of `OUTCOMES`."""
        return _outcome(self.z)

    @property
    def cosine_outcome(self) -> str:
        """The same of the cosine."""
        return _outcome(self.cosine_z)


def _over(change: float, error: float) -> float:
    if change == 0:
        return 0.0 if math.isfinite(error) else NAN
    return change / error if error > 0 else math.copysign(math.inf, change) if error == 0 else NAN


def _outcome(z: float) -> str:
    if math.isnan(z):
        return UNKNOWN
    return ROSE if z > CHANCE else FELL if z < -CHANCE else WITHIN


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
            f"the reports are of different networks, or of different layers of one: only one of them has "
            f"{apart!r}. Compare two reports of one network, at two times or on two data sets, with the same "
            "--layers and --per-head"
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
    known = [power for power in (before.power, after.power) if not math.isnan(power)]
    if before.measured and after.measured and len(set(known)) > 1:
        raise NfaError(
            f"the reports took the AGOP to different powers, {after.power:g} here and {before.power:g} in "
            "the other: audit with the same power"
        )


def _of_interval(row: AnsatzRow) -> float:
    """Standard error of the exponent: its interval is twice 1.96 of them wide."""
    return (row.alpha_high - row.alpha_low) / (2 * 1.96)


def _difference(before: AnsatzRow, after: AnsatzRow) -> LayerDifference:
    return LayerDifference(
        after.layer,
        alignment=after.alignment - before.alignment,
        alignment_stderr=math.hypot(after.alignment_stderr, before.alignment_stderr),
        cosine=after.cosine - before.cosine,
        stderr=math.hypot(after.stderr, before.stderr),
        alpha_fit=after.alpha_fit - before.alpha_fit,
        verdicts=(before.verdict, after.verdict),
        kind=f"grouped {after.kind}" if after.groups > 1 else after.kind,
        basis=after.basis - before.basis,
        basis_stderr=math.hypot(after.basis_stderr, before.basis_stderr),
        alpha_stderr=math.hypot(_of_interval(after), _of_interval(before)),
        before=(before.alignment, before.cosine),
        after=(after.alignment, after.cosine),
    )
