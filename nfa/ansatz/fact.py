"""FACT, what a stationary point of a loss with weight decay makes of the features (arXiv 2507.05644).

Where ``∇L + λ W = 0`` for the loss L of the data, ``WᵀW = −Wᵀ∇L / λ``. The right side is FACT; nothing but
the gradient of the weight is needed for it. At random weights it is unrelated to the left one, at a
stationary point equal to it by construction: it measures how far training has converged, and the residual
stands beside it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FactNumbers:
    """How far a layer is at a stationary point.

    Attributes:
        pearson: Pearson correlation of the entries of ``WᵀW`` and FACT, as published.
        cosine: their cosine.
        residual: ``‖∇L + λ W‖ / (λ ‖W‖)``: 0 at a stationary point.
    """

    pearson: float
    cosine: float
    residual: float


def fact_numbers(weight: Tensor, gradient: Tensor, decay: float) -> FactNumbers:
    """Compare ``WᵀW`` with ``−Wᵀ∇L / λ``, in the smaller dimension of the layer.

    With ``E = −∇L/λ``: ``⟨WᵀW, WᵀE⟩ = ⟨WWᵀ, EWᵀ⟩`` and ``‖WᵀE‖² = ⟨WWᵀ, EEᵀ⟩``.

    Args:
        weight: (groups, out, in).
        gradient: of the loss of the data alone, without decay, of the same shape.
        decay: λ > 0, of ``L + λ/2 ‖W‖²``.

    Returns:
        NaN where one of both is zero.
    """
    W, E = weight.double(), gradient.double() / -decay
    norm = float(W.norm())
    residual = float((E - W).norm()) / norm if norm else math.nan
    groups, out, width = W.shape
    if out < width:
        S, cross = W @ W.mT, E @ W.mT
        sizes = (S * S).sum(), (S * cross).sum(), (S * (E @ E.mT)).sum()
        of_weight = W.sum(-1)
        totals = of_weight.square().sum(), (of_weight * E.sum(-1)).sum()
    else:
        N, F = W.mT @ W, W.mT @ E
        sizes = (N * N).sum(), (N * F).sum(), (F * F).sum()
        totals = N.sum(), F.sum()
    nn, nf, ff = sizes
    count = groups * width**2
    centred = (nn - totals[0] ** 2 / count, nf - totals[0] * totals[1] / count, ff - totals[1] ** 2 / count)
    return FactNumbers(_correlation(*centred), _correlation(nn, nf, ff), residual)


def _correlation(nn: Tensor, nf: Tensor, ff: Tensor) -> float:
    size = torch.sqrt(nn.clamp_min(0) * ff.clamp_min(0))
    return float((nf / size).clamp(-1, 1)) if float(size) > 0 else math.nan
