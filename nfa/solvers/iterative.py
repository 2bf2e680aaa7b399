"""Conjugate gradients for a kernel matrix that is known by its products alone."""

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels.precision import exact_products
from nfa.solvers.common import (
    NotConvergedWarning,
    Solution,
    as_columns,
    check_ridge,
    name_of,
    relative_residual,
)

Operator = Callable[[Tensor], Tensor]


def conjugate_gradients(
    operator: Operator,
    Y: Tensor,
    ridge: float = 0.0,
    preconditioner: Operator | None = None,
    *,
    tol: float = 1e-4,
    max_iterations: int = 1000,
    start: Tensor | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Solution:
    """Solve ``(K + ridge I) A = Y`` by preconditioned conjugate gradients, all columns side by side.

    Each column has its own steps and stops by itself; they share the products with K. The vectors are
    float64. The residual is computed anew at the end, from coefficients in the dtype of K, and the
    iteration starts again from there where it had drifted.

    Args:
        operator: ``V -> K V`` for V (n, c); its ``dtype``, if it has one, is that of the coefficients.
        Y: (n,) or (n, c).
        ridge: added to the diagonal as it is, not scaled by n.
        preconditioner: ``R -> P⁻¹ R``, symmetric positive definite and near ``(K + ridge I)⁻¹``; see
            `nystrom`.
        tol: relative residual of every column at which to stop.
        max_iterations: products with K at most, but for those that check the residual.
        start: coefficients to start from, in the shape of Y.
        progress: called with the number of iterations and the residual after each.

    Raises:
        NfaError: input that does not fit.

    Warns:
        NotConvergedWarning: the tolerance was not reached.
    """
    began = time.perf_counter()
    check_ridge(ridge)
    if not 0 < tol < 1 or max_iterations < 1:
        raise NfaError(f"expected 0 < tol < 1 and max_iterations >= 1, got {tol} and {max_iterations}")
    dtype = getattr(operator, "dtype", Y.dtype if Y.is_floating_point() else torch.float64)
    B = as_columns(Y, len(Y)).to(getattr(operator, "device", Y.device))
    if start is not None and start.shape != Y.shape:
        raise NfaError(
            f"the start must have the shape of the targets {tuple(Y.shape)}, got {tuple(start.shape)}"
        )
    A = torch.zeros_like(B) if start is None else as_columns(start, len(Y)).to(B.device).clone()
    run = _Run(
        lambda V: operator(V).double() + ridge * V, preconditioner, B, dtype, tol, max_iterations, progress
    )
    with exact_products():
        A, residual = run.solve(A, fresh=start is None)
    if not residual <= tol:
        warnings.warn(
            f"conjugate gradients reached a residual of {residual:.1e} instead of {tol:.1e} after "
            f"{run.iterations} iterations: raise max_iterations, the ridge or the preconditioner's rank, or "
            "use float64",
            NotConvergedWarning,
            stacklevel=2,
        )
    return Solution(
        coefficients=A.to(dtype).reshape(Y.shape),
        method="cg",
        ridge=ridge,
        jitter=0.0,
        residual=residual,
        iterations=run.iterations,
        precision=name_of(dtype),
        rank=getattr(preconditioner, "rank", 0),
        seconds=time.perf_counter() - began,
    )


class _Run:
    """One solution: the system, where to stop, and the iterations so far."""

    def __init__(
        self,
        system: Operator,
        preconditioner: Operator | None,
        B: Tensor,
        dtype: torch.dtype,
        tol: float,
        max_iterations: int,
        progress: Callable[[int, float], None] | None,
    ):
        self.system, self.B, self.dtype, self.tol = system, B, dtype, tol
        self.precondition = preconditioner or torch.clone
        self.left, self.iterations, self.progress = max_iterations, 0, progress

    def solve(self, A: Tensor, fresh: bool) -> tuple[Tensor, float]:
        """Coefficients and their true residual; ``fresh`` coefficients are zero."""
        R = self.B.clone() if fresh else self.B - self.system(A)
        residual = relative_residual(R, self.B)
        while residual > self.tol and self.left > 0:
            before, candidate = residual, self._descend(A.clone(), R).to(self.dtype).double()
            R = self.B - self.system(candidate)
            residual = relative_residual(R, self.B)
            if not residual < before:  # rounding made it worse
                return A, before
            A = candidate
            if residual > before / 2:  # rounding holds it where it is
                break
        return A, residual

    def _descend(self, A: Tensor, R: Tensor) -> Tensor:
        """Iterate in place from A with residual R, until by recurrence the residual is small enough."""
        Z = self.precondition(R)
        D, rz = Z.clone(), (R * Z).sum(0)
        goal = self.tol * torch.where((scale := self.B.norm(dim=0)) > 0, scale, 1.0)
        while self.left > 0:
            SD = self.system(D)
            self.left, self.iterations = self.left - 1, self.iterations + 1
            curvature = (D * SD).sum(0)
            going = (curvature > 0) & (R.norm(dim=0) > 0.5 * goal)
            step = torch.where(going, rz / curvature, 0.0)
            A += step * D
            R -= step * SD
            norms = R.norm(dim=0)
            if self.progress is not None:
                self.progress(self.iterations, relative_residual(R, self.B))
            if bool((norms <= 0.9 * goal).all()) or not bool(going.any()):
                break
            Z = self.precondition(R)
            new = (R * Z).sum(0)
            D = Z.add_(torch.where(going, new / rz, 0.0) * D)
            rz = new
        return A
