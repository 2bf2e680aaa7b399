"""Which solver fits: a memory estimate against a budget."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nfa.checks import choice, positive, seed_of, told, whole, whole_or_none
from nfa.device import out_of_memory, release
from nfa.errors import NfaError
from nfa.kernels.halving import needs
from nfa.kernels.operator import KernelOperator, wide_product
from nfa.solvers.common import Solution, as_columns, check_matrix, check_ridge, room
from nfa.solvers.direct import cholesky
from nfa.solvers.iterative import conjugate_gradients
from nfa.solvers.nystrom import ROWS as NYSTROM_ROWS
from nfa.solvers.nystrom import NystromPreconditioner, nystrom

_GIB = 2**30
_VECTORS = 8  # of n × c float64 numbers that a solver holds
_RANK = 8.0  # times √n: the rank whose cost is that of some products with K
_CACHE = 0.9  # of what is left, for tiles that are kept
_LEAST_RANK = 8
METHODS = ("auto", "cholesky", "cg")


@dataclass(frozen=True)
class MatrixOperator:
    """A dense K (n, n) as an operator: products, columns and diagonal."""

    K: Tensor

    def __post_init__(self):
        check_matrix(self.K)

    @property
    def size(self) -> int:
        """Number of points n."""
        return len(self.K)

    @property
    def dtype(self) -> torch.dtype:
        """Of K."""
        return self.K.dtype

    @property
    def device(self) -> torch.device:
        """Of K."""
        return self.K.device

    def __call__(self, V: Tensor) -> Tensor:
        """``K V`` in the dtype of V."""
        return wide_product(self.K, V)

    def columns(self, index: Tensor) -> Tensor:
        """``K[:, index]``, (n, p)."""
        return self.K[:, index]

    def diagonal(self) -> Tensor:
        """The diagonal of K, (n,)."""
        return self.K.diagonal()


def cholesky_bytes(n: int, outputs: int, dtype: torch.dtype, *, matrix_exists: bool = False) -> float:
    """Bytes of a solution by `cholesky`: K and work space, or a factor beside a K that is there already."""
    matrix = n * n * dtype.itemsize * (0.5 if matrix_exists else 1.0)
    return matrix + 8 * n * (_VECTORS * outputs + 2 * min(n, 512))


def solve(
    K: Tensor | KernelOperator,
    Y: Tensor,
    ridge: float = 0.0,
    *,
    method: str = "auto",
    memory: float | None = None,
    tol: float = 1e-4,
    max_iterations: int = 1000,
    start: Tensor | None = None,
    rank: int | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Solution:
    """Solve ``(K + ridge I) A = Y`` by Cholesky where that fits into the memory, else by CG.

    Args:
        K: a matrix (n, n), which is left as it is, or an operator such as `KernelOperator`: `size`,
            `dtype`, `device`, a call for products, ``columns(index)``, ``diagonal()`` and ``matrix()``.
        Y: (n,) or (n, c).
        ridge: added to the diagonal as it is, not scaled by n.
        method: ``auto``, ``cholesky`` or ``cg``.
        memory: budget in bytes beyond what is held already; None takes 80 % of what is free.
        tol: relative residual at which CG stops.
        max_iterations: of CG.
        start: coefficients for CG to start from.
        rank: of the preconditioner of CG; None chooses by n and memory, half as much each time that the
            memory runs out after all; 0 takes none.
        seed: of the preconditioner.
        progress: called with the iteration and the residual of CG.

    Raises:
        NfaError: input that does not fit, or a method that does not fit into the memory.

    Warns:
        IllConditionedWarning: Cholesky needed jitter.
        NotConvergedWarning: CG did not reach the tolerance.
    """
    began = time.perf_counter()
    ridge = check_ridge(ridge)
    choice("the method", method, METHODS)
    positive("tol", tol)
    whole("max_iterations", max_iterations, 1)
    rank, seed = whole_or_none("rank", rank), seed_of(seed)
    if not (isinstance(K, Tensor) or (hasattr(K, "size") and hasattr(K, "columns"))):
        raise NfaError(f"K must be a matrix (n, n) or an operator such as KernelOperator, got {told(K)}")
    operator = MatrixOperator(K) if isinstance(K, Tensor) else K
    outputs = as_columns(Y, operator.size).shape[1]
    if start is not None and not (isinstance(start, Tensor) and start.numel() == Y.numel()):
        raise NfaError(f"start must be coefficients in the shape of the targets, got {told(start)}")
    budget = room(operator.device, memory)
    if planned(operator, outputs, method, budget) == "cholesky":
        need = _need(operator, outputs)
        spare = max(budget - need, 1.0)
        what, advice = f"a factor of {operator.size} points", "method 'cg' takes less; or give fewer points"
        with needs(need, what, advice, operator.device):
            if isinstance(K, Tensor):
                solution = cholesky(K, Y, ridge, memory=spare)
            else:
                solution = cholesky(K.matrix(), Y, ridge, overwrite=True, memory=spare)
    else:
        given = rank is not None
        operator, rank = _with_cache(operator, outputs, budget, rank)
        need = _iterative_bytes(operator.size, outputs, rank, operator.dtype.itemsize)
        what = f"CG for {operator.size} points and {outputs} outputs"
        with needs(need, what, "choose a smaller rank, or give fewer points or outputs", operator.device):
            solution = conjugate_gradients(
                operator,
                Y,
                ridge,
                _preconditioner(operator, ridge, rank, seed, given),
                tol=tol,
                max_iterations=max_iterations,
                start=start,
                progress=progress,
            )
    return replace(solution, seconds=time.perf_counter() - began)


def planned(operator: KernelOperator | MatrixOperator, outputs: int, method: str, budget: float) -> str:
    """Which method `solve` takes within so many bytes: ``cholesky`` or ``cg``.

    Raises:
        NfaError: Cholesky is asked for and does not fit.
    """
    need = _need(operator, outputs)
    if method == "cholesky" and need > budget:
        raise NfaError(
            f"Cholesky of {operator.size} points takes about {_gib(need)}, more than the {_gib(budget)} "
            "allowed: choose method 'cg', or raise the memory"
        )
    return "cholesky" if method == "cholesky" or (method == "auto" and need <= budget) else "cg"


def _need(operator: KernelOperator | MatrixOperator, outputs: int) -> float:
    exists = isinstance(operator, MatrixOperator)
    return cholesky_bytes(operator.size, outputs, operator.dtype, matrix_exists=exists)


def _with_cache(
    operator: KernelOperator | MatrixOperator, outputs: int, budget: float, rank: int | None
) -> tuple[KernelOperator | MatrixOperator, int]:
    """The operator with what is left of the budget to keep tiles in, and the rank of the preconditioner."""
    n, itemsize = operator.size, operator.dtype.itemsize
    spare = budget - _iterative_bytes(n, outputs, 0, itemsize) - getattr(operator, "tile_bytes", 0)
    if rank is None:
        rank = preconditioner_rank(n, itemsize, spare)
    spare -= _preconditioner_bytes(n, rank, itemsize)
    if spare < 0:
        raise NfaError(
            f"CG for {n} points and {outputs} outputs takes about {_gib(budget - spare)}, more "
            f"than the {_gib(budget)} allowed: raise the memory, or choose a smaller rank"
        )
    if not isinstance(operator, MatrixOperator):
        operator = operator.with_cache(min(_CACHE * spare, operator.most_kept))
    return operator, rank


def preconditioner_rank(n: int, itemsize: int, spare: float) -> int:
    """``8 √n``, or what takes no more than half of the bytes that are spare; 0 for none."""
    rank = min(int(_RANK * n**0.5), n // 2)
    while rank and _preconditioner_bytes(n, rank, itemsize) > max(spare, 0) / 2:
        rank = _half(rank)
    return rank


def _half(rank: int) -> int:
    """The next rank to be tried; 0 where it would be too small to be of use."""
    return rank // 2 if rank >= 2 * _LEAST_RANK else 0


def _preconditioner(
    operator: KernelOperator | MatrixOperator, ridge: float, rank: int, seed: int, given: bool
) -> NystromPreconditioner | None:
    """Of this rank, of a lower one where memory runs out and none was given; None for rank 0.

    The rank changes how many iterations there are, not the solution. Processes that share an operator have
    one rank, and gather its columns together: there it stays as it is.
    """
    while rank:
        try:
            return nystrom(operator, ridge, rank, seed)
        except RuntimeError as error:
            if given or getattr(operator, "shared", False) or not out_of_memory(error):
                raise
        release(operator.device)  # outside of the handler, where the columns are free
        rank = _half(rank)
    return None


def _iterative_bytes(n: int, outputs: int, rank: int, itemsize: int) -> float:
    """The vectors of CG and its preconditioner."""
    return 8 * n * _VECTORS * outputs + _preconditioner_bytes(n, rank, itemsize)


def _preconditioner_bytes(n: int, rank: int, itemsize: int) -> float:
    """Its vectors, twice at worst, and float64 matrices of the size of its rank."""
    return rank * (2 * n * itemsize + 8 * (4 * rank + 2 * NYSTROM_ROWS)) if rank else 0


def _gib(size: float) -> str:
    return f"{size / _GIB:.3g} GiB"
