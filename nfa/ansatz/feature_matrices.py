"""Numbers of feature matrices alone, with no sensitivity beside them."""

import torch
from torch import Tensor

from nfa.ansatz.blockwise import NAN, blocks, columns, gram, or_one, smaller_gram, total
from nfa.ansatz.forms import ratio


def weight_cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of ``AᵀA`` and ``BᵀB`` for weights A (g, o, i) and B (g, p, i), in the smaller dimension."""
    (A, a), (B, b) = blocks(first, "weight"), blocks(second, "weight")
    if A.shape[2] < A.shape[1]:
        N, M = gram(A.mT, a), gram(B.mT, b)
        return ratio((N * M).sum(), N.norm() * M.norm())
    cross = total(x @ y.mT for x, y in zip(columns(A, a), columns(B, b), strict=True))
    return ratio(cross.square().sum(), smaller_gram(A, a).norm() * smaller_gram(B, b).norm())


def effective_rank(spectrum: Tensor) -> float:
    """Exponential of the entropy of a non-negative spectrum scaled to sum one (Roy and Vetterli 2007)."""
    p = spectrum.double().clamp_min(0)
    p = p / or_one(float(p.amax()))
    if not float(p.sum()) > 0:
        return NAN
    p = p / p.sum()
    return float(torch.special.entr(p).sum().exp())
