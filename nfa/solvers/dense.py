"""Cholesky factor of a small matrix in one call, beside it."""

import torch
from torch import Tensor

FEW = 1536  # rows up to which one call is faster than blocks, and the memory no matter


class DenseFactor:
    """Upper Cholesky factor of ``K + shift I``, as `BlockFactor`, which is for large K.

    Args:
        K: (n, n) symmetric; the upper triangle is read.
        dtype: of the factor.
    """

    def __init__(self, K: Tensor, dtype: torch.dtype):
        self._K, self._dtype = K, dtype
        self._U = K.new_empty(0, dtype=dtype)
        self._noise = 4 * torch.finfo(dtype).eps * len(K) ** 0.5

    def decompose(self, shift: float) -> bool:
        """Factorise; False where a pivot is negative, or no larger than rounding."""
        A = self._K.to(self._dtype, copy=True)
        A.diagonal().add_(shift)
        self._U, info = torch.linalg.cholesky_ex(A, upper=True)
        pivots = self._U.diagonal()
        return not int(info) and float(pivots.min()) ** 2 > self._noise * float(A.diagonal().max())

    def solve(self, Y: Tensor) -> Tensor:
        """``(K + shift I)⁻¹ Y``, (n, c) float64."""
        return torch.cholesky_solve(Y.to(self._dtype), self._U, upper=True).double()
