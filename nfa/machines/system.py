"""The linear system of a fit: one kernel matrix of the training data, solved for all ridges."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nfa import processes
from nfa.checks import choice, memory_of, seed_of, settle
from nfa.errors import NfaError
from nfa.kernels import KernelOperator, RadialKernel, ScaledOperator, kernel_product
from nfa.kernels.halving import needs
from nfa.kernels.operator import wide_product
from nfa.kernels.sharded import ShardedOperator
from nfa.solvers import METHODS, Solution, cholesky, cholesky_bytes, room, solve

SHARED_FROM = 4096  # points up to which each process solves the whole system, to the same bits as one alone
_TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-5}  # of a shared system: what rounding allows


@dataclass(frozen=True)
class Solver:
    """How systems are solved, and within which limits.

    Args:
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        seed: of all that is drawn: preconditioners, samples of the AGOP, random features.
        distributed: share kernel values and gradients out over the processes of the default group, all of
            which have the same data. Of images each process then solves the whole system; of points those of
            more than `SHARED_FROM`, or with ``cg`` any, are solved together, each process holding its rows of
            K, and others by each.

    Raises:
        NfaError: an option is out of range.
    """

    solver: str = "auto"
    memory: float | None = None
    seed: int = 0
    distributed: bool = False

    def __post_init__(self):
        settle(
            self,
            solver=choice("solver", self.solver, METHODS),
            memory=memory_of(self.memory),
            seed=seed_of(self.seed),
        )

    def budget(self, device: torch.device) -> float:
        """Bytes there are, for this process; where work is shared out, the least that any of them has."""
        bytes_here = room(device, self.memory)
        if not self.distributed:
            return bytes_here
        processes.check_group()
        one_pool = self.memory is None and device.type == "cpu"
        return processes.least(bytes_here / (processes.neighbours() if one_pool else 1))

    def shares(self, n: int) -> bool:
        """Whether a system of n points is solved by all processes together."""
        return self.distributed and (self.solver == "cg" or (self.solver == "auto" and n > SHARED_FROM))


def seed_for(seed: int, index: int) -> int:
    """A seed for the draws of one round or layer, of any seed."""
    return (seed * 1_000_003 + index) % 2**63


@dataclass
class System(ABC):
    """``(K/scale + ridge D⁻²) A = Y`` for the training data of a round, ``D² = diag(weights)``.

    With weights w_i this minimises ``Σ_i w_i (f(x_i) - y_i)² + ridge ‖f‖²``, as solved by
    ``(D K/scale D + ridge I) B = D Y`` and ``A = D B``; without any, D is the identity.

    Attributes:
        kernel: of K, with the one bandwidth it has.
        scale: what K is divided by.
        facts: what a history tells of it.
        distances: (n, n) between the centers, where there was room to keep them.
        weights: (n,) float64; None where all training data count the same.
    """

    kernel: Any
    solver: Solver
    scale: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)
    distances: Tensor | None = None
    weights: Tensor | None = None

    keeps_matrix: ClassVar[bool]  # else outputs of a chosen ridge are computed anew, from the kernel

    def solutions(self, Y: Tensor, ridges: Sequence[float], start: Tensor | None) -> list[Solution]:
        """One solution for each ridge; conjugate gradients start from that for the ridge before."""
        if self.weights is None:
            return self._solved(Y, ridges, start, None)
        D = self.weights.sqrt().to(Y)
        found = self._solved(D[:, None] * Y, ridges, None if start is None else start / D[:, None], D)
        return [replace(s, coefficients=D[:, None].to(s.coefficients) * s.coefficients) for s in found]

    @abstractmethod
    def _solved(
        self, Y: Tensor, ridges: Sequence[float], start: Tensor | None, D: Tensor | None
    ) -> list[Solution]:
        """The B of these right-hand sides; D (n,) is a diagonal, None the identity."""

    @abstractmethod
    def outputs(self, coefficients: Tensor) -> Tensor:
        """``K/scale A`` (n, c): outputs at the training data."""

    def _one_by_one(
        self, K: Any, Y: Tensor, ridges: Sequence[float], start: Tensor | None, **options: Any
    ) -> list[Solution]:
        found: list[Solution] = []
        for ridge in ridges:
            found.append(solve(K, Y, ridge, start=start, seed=self.solver.seed, **options))
            start = found[-1].coefficients
        return found


@dataclass
class DenseSystem(System):
    """A system whose K (n, n), divided by its scale, is held."""

    K: Tensor = field(repr=False, kw_only=True)
    budget: float = 0.0

    keeps_matrix = True

    def _solved(
        self, Y: Tensor, ridges: Sequence[float], start: Tensor | None, D: Tensor | None
    ) -> list[Solution]:
        """Each by the method that fits."""
        K = self.K if D is None else self.K * D[:, None].to(self.K) * D.to(self.K)
        return self._one_by_one(K, Y, ridges, start, method=self.solver.solver, memory=self.budget)

    def outputs(self, coefficients: Tensor) -> Tensor:
        """By one product."""
        return wide_product(self.K, coefficients.to(self.K))


def expect_matrix_room(noun: str, U: Tensor, outputs: int, matrix: float, budget: float) -> None:
    """Refuse a kernel matrix that takes more bytes, with the solution of its system, than there are."""
    need = matrix + cholesky_bytes(len(U), outputs, U.dtype, matrix_exists=True)
    if need > budget:
        raise NfaError(
            f"the kernel matrix of {len(U)} {noun} takes about {need / 2**30:.3g} GiB, more than the "
            f"{budget / 2**30:.3g} GiB allowed: give fewer {noun}, or raise the memory"
        )


@dataclass
class RadialSystem(System):
    """A system whose K is made from distances: for a factor, in the place of it, or never.

    Attributes:
        function: k, of the distance.
        points: the centers (n, k), in coordinates where the distance is Euclidean.
        direct: whether K is factored; else it is only multiplied with.
        lap: called with the name of a phase that ends.
        progress: called with the iteration and the residual of conjugate gradients.
    """

    function: RadialKernel = field(kw_only=True)
    points: Tensor = field(repr=False, kw_only=True)
    direct: bool = True
    lap: Callable[[str], None] = field(default=lambda phase: None, repr=False)
    progress: Callable[[int, float], None] | None = field(default=None, repr=False)

    keeps_matrix = False

    def _solved(
        self, Y: Tensor, ridges: Sequence[float], start: Tensor | None, D: Tensor | None
    ) -> list[Solution]:
        """The factors of all ridges take the same place, the lower triangle of K."""
        if self.direct:
            X = self.points
            what = f"the kernel matrix of {len(X)} points, which is factored,"
            need = cholesky_bytes(len(X), Y.shape[1], X.dtype)
            with needs(need, what, "solver='cg' needs none; or give fewer", X.device):
                K, spare = self._matrix()
                if D is not None:
                    K.mul_(D[:, None].to(K)).mul_(D.to(K))
                return [cholesky(K, Y, ridge, overwrite=True, memory=spare) for ridge in ridges]
        plain = KernelOperator(self.function, self.points)
        operator = plain if D is None else ScaledOperator(plain, D)
        return self._one_by_one(
            operator, Y, ridges, start, method="cg", memory=self.solver.memory, progress=self.progress
        )

    def _matrix(self) -> tuple[Tensor, float]:
        """K, and the bytes that a factor may take beside it."""
        r = self.distances
        K = (
            KernelOperator(self.function, self.points).matrix()
            if r is None
            else self.function.value_(r.clone())
        )
        self.lap("kernel")
        spare = room(self.points.device, None)
        if self.solver.memory is not None:
            held = K.nbytes * (1 if r is None else 2)
            spare = min(max(self.solver.memory - held, 1.0), spare)
        return K, spare

    def outputs(self, coefficients: Tensor) -> Tensor:
        """A strip of K at a time."""
        return kernel_product(self.function, self.points, self.points, coefficients.to(self.points))


@dataclass
class SharedSystem(System):
    """A system of points that all processes solve together, each of which holds its rows of K.

    Attributes:
        function: k, of the distance.
        points: the centers (n, k), in coordinates where the distance is Euclidean.
        budget: bytes that a process may take.
        progress: called with the iteration and the residual of conjugate gradients.
    """

    function: RadialKernel = field(kw_only=True)
    points: Tensor = field(repr=False, kw_only=True)
    budget: float = 0.0
    progress: Callable[[int, float], None] | None = field(default=None, repr=False)

    keeps_matrix = True

    def __post_init__(self):
        processes.check_same("points", self.points)
        self._operator = ShardedOperator(self.function, self.points)

    def _solved(
        self, Y: Tensor, ridges: Sequence[float], start: Tensor | None, D: Tensor | None
    ) -> list[Solution]:
        """By conjugate gradients."""
        processes.check_same("targets", Y)
        operator = self._operator if D is None else ScaledOperator(self._operator, D)
        return self._one_by_one(
            operator, Y, ridges, start, method="cg", memory=self.budget, tol=_TOLERANCES[self.points.dtype],
            progress=self.progress,
        )  # fmt: skip

    def forget(self) -> None:
        """Keep no rows of K: others are to come."""
        self._operator.forget()

    def outputs(self, coefficients: Tensor) -> Tensor:
        """By one product, with what the solution has kept of K."""
        return self._operator(coefficients.to(self.points))
