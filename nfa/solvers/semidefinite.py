"""Roots of positive semi-definite matrices that are full of rounding: ``P = R Rᵀ``, and products with R."""

import torch
from torch import Tensor

from nfa.kernels.roots import spectrum
from nfa.solvers.blocked import BlockFactor

_SPECTRAL = 768  # rows up to which the eigenvectors cost little; they leave out what is null
_SHIFTS = 4  # attempts at a Cholesky factor, each with ten times the shift


def times_root(A: Tensor, P: Tensor) -> Tensor:
    """``A R`` (p, r) for A (p, n) and some R with ``R Rᵀ = P`` up to the rounding of its dtype.

    Up to 768 rows R holds the eigenvectors, scaled, largest first, without those that are null; beyond, it is
    the Cholesky factor of P and a shift, in the lower triangle of P and at a twentieth of the cost. The shift
    is one rounding of the largest entry where that suffices, and a thousand at most, where P lacks rank.

    Args:
        A: (p, n) of the dtype of P.
        P: (n, n) symmetric positive semi-definite, float32 or float64; beyond 768 rows the upper triangle is
            read, and the lower one overwritten.

    Raises:
        NfaError: a negative eigenvalue that is no rounding error.
    """
    largest = float(P.diagonal().max())
    if largest > 0 and len(P) > _SPECTRAL:
        factor = BlockFactor(P, P.dtype, overwrite=True)
        for attempt in range(_SHIFTS):
            if factor.decompose(torch.finfo(P.dtype).eps * largest * 10**attempt, noise=0.0):
                return factor.times(A)
        P = P.triu() + P.triu(1).mT
    values, vectors = spectrum(P)
    return A @ (vectors * values.sqrt()).to(A)


def root(P: Tensor) -> Tensor:
    """R (n, r) with ``R Rᵀ = P``, see `times_root`."""
    return times_root(torch.eye(len(P), dtype=P.dtype, device=P.device), P)
