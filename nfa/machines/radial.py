"""Machines on points: radial kernels of a Mahalanobis distance."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nfa.checks import as_tuple, one_or_several, plain, settle
from nfa.device import out_of_memory, release
from nfa.errors import NfaError
from nfa.kernels import (
    KernelOperator,
    Metric,
    RadialKernel,
    distances,
    kernel_product,
    make_kernel,
    median_bandwidth,
)
from nfa.kernels.spans import spans
from nfa.machines.kernel_agop import KernelAgop, blockwise_agop, kernel_agop, without_self
from nfa.machines.points import Points
from nfa.machines.predictor import Predictor
from nfa.machines.saved import expect
from nfa.machines.system import RadialSystem, SharedSystem, Solver
from nfa.machines.tails import RadialSum
from nfa.solvers import planned

MEDIAN = "median"
_STRIP_BYTES = 2**26  # of K' that a process holds where work is shared out


@dataclass(frozen=True)
class Radial(Points):
    """``k(‖W(x - z)‖)`` of points (n, d).

    Args:
        kernel: ``laplace``, ``gaussian``, ``matern`` or ``exponential``; see `nfa.kernels.make_kernel`.
        bandwidth: L, in units of the distance; ``median`` for the median distance between training points in
            the metric of each round; or several of these, from which validation data choose in each round.
        kernel_options: ``nu`` of matern, ``q`` of exponential.

    Raises:
        NfaError: an option is out of range.
    """

    kernel: str = "laplace"
    bandwidth: float | str | Sequence[float | str] = 10.0
    kernel_options: dict[str, Any] = field(default_factory=dict)

    tail: ClassVar = RadialSum
    centred: ClassVar = True

    def __post_init__(self):
        settle(self, kernel_options={name: plain(value) for name, value in self.kernel_options.items()})
        settle(self, bandwidth=one_or_several(self.bandwidth, self._checked_bandwidth))
        if not self.bandwidths:
            raise NfaError("give at least one bandwidth and one ridge")

    def _checked_bandwidth(self, value: Any) -> float | str:
        value = plain(value)
        if isinstance(value, str) and value != MEDIAN:
            raise NfaError(f"the bandwidth must be a positive number or {MEDIAN!r}, got {value!r}")
        make_kernel(self.kernel, 1.0 if value == MEDIAN else value, **self.kernel_options)
        return value

    @property
    def options(self) -> dict[str, Any]:
        """The name, the bandwidth and those of this kernel alone."""
        return {"kernel": self.kernel, "bandwidth": self.bandwidth, **self.kernel_options}

    @property
    def bandwidths(self) -> tuple[float | str, ...]:
        """The bandwidths to choose from."""
        return as_tuple(self.bandwidth)

    @property
    def chooses(self) -> bool:
        """Whether there are several bandwidths."""
        return len(self.bandwidths) > 1

    @property
    def function(self) -> RadialKernel:
        """k, where the bandwidth is one number."""
        return make_kernel(self.kernel, self.one_bandwidth, **self.kernel_options)

    @property
    def one_bandwidth(self) -> float:
        """L, where the bandwidth is one number.

        Raises:
            NfaError: it is still to be chosen.
        """
        if isinstance(self.bandwidth, int | float):
            return self.bandwidth
        raise NfaError(f"expected a kernel of one bandwidth, got {self.bandwidth!r}: take that of a fit")

    # ---- fits ----------------------------------------------------------------------------------------------

    def systems(
        self,
        metric: Metric,
        U: Tensor,
        outputs: int,
        solver: Solver,
        lap: Callable[[str], None],
        progress: Callable[[int, float], None] | None,
    ) -> Iterator[RadialSystem | SharedSystem]:
        """One for each bandwidth, all from the same distances where there is room for these."""
        budget = solver.budget(U.device)
        functions = [self._function(bandwidth, U, solver.seed) for bandwidth in self.bandwidths]
        if solver.shares(len(U)):
            shared = None
            for function in functions:
                if shared is not None:
                    shared.forget()
                shared = SharedSystem(
                    kernel=replace(self, bandwidth=function.bandwidth), solver=solver,
                    facts={"bandwidth": function.bandwidth}, function=function, points=U, budget=budget,
                    progress=progress,
                )  # fmt: skip
                yield shared
            return
        direct = planned(KernelOperator(functions[0], U), outputs, solver.solver, budget) == "cholesky"
        r = _distances(U) if direct and 2 * len(U) ** 2 * U.itemsize <= budget else None
        for function in functions:
            yield RadialSystem(
                kernel=replace(self, bandwidth=function.bandwidth), solver=solver, distances=r,
                facts={"bandwidth": function.bandwidth}, function=function, points=U, direct=direct, lap=lap,
                progress=progress,
            )  # fmt: skip

    def _function(self, bandwidth: float | str, U: Tensor, seed: int) -> RadialKernel:
        if isinstance(bandwidth, str):
            if bool((U == U[0]).all()):
                raise NfaError(
                    "all training points coincide in the metric, so that there is no median distance: the "
                    "points are equal, or what was learned from them is zero"
                )
            bandwidth = median_bandwidth(U, seed)
        return make_kernel(self.kernel, bandwidth, **self.kernel_options)

    def gram(self, U: Tensor) -> Tensor:
        """Of the distances, which are zero on the diagonal."""
        return self.function.matrix(U)

    def product(self, predictor: Predictor, U: Tensor, memory: float | None) -> Tensor:
        """A strip of the kernel matrix at a time."""
        return kernel_product(self.function, U, predictor.centers, predictor.coefficients.to(U))

    def agop(
        self,
        predictor: Predictor,
        points: Tensor | None,
        centering: str,
        solver: Solver,
        distances: Tensor | None = None,
    ) -> KernelAgop:
        """By the route of the fewest operations that fits into the memory."""
        U, a, n = predictor.centers, predictor.coefficients.to(predictor.centers), len(predictor.centers)
        function, budget = self.function, solver.budget(U.device)
        m = n if points is None else len(points)
        weights, shared = predictor.weights_at(points), solver.shares(n)
        rows = max(int(min(budget / 3, _STRIP_BYTES if shared else math.inf) / (n * U.itemsize)), 1)
        if not shared and (m * n + n * n) * U.itemsize <= budget:
            try:
                if distances is not None and points is None:
                    slope = function.slope_(distances)
                else:
                    slope = function.slope_matrix(U if points is None else U[points], U)
                without_self(slope, points)
                return kernel_agop(slope, U, a, points=points, weights=weights, centering=centering)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            rows = max(m // 4, 1)  # there was less than the system had told
            distances = None
            release(U.device)
        return blockwise_agop(
            function, U, a, points=points, weights=weights, centering=centering, rows=rows, shared=shared
        )

    def fact(self, predictor: Predictor, solver: Solver) -> KernelAgop:
        """``FACT FACTᵀ`` as ``g gᵀ`` with ``g = Zᵀ L X / n`` (k, d).

        L is the Laplacian of the graph of weights ``(a_i · a_j) k'(r_ij)/r_ij``, some of which are negative.
        It does not see where the origin is. What it takes away from sums is as large as they are: in float64.
        """
        Z, function = predictor.centers.double(), self.function
        a, X = predictor.coefficients.double(), predictor.inputs
        assert X is not None  # who calls an update gives them
        n = len(Z) if predictor.weights is None else float(predictor.weights.sum())
        X = (X - X.mean(0)).double()
        g = Z.new_zeros(Z.shape[1], X.shape[1])
        for own in spans(len(Z), max(int(solver.budget(Z.device) / 4 / (len(Z) * Z.itemsize)), 1)):
            L = function.slope_matrix(predictor.centers[own], predictor.centers).double()
            without_self(L, torch.arange(own.start, own.stop, device=L.device))
            L *= a[own] @ a.mT
            g += (L.sum(1)[:, None] * Z[own] - L @ Z).mT @ X[own]
        return KernelAgop("fact", factor=g / n)

    def told_of(self, agop: KernelAgop, predictor: Predictor) -> dict[str, Any]:
        """The route, and the number of coordinates."""
        return {"agop_route": agop.route, "coordinates": predictor.centers.shape[1]}

    # ---- files ---------------------------------------------------------------------------------------------

    def written(self, predictor: Predictor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """With the offset and the bandwidth that was chosen."""
        tensors, facts = super().written(predictor)
        offset = {} if predictor.offset is None else {"offset": predictor.offset}
        return tensors | offset, facts | {"bandwidth": self.bandwidth}

    def read(self, tensors: dict[str, Tensor], state: dict[str, Any], outputs: int | None) -> Predictor:
        """With both of these."""
        make_kernel(self.kernel, state["bandwidth"], **self.kernel_options)
        predictor = super().read(tensors, state, outputs)
        offset = expect("offset", tensors.get("offset"), *self.input_shape(predictor))
        return replace(predictor, kernel=replace(self, bandwidth=state["bandwidth"]), offset=offset)


def _distances(U: Tensor) -> Tensor | None:
    """`distances`; None where there is less room than the system had told."""
    try:
        return distances(U)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    release(U.device)
    return None
