"""Functions φ of an inner product, each with what is learned from the predictors it makes.

``f_c(x) = Σ_j a_jc φ(xᵀz_j)`` depends on its centers by way of few sums of them alone, of which everything
here is made: no matrix of all pairs is needed, and what is large in the coefficients and cancels does so
once.
A new one is a class with the methods here, and its name in `FUNCTIONS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from nfa.kernels.spans import spans
from nfa.machines.kernel_agop import KernelAgop

CLASS_NUMBERS = 2**23  # of a class's centers, weighed, that are held for some classes at a time


class InnerFunction(ABC):
    """φ, and sums over predictors ``Σ_j a_jc φ(xᵀz_j)`` of centers Z (n, k) and coefficients a (n, c)."""

    @abstractmethod
    def value(self, s: Tensor) -> Tensor:
        """φ(s) in the shape of s."""

    @abstractmethod
    def agop(self, Z: Tensor, a: Tensor, U: Tensor, share: Tensor, centering: str) -> KernelAgop:
        """``Σ_i share_i Σ_c ∂f_c(u_i) ∂f_c(u_i)ᵀ`` over points U (m, k) with shares (m,) that add up to 1.

        ``centering`` takes off the mean gradient of each ``output``, or the one mean of all, ``pooled``.
        """

    @abstractmethod
    def fact(self, Z: Tensor, a: Tensor) -> Tensor:
        """``Σ_ij (a_i · a_j) φ'(z_iᵀz_j) z_i z_jᵀ`` (k, k), semi-definite."""


class Linear(InnerFunction):
    """``φ(s) = s``: the gradient of f_c is ``w_c = Zᵀ a_c`` everywhere."""

    def value(self, s: Tensor) -> Tensor:
        """The product itself."""
        return s

    def agop(self, Z: Tensor, a: Tensor, U: Tensor, share: Tensor, centering: str) -> KernelAgop:
        """Of the w_c."""
        w = Z.mT @ a
        if centering != "none":
            w = w - (w if centering == "output" else w.mean(1, keepdim=True))
        return KernelAgop("sums", factor=w)

    def fact(self, Z: Tensor, a: Tensor) -> Tensor:
        """The same without centering."""
        w = Z.mT @ a
        return w @ w.mT


class Quadratic(InnerFunction):
    """``φ(s) = s²``: ``f_c(x) = xᵀ B_c x`` with ``B_c = Σ_j a_jc z_j z_jᵀ``; its gradient is 2 B_c x."""

    def value(self, s: Tensor) -> Tensor:
        """The square."""
        return s.square()

    def agop(self, Z: Tensor, a: Tensor, U: Tensor, share: Tensor, centering: str) -> KernelAgop:
        """``4 Σ_c B_c S B_c`` for the second moment S of the points, or their covariance."""
        mean, basis = share @ U, _basis(Z)
        S = (U * share[:, None]).mT @ U
        if centering == "output":
            S = S - mean[:, None] * mean
        if basis is not None:
            Z, S, mean = Z @ basis, basis.mT @ S @ basis, mean @ basis
        G, total = torch.zeros_like(S), torch.zeros_like(S)
        for B in _squares(Z, a):
            G += 4 * _sum_of_products(B @ S, B)
            total += B.sum(0)
        if centering == "pooled":
            common = 2 * total @ mean
            G -= common[:, None] * common / a.shape[1]
        return KernelAgop("sums", matrix=_widened(G, basis))

    def fact(self, Z: Tensor, a: Tensor) -> Tensor:
        """``2 Σ_c B_c²``."""
        basis = _basis(Z)
        Z = Z if basis is None else Z @ basis
        G = Z.new_zeros(Z.shape[1], Z.shape[1])
        for B in _squares(Z, a):
            G += 2 * _sum_of_products(B, B)
        return _widened(G, basis)


def _basis(Z: Tensor) -> Tensor | None:
    """Orthonormal columns (k, n) that span fewer centers than coordinates; None where they are no fewer."""
    return torch.linalg.qr(Z.mT)[0] if len(Z) < Z.shape[1] else None


def _widened(G: Tensor, basis: Tensor | None) -> Tensor:
    """G in coordinates of a basis, symmetric up to rounding, as (k, k)."""
    G = (G + G.mT) / 2
    return G if basis is None else basis @ G @ basis.mT


def _squares(Z: Tensor, a: Tensor) -> Iterator[Tensor]:
    """``B_c = Σ_j a_jc z_j z_jᵀ`` (·, k, k) of some classes at a time."""
    n, k = Z.shape
    for own in spans(a.shape[1], max(CLASS_NUMBERS // (n * k), 1)):
        weighed = (a[:, own, None] * Z[:, None]).flatten(1)  # (n, c · k)
        yield (Z.mT @ weighed).view(k, -1, k).transpose(0, 1)


def _sum_of_products(A: Tensor, B: Tensor) -> Tensor:
    """``Σ_c A_c B_c`` (k, k) for stacks (c, k, k)."""
    return A.transpose(0, 1).flatten(1) @ B.flatten(0, 1)


FUNCTIONS: dict[str, InnerFunction] = {"linear": Linear(), "quadratic": Quadratic()}
