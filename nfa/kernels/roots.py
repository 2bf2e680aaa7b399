"""Spectra of positive semi-definite matrices that are full of rounding, and roots of their powers."""

import torch
from torch import Tensor

from nfa.errors import NfaError

NOT_ROUNDING = 0.1  # a negative eigenvalue this large beside the largest is no rounding error


def power_root(root: Tensor, power: float) -> Tensor:
    """B with ``B Bᵀ = (F Fᵀ)^power`` for F (d, k), the root of a matrix of any size d."""
    if power == 1:
        return root
    values, vectors = root_spectrum(root)
    return (vectors * values ** (power / 2)).to(root.dtype)


def root_spectrum(root: Tensor) -> tuple[Tensor, Tensor]:
    """`spectrum` of ``F Fᵀ`` for F (d, k), from the smaller side of F."""
    F = root.double()
    if F.shape[1] >= F.shape[0]:
        return spectrum(F @ F.mT)
    Q, R = torch.linalg.qr(F)
    values, vectors = spectrum(R @ R.mT)
    return values, Q @ vectors


def spectrum(G: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (r,) and vectors (k, r) in float64 beyond rounding, largest first; at least one of them.

    Raises:
        NfaError: a negative eigenvalue that is no rounding error.
    """
    values, vectors = torch.linalg.eigh(G.double())
    low, high = float(values[0]), float(values[-1])
    if low < -NOT_ROUNDING * max(high, 0.0):
        raise NfaError(
            "a metric or an AGOP must be positive semi-definite up to rounding, got eigenvalues from "
            f"{low:.2g} to {high:.2g}"
        )
    noise = max(-2 * low, len(G) * torch.finfo(torch.float64).eps * high)
    rank = max(int((values > noise).sum()), 1)
    return values[-rank:].flip(0).clamp_min(0), vectors[:, -rank:].flip(1)
