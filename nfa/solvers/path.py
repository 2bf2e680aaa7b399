"""Many ridges from one eigendecomposition."""

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels.precision import exact_products
from nfa.solvers.common import (
    IllConditionedWarning,
    Solution,
    as_columns,
    check_matrix,
    check_ridge,
    relative_residual,
)


@dataclass(frozen=True)
class RidgePath:
    """Solutions of ``(K + ridge I) A = Y`` for many ridges.

    Attributes:
        ridges: as given.
        coefficients: (r, n) or (r, n, c) in the dtype of K; predictions are ``K(X, Z) @ coefficients[i]``.
        leave_one_out: (r,) float64, mean squared error of each point's prediction from all others, in
            closed form: ``a_i / ((K + ridge I)⁻¹)_ii`` is the error at point i.
        eigenvalues: of K, (n,) float64, ascending; rounding counts as zero.
        residuals: (r,) largest ``‖(K + ridge I) a - y‖ / ‖y‖`` of a column, from what was left out and from
            the rounding of the coefficients.
        seconds: time taken for all of them.
    """

    ridges: tuple[float, ...]
    coefficients: Tensor
    leave_one_out: Tensor
    eigenvalues: Tensor
    residuals: tuple[float, ...]
    seconds: float

    def solution(self, index: int) -> Solution:
        """The solution for one of the ridges."""
        return Solution(
            coefficients=self.coefficients[index],
            method="eigh",
            ridge=self.ridges[index],
            jitter=0.0,
            residual=self.residuals[index],
            iterations=0,
            precision="float64",
            rank=0,
            seconds=self.seconds / len(self.ridges),
        )


def ridge_path(K: Tensor, Y: Tensor, ridges: Iterable[float]) -> RidgePath:
    """Solve for many ridges from one eigendecomposition of K, in float64: about three times n² of that.

    Where a ridge is no larger than rounding, null directions of K are left out, which gives the solution of
    least norm, with a warning.

    Args:
        K: (n, n) symmetric positive semi-definite, float32 or float64.
        Y: (n,) or (n, c).
        ridges: one or more, not negative.

    Raises:
        NfaError: input that does not fit.

    Warns:
        IllConditionedWarning: directions were left out.
    """
    began = time.perf_counter()
    check_matrix(K)
    chosen = tuple(float(ridge) for ridge in ridges)
    if not chosen:
        raise NfaError("a ridge path needs at least one ridge, got none")
    for ridge in chosen:
        check_ridge(ridge)
    B = as_columns(Y, len(K)).to(K.device)
    with exact_products():
        values, Q = torch.linalg.eigh(K.detach().double())
        floor = len(K) * torch.finfo(K.dtype).eps * float(values.abs().max())
        if float(values[0]) < -floor:
            raise NfaError(
                f"a kernel matrix must be positive semi-definite, got an eigenvalue {values[0]:.2g}"
            )
        noise = max(-2 * float(values[0]), len(K) * torch.finfo(torch.float64).eps * float(values[-1]))
        null = int((values <= noise).sum())
        if null and min(chosen) <= noise:
            warnings.warn(
                f"{null} of {len(K)} eigenvalues of K are zero up to rounding: at ridge {min(chosen):g} "
                f"their directions were left out; give a ridge above {noise:.1g}",
                IllConditionedWarning,
                stacklevel=2,
            )
        projected, squares = Q.mT @ B, Q.square()
        found, errors, residuals = [], [], []
        for ridge in chosen:
            shifted = values + ridge
            kept = values > noise if ridge <= noise else torch.ones_like(values, dtype=torch.bool)
            inverse = torch.where(kept, 1 / shifted, 0.0)
            A = Q @ (inverse[:, None] * projected)
            found.append(A.to(K.dtype).reshape(Y.shape))
            errors.append((A / (squares @ inverse)[:, None]).square().mean())
            V = Q.mT @ found[-1].double().reshape(B.shape)
            residuals.append(relative_residual(shifted[:, None] * V - projected, B))
    return RidgePath(
        chosen,
        torch.stack(found),
        torch.stack(errors),
        values.clamp_min(0),
        tuple(residuals),
        time.perf_counter() - began,
    )
