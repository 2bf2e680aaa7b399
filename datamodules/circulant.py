"""Circulant blocks: the form of the features of modular arithmetic."""

import math

import torch
from torch import Tensor

_NULL = 1e-12  # an eigenvalue, beside those of about 1


def circulant_deviation(A: Tensor, turn: int) -> float:
    """``Σ_j Var_l(B_lj) / ‖A‖²`` for the rows l of A (p, p), turned: ``B_l = A_l`` moved on by ``turn · l``.

    0 where all rows of B are equal; 1 where they are 0 in the mean. The variance is a sum of squares, as in
    arXiv 2407.20199. NaN where A is 0.
    """
    norm = float(A.square().sum())
    if not norm:
        return math.nan
    B = torch.stack([row.roll(turn * place) for place, row in enumerate(A)])
    return float((B - B.mean(0)).square().sum()) / norm


def in_powers(p: int) -> Tensor:
    """1, …, p - 1 as powers of the least number that has all of them as powers, modulo a prime p: (p - 1,).

    Products become sums of the places in this order.
    """
    for base in range(1, p):
        powers = [1]
        while (following := powers[-1] * base % p) != 1:
            powers.append(following)
        if len(powers) == p - 1:
            return torch.tensor(powers)
    raise AssertionError(f"{p} is no prime")


def circulant_metric(p: int, turn: int, rng: torch.Generator) -> Tensor:
    """``M^¼`` (2p, 2p) float64 for ``M = [[P, C], [Cᵀ, P]]`` with ``P = I - 11ᵀ/p`` and a random circulant C.

    C is normal in one row, of mean 0 and of spectral norm 1, which keeps M semi-definite; its rows are what
    `circulant_deviation` with this ``turn`` finds equal.
    """
    row = torch.randn(p, generator=rng, dtype=torch.float64)
    row -= row.mean()
    block = torch.stack([row.roll(-turn * place) for place in range(p)])
    block /= torch.linalg.matrix_norm(block, 2)
    P = torch.eye(p, dtype=torch.float64) - 1 / p
    M = torch.cat([torch.cat([P, block.mT], 1), torch.cat([block, P], 1)])
    values, vectors = torch.linalg.eigh(M)
    values = torch.where(values < _NULL, 0.0, values)  # what is left of 0 has a fourth root that is not small
    return (vectors * values**0.25) @ vectors.mT


def fourier_basis(n: int) -> Tensor:
    """Orthonormal waves (n, n) float64, one a row: the constant, then cosine and sine of each frequency."""
    place = torch.arange(n, dtype=torch.float64)
    rows = [torch.ones(n, dtype=torch.float64)]
    for frequency in range(1, n // 2 + 1):
        angle = 2 * math.pi * frequency * place / n
        rows += [angle.cos()] if 2 * frequency == n else [angle.cos(), angle.sin()]
    return torch.stack([row / row.norm() for row in rows])
