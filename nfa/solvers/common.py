"""What the solvers share: the solution, the warnings, and the checks of what comes in."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.blockwise import largest
from nfa.checks import not_negative, positive, told
from nfa.device import free_memory
from nfa.errors import NfaError


class SolverWarning(UserWarning):
    """The system was solved, but not quite as it was asked."""


class IllConditionedWarning(SolverWarning):
    """Floating point has no solution: jitter was added, directions were dropped, or digits were lost."""


class NotConvergedWarning(SolverWarning):
    """The iteration ended before the tolerance was reached."""


@dataclass(frozen=True)
class Solution:
    """Coefficients A of ``(K + ridge I) A = Y``, and how they were found.

    Attributes:
        coefficients: A, in the shape of Y and the dtype of K.
        method: ``cholesky``, ``cg``, or ``eigh`` for one of a `ridge_path`.
        ridge: as asked.
        jitter: what was added to the ridge beyond that.
        residual: largest ``‖(K + ridge I) a - y‖ / ‖y‖`` of a column.
        iterations: refinement steps, or steps of CG.
        precision: dtype of the factor or of the products.
        rank: of the preconditioner; 0 without one.
        seconds: time taken.
    """

    coefficients: Tensor
    method: str
    ridge: float
    jitter: float
    residual: float
    iterations: int
    precision: str
    rank: int
    seconds: float

    def __str__(self) -> str:
        steps = f"iterations, preconditioner of rank {self.rank}" if self.method == "cg" else "refinements"
        jitter = f", jitter {self.jitter:.2g}" if self.jitter else ""
        return (
            f"{self.method} in {self.precision}: residual {self.residual:.1e} after {self.iterations} {steps}"
            f"{jitter}, {self.seconds:.1f} s"
        )


def as_columns(Y: Tensor, n: int) -> Tensor:
    """Right-hand sides (n, c) in float64.

    Raises:
        NfaError: not n rows of finite numbers.
    """
    if not isinstance(Y, Tensor):
        raise NfaError(f"a kernel matrix of {n} points needs a tensor of targets, got {told(Y)}")
    if Y.dim() not in (1, 2) or len(Y) != n or Y.numel() == 0 or Y.is_complex():
        raise NfaError(
            f"a kernel matrix of {n} points needs targets ({n},) or ({n}, c), got {tuple(Y.shape)}"
        )
    if Y.is_floating_point() and not math.isfinite(largest(Y)):
        raise NfaError("the targets have values that are not finite: remove those points first")
    return Y.detach().double().reshape(n, -1)


def check_ridge(ridge: float) -> float:
    """Refuse a negative ridge."""
    return not_negative("the ridge", ridge, "a finite number >= 0")


def check_matrix(K: Tensor) -> None:
    """Refuse what is no kernel matrix."""
    if K.dim() != 2 or K.shape[0] != K.shape[1] or K.numel() == 0:
        raise NfaError(f"a kernel matrix must be square and not empty, got shape {tuple(K.shape)}")
    if K.dtype not in (torch.float32, torch.float64):
        raise NfaError(f"a kernel matrix must be float32 or float64, got {K.dtype}: convert it")
    if not math.isfinite(float(K.sum())) and not math.isfinite(largest(K)):
        raise NfaError("the kernel matrix has entries that are not finite: check the points and the metric")


def relative_residual(R: Tensor, Y: Tensor) -> float:
    """Largest ``‖r‖ / ‖y‖`` of the columns of (n, c); of a column of zeros ``‖r‖`` itself."""
    scale = Y.norm(dim=0)
    return float((R.norm(dim=0) / torch.where(scale > 0, scale, 1.0)).max())


def name_of(dtype: torch.dtype) -> str:
    """``float32`` or ``float64``."""
    return str(dtype).removeprefix("torch.")


def room(device: torch.device, memory: float | None) -> float:
    """Bytes that may be used: ``memory``, or 80 % of what is free, or no limit where that is unknown."""
    if memory is not None:
        return float(positive("the memory", memory, "a positive number of bytes"))
    free = free_memory(device)
    return math.inf if free is None else 0.8 * free
