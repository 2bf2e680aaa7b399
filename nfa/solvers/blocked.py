"""Blocked Cholesky factor that leaves the upper triangle of K as it is.

For each block of columns the factor holds a diagonal block, in float64, and the panel below it. Panels are
filled from the upper triangle of K and stored elsewhere, or over the lower blocks of K itself: either way
K can still be read, for residuals and for another attempt with another shift.
"""

import torch
from torch import Tensor

from nfa.kernels.spans import spans

_BLOCK = 256


class BlockFactor:
    """Lower Cholesky factor of ``K + shift I``.

    Args:
        K: (n, n) symmetric; the upper triangle is read.
        dtype: of the panels.
        overwrite: keep the panels in the strictly lower blocks of K, for a dtype that is that of K.
    """

    def __init__(self, K: Tensor, dtype: torch.dtype, overwrite: bool):
        self._K, self._ranges = K, list(spans(len(K), _BLOCK))
        self._diagonal: list[Tensor] = []
        self._panels = [
            K[s.stop :, s] if overwrite else K.new_empty(len(K) - s.stop, s.stop - s.start, dtype=dtype)
            for s in self._ranges
        ]
        self._noise = 4 * torch.finfo(dtype).eps * len(K) ** 0.5

    def decompose(self, shift: float, noise: float | None = None) -> bool:
        """Factorise; False where a squared pivot is no larger than ``noise``, beside the largest diagonal.

        The noise that is meant by None is that of rounding.
        """
        K, noise = self._K, self._noise if noise is None else noise
        self._diagonal = [K[s, s].to(torch.float64, copy=True) for s in self._ranges]
        for s, block, panel in zip(self._ranges, self._diagonal, self._panels, strict=True):
            block.diagonal().add_(shift)
            panel.copy_(K[s, s.stop :].mT)
        largest = max(float(block.diagonal().max()) for block in self._diagonal)
        for k, (s, panel) in enumerate(zip(self._ranges, self._panels, strict=True)):
            L, info = torch.linalg.cholesky_ex(self._upper_copied(self._diagonal[k]))
            if int(info) or not float(L.diagonal().min()) ** 2 > noise * largest:
                return False
            self._diagonal[k] = L
            if len(panel):
                inverse = torch.linalg.solve_triangular(L, torch.eye(len(L)).to(L), upper=False)
                panel.copy_(
                    panel @ inverse.mT.to(panel)
                )  # faster than solving, and of a small block in float64
                self._update(k, s.stop)
        return True

    def solve(self, Y: Tensor) -> Tensor:
        """``(K + shift I)⁻¹ Y``, (n, c) float64."""
        A = Y.clone()
        for s, L, panel in zip(self._ranges, self._diagonal, self._panels, strict=True):
            A[s] = torch.linalg.solve_triangular(L, A[s], upper=False)
            A[s.stop :] -= panel @ A[s].to(panel)
        for s, L, panel in reversed(list(zip(self._ranges, self._diagonal, self._panels, strict=True))):
            A[s] -= panel.mT @ A[s.stop :].to(panel)
            A[s] = torch.linalg.solve_triangular(L.mT, A[s], upper=True)
        return A

    def times(self, A: Tensor) -> Tensor:
        """``A L``, (p, n) for the lower factor L and A (p, n), in the dtype of A."""
        product = torch.empty_like(A)
        for s, L, panel in zip(self._ranges, self._diagonal, self._panels, strict=True):
            torch.mm(A[:, s], L.to(A), out=product[:, s])
            product[:, s].addmm_(A[:, s.stop :], panel.to(A))
        return product

    def _update(self, k: int, start: int) -> None:
        """Take panel k, which begins in row ``start``, out of all later blocks."""
        panel = self._panels[k]
        for j in range(k + 1, len(self._ranges)):
            s = self._ranges[j]
            own, below = panel[s.start - start : s.stop - start], panel[s.stop - start :]
            self._diagonal[j] -= own @ own.mT
            self._panels[j].addmm_(below, own.mT, alpha=-1)

    @staticmethod
    def _upper_copied(block: Tensor) -> Tensor:
        """The symmetric block of its upper triangle."""
        return block.triu() + block.triu(1).mT


def symmetric_product(K: Tensor, V: Tensor) -> Tensor:
    """``K V`` in float64 from the upper blocks of K (n, n), for V (n, c) float64."""
    product = torch.zeros_like(V)
    for s in spans(len(K), _BLOCK):
        block = K[s, s].double()
        product[s] += (block.triu() + block.triu(1).mT) @ V[s]
        for t in spans(len(K) - s.stop, 4 * _BLOCK):
            right = slice(s.stop + t.start, s.stop + t.stop)
            tile = K[s, right].double()
            product[s] += tile @ V[right]
            product[right] += tile.mT @ V[s]
    return product
