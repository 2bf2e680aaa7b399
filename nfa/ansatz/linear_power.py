"""Cosine and Pearson correlation of N and G themselves, the exponent 1, by products of the size of C alone.

With ``S = ΔΔᵀ`` and ``w = Δ1`` of any matrix Δ in the place of W, and all sums over groups:

    ⟨ΔᵀΔ, ΔᵀCΔ⟩ = tr SSC,  ‖ΔᵀΔ‖ = ‖S‖,  ‖ΔᵀCΔ‖² = tr SCSC,  sums of entries wᵀw and wᵀCw.

Nothing is decomposed, so that a null of many draws costs as many products. That of C-NFC deals the units out
anew, ``C → PCPᵀ``: were C a multiple of the identity, C-NFC would be 1 whatever was learned, and a rotation
of C says nothing of units. Beyond this null, the change of a unit's weights goes with its sensitivity.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.blockwise import pearson
from nfa.ansatz.forms import ratio


@dataclass(frozen=True)
class Correlations:
    """Of the entries of ``ΔᵀΔ`` and ``ΔᵀCΔ``: without and with their means taken off."""

    cosine: float
    pearson: float


@dataclass(frozen=True)
class Products:
    """What of Δ (groups, out, in) counts: ``S`` (groups, out, out), ``w`` (groups, out), the entries."""

    S: Tensor
    w: Tensor
    count: int

    @classmethod
    def of(cls, delta: Tensor) -> "Products":
        """Those of a matrix, scaled to order one."""
        D = delta.double()
        D = D / D.abs().max().clamp_min(torch.finfo(D.dtype).tiny)
        return cls(D @ D.mT, D.sum(-1), len(D) * D.shape[2] ** 2)

    def with_sensitivity(self, C: Tensor) -> Correlations:
        """The correlations for C (groups, out, out); NaN where one of the matrices is constant."""
        C = C.double() / C.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        SC = self.S @ C
        inner = (self.S * SC).sum()  # tr SSC
        nn, gg = self.S.square().sum(), (SC * SC.mT).sum().clamp_min(0)
        sums = (
            float(self.w.square().sum()),
            float(torch.einsum("gi,gij,gj->", self.w, C, self.w)),
            float(nn),
            float(gg),
            float(inner),
        )
        return Correlations(ratio(inner, (nn * gg).sqrt()), pearson(sums, sums, self.count))

    def permuted(self, C: Tensor, draws: int, seed: int) -> list[Correlations]:
        """The correlations with the units of C dealt out anew within each group, one a draw."""
        rng = torch.Generator().manual_seed(seed)
        groups, units = C.shape[:2]
        found = []
        for _ in range(draws):
            order = torch.rand(groups, units, generator=rng).argsort(-1).to(C.device)
            rows = C.gather(1, order[:, :, None].expand_as(C))
            found.append(self.with_sensitivity(rows.gather(2, order[:, None, :].expand_as(C))))
        return found


def cosine_of_change(change: Tensor, root: Tensor, C: Tensor) -> float:
    """Cosine of ``ΔᵀΔ`` with ``RᵀCR`` for Δ and R (groups, out, in) of one shape; NaN where one is zero."""
    scaled = [
        M.double() / M.abs().max().clamp_min(torch.finfo(torch.float64).tiny) for M in (change, root, C)
    ]
    D, R, C = scaled
    X = R @ D.mT
    inner = ((X @ X.mT) * C).sum()
    SC = R @ R.mT @ C
    return ratio(inner, (D @ D.mT).norm() * (SC * SC.mT).sum().clamp_min(0).sqrt())


def pearson_of_weights(W: Tensor, other: Tensor) -> float:
    """Pearson correlation of the entries of ``WᵀW`` and ``VᵀV``, W and V (groups, out, in) of one shape."""
    W, V = (M.double() / M.abs().max().clamp_min(torch.finfo(torch.float64).tiny) for M in (W, other))
    sums = (
        float(W.sum(-1).square().sum()),
        float(V.sum(-1).square().sum()),
        float((W @ W.mT).square().sum()),
        float((V @ V.mT).square().sum()),
        float((W @ V.mT).square().sum()),
    )
    return pearson(sums, sums, len(W) * W.shape[2] ** 2)
