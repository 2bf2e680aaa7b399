"""Cholesky with refinement and jitter, in half a matrix beside K or in K itself."""

import time
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels.precision import exact_products
from nfa.kernels.spans import spans
from nfa.solvers.blocked import BlockFactor, symmetric_product
from nfa.solvers.common import (
    IllConditionedWarning,
    Solution,
    as_columns,
    check_matrix,
    check_ridge,
    name_of,
    relative_residual,
    room,
)
from nfa.solvers.dense import FEW, DenseFactor

_REFINEMENTS = 3
_GOOD = {torch.float32: 1e-4, torch.float64: 1e-13}  # a residual that needs no further refinement
_BAD = 1e-3  # a residual that calls for a factor in float64
_LOST = 1e-3  # a residual of the rounded coefficients that calls for a warning
_JITTERS = 4  # attempts, each with ten times the jitter


@dataclass(frozen=True)
class _Found:
    """Coefficients in the dtype of K, their residual with the jitter and without it, and refinement steps."""

    coefficients: Tensor
    attained: float
    residual: float
    steps: int


def cholesky(
    K: Tensor, Y: Tensor, ridge: float = 0.0, *, overwrite: bool = False, memory: float | None = None
) -> Solution:
    """Solve ``(K + ridge I) A = Y`` by a Cholesky factor in the dtype of K and iterative refinement.

    Residuals are taken in float64. Where a float32 factor fails, or leaves a residual above 1e-3, the
    factor is taken in float64 if there is room. Where that fails too, jitter of 0.1 √ε of the mean
    diagonal is added to the ridge, then ten times as much, up to four times, with a warning.

    Beside K it takes n²/2 scalars, none with ``overwrite``, and n² up to 1536 rows; a float64 factor of a
    float32 K takes n².

    Args:
        K: (n, n) symmetric positive semi-definite, float32 or float64; the upper triangle is read.
        Y: (n,) or (n, c).
        ridge: added to the diagonal as it is, not scaled by n.
        overwrite: use the lower triangle of K as work space; it holds nothing of use afterwards.
        memory: bytes that a float64 factor may take; None takes 80 % of what is free.

    Raises:
        NfaError: input that does not fit, or a K that is not positive semi-definite.

    Warns:
        IllConditionedWarning: jitter was added, or the dtype of K cannot hold the coefficients.
    """
    began = time.perf_counter()
    check_matrix(K)
    check_ridge(ridge)
    K = K.detach()
    columns = as_columns(Y, len(K)).to(K.device)
    with exact_products():
        found, jitter, dtype = _solve(K, columns, ridge, overwrite, memory)
    if not jitter and found.residual > _LOST:
        warnings.warn(
            f"the coefficients are so large that in {name_of(K.dtype)} they leave a residual of "
            f"{found.residual:.1e}: use float64, or a larger ridge than {ridge:g}",
            IllConditionedWarning,
            stacklevel=2,
        )
    return Solution(
        coefficients=found.coefficients.reshape(Y.shape),
        method="cholesky",
        ridge=ridge,
        jitter=jitter,
        residual=found.residual,
        iterations=found.steps,
        precision=name_of(dtype),
        rank=0,
        seconds=time.perf_counter() - began,
    )


def _solve(
    K: Tensor, Y: Tensor, ridge: float, overwrite: bool, memory: float | None
) -> tuple[_Found, float, torch.dtype]:
    found, dtype = None, K.dtype
    factor = _factor(K, K.dtype, overwrite)
    if factor.decompose(ridge):
        found = _refined(K, Y, ridge, 0.0, factor)
    if K.dtype == torch.float32 and (found is None or found.attained > _BAD) and _fits(K, memory):
        del factor  # its panels make room for those of the next
        factor = _factor(K, torch.float64, overwrite=False)
        second = _refined(K, Y, ridge, 0.0, factor) if factor.decompose(ridge) else None
        if found is None or (second is not None and second.attained < found.attained):
            found, dtype = second, torch.float64
    if found is not None:
        return found, 0.0, dtype
    scale = float(K.diagonal().double().mean())
    for attempt in range(_JITTERS):
        jitter = 0.1 * torch.finfo(K.dtype).eps ** 0.5 * scale * 10**attempt
        if factor.decompose(ridge + jitter):
            _warn_of_jitter(K, ridge, jitter, scale, dtype)
            return _refined(K, Y, ridge, jitter, factor), jitter, dtype
    raise NfaError(
        f"a kernel matrix must be positive semi-definite, but K + {ridge + jitter:.2g} I is not, with a mean "
        f"diagonal of {scale:.2g}: check the kernel, or raise the ridge"
    )


def _factor(K: Tensor, dtype: torch.dtype, overwrite: bool) -> BlockFactor | DenseFactor:
    return DenseFactor(K, dtype) if len(K) <= FEW else BlockFactor(K, dtype, overwrite)


def _fits(K: Tensor, memory: float | None) -> bool:
    return 4.0 * K.numel() <= room(K.device, memory)


def _refined(K: Tensor, Y: Tensor, ridge: float, jitter: float, factor: BlockFactor | DenseFactor) -> _Found:
    """Solve, then refine the coefficients in the dtype of K while the residual at least halves.

    They are refined to solve ``K + (ridge + jitter) I``; the residual that is returned is that of
    ``K + ridge I``.
    """
    best = _Found(Y, float("inf"), float("inf"), 0)
    correction, A = factor.solve(Y), torch.zeros_like(Y)
    for steps in range(_REFINEMENTS + 1):
        A = (A + correction).to(K.dtype).double()
        R = Y - symmetric_product(K, A).add_(A, alpha=ridge + jitter)
        attained = relative_residual(R, Y)
        stalled = not attained < best.attained / 2
        if attained < best.attained:
            best = _Found(A.to(K.dtype), attained, relative_residual(R.add(A, alpha=jitter), Y), steps)
        if attained <= _GOOD[K.dtype] or stalled:
            break
        correction = factor.solve(R)
    return best


def _warn_of_jitter(K: Tensor, ridge: float, jitter: float, scale: float, dtype: torch.dtype) -> None:
    copies = _duplicates(K)
    why = f"; {copies} of the {len(K)} rows are duplicates of another up to rounding" if copies else ""
    warnings.warn(
        f"K + {ridge:g} I has no Cholesky factor in {name_of(dtype)}{why}: jitter of {jitter:.2g} "
        f"({jitter / scale:.0e} of the mean diagonal) was added; give a larger ridge",
        IllConditionedWarning,
        stacklevel=4,
    )


def _duplicates(K: Tensor) -> int:
    """Rows that K cannot tell from an earlier row: ``K_ij = K_ii = K_jj``."""
    diagonal, copies = K.diagonal(), torch.zeros(len(K), dtype=torch.bool, device=K.device)
    limit = 1 - 8 * torch.finfo(K.dtype).eps
    for rows in spans(len(K), max(2**22 // len(K), 1)):
        alike = K[rows] >= limit * torch.maximum(diagonal[rows, None], diagonal)
        copies |= alike.triu_(rows.start + 1).any(0)
    return int(copies.sum())
