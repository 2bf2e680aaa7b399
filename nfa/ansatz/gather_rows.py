"""The rows of a report, one a map: numbers gathered from its pair, or the reason why there are none.

What the numbers are is told by `nfa.ansatz.pair.FeaturePair`, which computes them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.basis_draws import percentile
from nfa.ansatz.best_exponent import beyond_chance
from nfa.ansatz.blockwise import largest_of_groups
from nfa.ansatz.duration import draws_for
from nfa.ansatz.feature_matrices import weight_cosine
from nfa.ansatz.linear_power import Products
from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.precision import Precision, clipped, without
from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.row import OK, TRIVIAL, AnsatzRow
from nfa.ansatz.sensitivity import Sensitivity
from nfa.ansatz.wide_nulls import DRAWS as WIDE_DRAWS
from nfa.layers.maps import LinearMap, SkippedModule

_DRAWS = 4  # of the basis or the best exponent for one of the cosine, which costs more
NO_GRADIENT = "no gradient reaches it: what follows it is zero, or never active"


@dataclass(frozen=True)
class RowGatherer:
    """Gathers rows, and puts what stands behind them into the report.

    Attributes:
        report: of these rows; it has the weights.
        initial: report of the network at initialisation.
        power: exponent α.
        nulls: random rotations of the null, of narrow layers.
        seed: of the nulls.
        halves: find the drifts.
        corrected: C is noisy, as random probes leave it: take the bias off the cosine, its null, the
            alignment and the basis. Else they are the exact numbers of these samples.
    """

    report: AnsatzReport
    initial: AnsatzReport | None
    power: float
    nulls: int
    seed: int
    halves: bool
    corrected: bool

    def row(self, entry: LinearMap, sensitivity: Sensitivity) -> AnsatzRow:
        """The row of a map, given its C in groups of samples."""
        weight = self.report.weights[entry.name]
        reason = unusable(entry, sensitivity, weight)
        if reason:
            shape = (entry.name, entry.kind, entry.in_features, entry.out_features, entry.groups)
            return AnsatzRow(*shape, status=f"skipped: {reason}")
        if sensitivity.is_output:
            kept, columns = _of_raw_outputs(sensitivity, weight, self.power)
        else:
            kept, columns = sensitivity.merged(), self._measured(entry.name, sensitivity, weight)
        status = TRIVIAL if sensitivity.is_output else OK
        self.report._sensitivities[entry.name] = kept
        return AnsatzRow(
            layer=entry.name, kind=entry.kind, in_features=entry.in_features,
            out_features=entry.out_features, groups=entry.groups, status=status,
            **columns, **self._since_initialisation(entry, kept, weight),
        )  # fmt: skip

    def _measured(self, name: str, sensitivity: Sensitivity, weight: Tensor) -> dict[str, float]:
        pair = sensitivity.pair(weight)
        draws = self.report.null_draws[name] = null_draws(pair, self.nulls, self.power)
        null = pair.null_cosines(self.power, draws, self.seed)
        known = self.report.precision[name] = sensitivity.precision(
            pair, self.power, halves=self.halves, corrected=self.corrected,
            null=null if self.corrected and draws else None, seed=self.seed,
        )  # fmt: skip
        return self._columns(pair, null, known)

    def _columns(self, pair: FeaturePair, null: Tensor, known: Precision) -> dict[str, float]:
        draws = len(null)
        cosine, alignment, basis = pair.cosine(self.power), pair.alignment, pair.basis
        chance = float(null.mean()) if draws else math.nan
        if self.corrected:
            biases = (known.cosine_bias, known.alignment_bias, known.null_bias)
            cosine, alignment, chance = map(without, biases, (cosine, alignment, chance))
            basis = without(known.basis_bias, basis)
        alpha, alpha_r = pair.alpha_fit()
        return {
            "power": self.power,
            "alignment": alignment,
            "z": alignment / pair.alignment_std,
            "alpha_fit": alpha,
            "alpha_r": alpha_r,
            "cosine": cosine,
            "null_mean": chance,
            "null_std": float(null.std()) if draws > 1 else math.nan,
            "null_isotropic": pair.null_isotropic(self.power),
            "pearson": pair.pearson(self.power),
            "offdiag": pair.offdiag(self.power),
            "alignment_stderr": known.alignment,
            "drift": known.drift,
            "basis": basis,
            "basis_z": pair.basis / pair.basis_std,
            "basis_stderr": known.basis,
            "alpha_low": known.alpha_low,
            "alpha_high": known.alpha_high,
            "basis_percentile": percentile(pair.basis, pair.basis_draws(_DRAWS * self.nulls, self.seed)),
            "rank_correlation": pair.rank_correlation,
            "uc_nfc": pair.cosine(1.0),
            **self._best(pair, alignment),
            "stderr": known.cosine,
        }

    def _best(self, pair: FeaturePair, alignment: float) -> dict[str, float]:
        """At the best exponent; noise takes the same share of it as of the alignment."""
        best = pair.best_alignment
        null = pair.best_alignments(_DRAWS * self.nulls, self.seed)
        raw = pair.alignment
        corrected = best * alignment / raw if self.corrected and raw else best
        return {"best_alignment": clipped(corrected), "best_z": beyond_chance(best, null)}

    def _since_initialisation(
        self, entry: LinearMap, sensitivity: Sensitivity, weight: Tensor
    ) -> dict[str, float]:
        """The columns that compare with initialisation; arbitrary rows have no change of weight."""
        if self.initial is None or entry.name not in self.initial.weights:
            return {}
        before = self.initial.weights[entry.name].to(weight)
        row = self.initial.row(entry.name)
        changed, chance = math.nan, torch.full((2,), math.nan)
        if not entry.arbitrary_rows:
            change = weight.double() - before.double()
            changed = sensitivity.pair(change).cosine(1.0)
            chance = self._dealt_out(sensitivity, change)
        return {
            "cnfc": changed,
            "cnfc_null": float(chance.mean()),
            "cnfc_null_std": float(chance.std()),
            "init_nfm_cosine": weight_cosine(weight, before),
            "init_cosine": row.cosine if row.power == self.power else math.nan,
            "init_alignment": row.alignment,
        }

    def _dealt_out(self, sensitivity: Sensitivity, change: Tensor) -> Tensor:
        """C-NFC with the units of C dealt out anew, one a draw; NaN where there are no units."""
        draws = draws_for(change.shape[1], self.nulls)
        if sensitivity.basis is not None or draws < 2:
            return torch.full((2,), math.nan)
        C = sensitivity.dense()[0] if sensitivity.factored else sensitivity.matrix
        found = Products.of(change.to(C.device)).permuted(C, draws, self.seed)
        return torch.tensor([one.cosine for one in found], dtype=torch.float64)


def skipped_row(entry: SkippedModule) -> AnsatzRow:
    """Of what is no map: the reason."""
    out, *rest = entry.shape
    return AnsatzRow(entry.name, entry.kind, math.prod(rest), out, status=f"skipped: {entry.reason}")


def null_draws(pair: FeaturePair, nulls: int, power: float) -> int:
    """Draws of the null worth having: a rotation costs r³ and its spread falls as 1/r."""
    if pair.has_wide_null(power):
        return min(nulls, WIDE_DRAWS)
    return draws_for(min(pair.weight.shape[1:]), nulls)


def _of_raw_outputs(
    sensitivity: Sensitivity, weight: Tensor, power: float
) -> tuple[Sensitivity, dict[str, float]]:
    """The last map on raw outputs: C is the identity whatever the weights, and so is every rotation of it."""
    C = sensitivity.matrix
    identity = torch.eye(C.shape[-1]).to(C) * C.diagonal(dim1=-2, dim2=-1).mean()
    sensitivity = Sensitivity({0: identity.expand_as(C)}, [1], sensitivity.basis, is_output=True)
    pair = sensitivity.pair(weight)
    cosine = pair.null_isotropic(power)
    columns = {
        "power": power,
        "cosine": cosine, "null_mean": cosine, "null_std": 0.0, "null_isotropic": cosine,
        "pearson": pair.pearson(power), "offdiag": pair.offdiag(power),
    }  # fmt: skip
    return sensitivity, columns


def unusable(entry: LinearMap, sensitivity: Sensitivity, weight: Tensor) -> str | None:
    """Why there are no numbers, if there are none."""
    if sensitivity.unfollowed and (sensitivity.called or entry.called):
        return f"not all of its use can be followed: {sensitivity.unfollowed}"
    if not sensitivity.called:
        return entry.unseen
    if not sensitivity.reached:
        return "the output does not depend on it"
    sizes = [largest_of_groups(total).amax() for total in sensitivity.sums.values() if total.numel()]
    of_weight, *of_sums = torch.stack([largest_of_groups(weight).amax().to(sizes[0]), *sizes]).tolist()
    if not all(map(math.isfinite, of_sums)):
        return "its gradients are not finite"
    if not math.isfinite(of_weight):
        return "its weight is not finite"
    return "its weight is zero" if of_weight == 0 else None if any(of_sums) else NO_GRADIENT
