"""A Nyström preconditioner: the leading directions of K from some of its columns."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels.precision import exact_products

ROWS = 4096  # at a time


@dataclass(frozen=True)
class NystromPreconditioner:
    """``P⁻¹`` for ``P = U diag(λ) Uᵀ + δ I``, by Woodbury's formula for orthonormal U.

    ``P⁻¹R = (R - U diag(λ/(λ + δ)) UᵀR) / δ``. Here δ is the ridge and the mean of the diagonal that
    ``U diag(λ) Uᵀ`` leaves of K, so that the directions beyond U come out near one as well.

    Attributes:
        U: (n, p).
        weights: ``λ/(λ + δ)``, (p,) float64.
        delta: δ.
    """

    U: Tensor
    weights: Tensor
    delta: float

    @property
    def rank(self) -> int:
        """Number of columns p of U."""
        return self.U.shape[1]

    def __call__(self, R: Tensor) -> Tensor:
        """``P⁻¹ R``, (n, c) in the dtype of R."""
        with exact_products():
            inside = (self.U.mT @ R.to(self.U)).to(R) * self.weights.to(R)[:, None]
            return (R - (self.U @ inside.to(self.U)).to(R)).div_(self.delta)


class Columns(Protocol):
    """A kernel matrix of which single columns and the diagonal can be had."""

    @property
    def size(self) -> int:
        """Number of points n."""

    @property
    def device(self) -> torch.device:
        """Of the columns."""

    def columns(self, index: Tensor) -> Tensor:
        """``K[:, index]``."""

    def diagonal(self) -> Tensor:
        """The diagonal (n,)."""


def nystrom(operator: Columns, ridge: float, rank: int, seed: int = 0) -> NystromPreconditioner:
    """The preconditioner from ``rank`` columns of K chosen at random.

    With ``C = K[:, S]`` and ``K[S, S] + ν I = T Tᵀ``, K is near ``L Lᵀ`` for ``L = C T⁻ᵀ``; the shift ν is of
    the size of rounding (Frangella, Tropp and Udell 2023). Takes n · rank scalars, and O(n rank²) time.

    Args:
        operator: K.
        ridge: of the system.
        rank: number of columns.
        seed: of the choice of columns.

    Raises:
        NfaError: a rank that is none, or a K that is not positive semi-definite, as far as that is seen.
    """
    if not 1 <= rank <= operator.size:
        raise NfaError(f"the rank must be between 1 and the {operator.size} points, got {rank}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(operator.size, generator=generator)[:rank].sort().values.to(operator.device)
    with exact_products():
        L = operator.columns(chosen)
        T = _root(L[chosen].double(), torch.finfo(L.dtype).eps)
        gram, left = T.new_zeros(rank, rank), float(operator.diagonal().double().sum())
        for rows in L.split(ROWS):
            part = torch.linalg.solve_triangular(T.mT, rows.double(), upper=True, left=False)
            gram += part.mT @ part
            rows.copy_(part)
        values, vectors = torch.linalg.eigh(gram)
        kept = values > 10 * torch.finfo(L.dtype).eps * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        delta = ridge + max(left - float(values.sum()), 0.0) / operator.size
        delta = max(delta, torch.finfo(L.dtype).eps * float(values[-1:].sum())) or 1.0  # of K = 0, any
        U = L if len(values) == rank else L.new_empty(operator.size, len(values))
        turn = (vectors * values.rsqrt()).to(L)
        for rows, result in zip(L.split(ROWS), U.split(ROWS), strict=True):
            result.copy_(rows @ turn)
    return NystromPreconditioner(U, values / (values + delta), delta)


def _root(A: Tensor, eps: float) -> Tensor:
    """Lower Cholesky factor of A and a shift of its rounding, ten times as much until there is one.

    Raises:
        NfaError: no shift of the size of its diagonal makes A positive.
    """
    trace = float(A.diagonal().sum())
    if trace < 0 or (trace == 0 and bool(A.any())):
        raise NfaError(
            f"a kernel matrix must be positive semi-definite, got a diagonal with the sum {trace:.2g}: check "
            "the kernel"
        )
    shift = eps * trace or 1.0
    while True:
        A.diagonal().add_(shift)
        T, info = torch.linalg.cholesky_ex(A)
        if not int(info):
            return T
        shift *= 10
