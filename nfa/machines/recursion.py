"""One round of a recursive feature machine: fit with a metric, then learn the next metric from the fit.

A round solves kernel ridge regression with the distance ``(x - z)ᵀ M (x - z)``, takes the average gradient
outer product G of the predictor over its training points, and sets ``M ← G^power``, rescaled
(Radhakrishnan, Beaglehole, Pandit and Belkin, arXiv 2212.13881).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nfa.checks import (
    choice,
    memory_of,
    not_negative,
    plain,
    positive,
    seed_of,
    settle,
    whole_or_none,
)
from nfa.errors import NfaError
from nfa.kernels import (
    KernelOperator,
    Metric,
    RadialKernel,
    distances,
    exact_products,
    make_kernel,
    median_bandwidth,
)
from nfa.kernels.roots import power_root
from nfa.machines.kernel_agop import CENTERINGS, KernelAgop, blockwise_agop, kernel_agop, without_self
from nfa.machines.offset import OFFSETS, with_offset, without_offset
from nfa.machines.predictor import Predictor, images
from nfa.machines.rounds import Clock, one_or_several, several, stream
from nfa.solvers import METHODS, Solution, cholesky, planned, room, solve

NORMALIZATIONS = ("max", "trace", "none")
MEDIAN = "median"
EXACT = 1e-3  # a residual up to which a system counts as solved
NO_GRADIENT = (
    "the AGOP is zero, and so would be M: the predictor is flat at the training points, as a kernel is whose "
    "bandwidth is far below all distances, or that is fitted to targets without any variation"
)
_EXACT_COSINE = 1024  # coordinates up to which the self-consistency is exact
_PROBES = 128  # random directions it is estimated from beyond


@dataclass(frozen=True)
class Fit:
    """A predictor, and how it was found.

    Attributes:
        predictor: the fit.
        solution: of the linear system.
        train_scores: outputs (n, c) at the training points.
        val_scores: outputs at the validation points, if there are any.
        seconds: by phase: ``kernel``, ``solve``, ``predict``.
        distances: (n, n) between the centers, where there was room to keep them.
    """

    predictor: Predictor
    solution: Solution
    train_scores: Tensor
    val_scores: Tensor | None
    seconds: dict[str, float]
    distances: Tensor | None = field(default=None, repr=False)

    @property
    def row(self) -> dict[str, Any]:
        """What a history tells of the fit."""
        s = self.solution
        row = {"bandwidth": self.predictor.kernel.bandwidth, "ridge": s.ridge, "solver": s.method}
        row |= {"residual": s.residual, "jitter": s.jitter, "iterations": s.iterations}
        return row | {f"{phase}_seconds": seconds for phase, seconds in self.seconds.items()}


@dataclass(frozen=True)
class Recursion:
    """The options of a recursive feature machine, and its two steps: `fit` and `next_metric`.

    Args:
        kernel: ``laplace``, ``gaussian``, ``matern`` or ``exponential``; see `nfa.kernels.make_kernel`.
        bandwidth: L, in units of the distance; ``median`` for the median distance between training points in
            the metric of each round; or several of these, from which validation data choose in each round.
        ridge: added to the diagonal of the kernel matrix as it is, not scaled by the number of points; or
            several, from which validation data choose in each round.
        power: exponent of the AGOP that becomes M.
        centering: of the gradients: ``none``, ``output`` (its own mean for each output), ``pooled``.
        normalization: of M: ``max`` divides by the largest entry, ``trace`` by the trace, ``none``.
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        agop_samples: take the AGOP over so many training points, drawn anew each round without
            replacement; None takes all.
        seed: of these points, and of the solver.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        kernel_options: ``nu`` of matern, ``q`` of exponential.
        offset: ``mean`` fits targets less their mean, which becomes the intercept; ``none``, as published.

    Raises:
        NfaError: an option is out of range.
    """

    kernel: str = "laplace"
    bandwidth: float | str | Sequence[float | str] = 10.0
    ridge: float | Sequence[float] = 1e-3
    power: float = 1.0
    centering: str = "none"
    normalization: str = "max"
    solver: str = "auto"
    agop_samples: int | None = None
    seed: int = 0
    memory: float | None = None
    kernel_options: dict[str, Any] = field(default_factory=dict)
    offset: str = "mean"

    def __post_init__(self):
        settle(
            self,
            kernel_options={name: plain(value) for name, value in self.kernel_options.items()},
            ridge=one_or_several(self.ridge, partial(not_negative, "ridge")),
            power=positive("power", self.power),
            centering=choice("centering", self.centering, CENTERINGS),
            normalization=choice("normalization", self.normalization, NORMALIZATIONS),
            solver=choice("solver", self.solver, METHODS),
            agop_samples=whole_or_none("agop_samples", self.agop_samples, 1),
            seed=seed_of(self.seed),
            memory=memory_of(self.memory),
            offset=choice("offset", self.offset, OFFSETS),
        )
        settle(self, bandwidth=one_or_several(self.bandwidth, self._bandwidth))
        if not self.bandwidths or not self.ridges:
            raise NfaError("give at least one bandwidth and one ridge")

    def _bandwidth(self, value: Any) -> float | str:
        value = plain(value)
        if isinstance(value, str) and value != MEDIAN:
            raise NfaError(f"the bandwidth must be a positive number or {MEDIAN!r}, got {value!r}")
        make_kernel(self.kernel, 1.0 if value == MEDIAN else value, **self.kernel_options)
        return value

    @property
    def bandwidths(self) -> tuple[float | str, ...]:
        """The bandwidths to choose from."""
        return several(self.bandwidth)

    @property
    def ridges(self) -> tuple[float, ...]:
        """The ridges to choose from."""
        return several(self.ridge)

    @property
    def chooses(self) -> bool:
        """Whether validation data are needed to choose a bandwidth or a ridge."""
        return len(self.bandwidths) * len(self.ridges) > 1

    # ---- fit -----------------------------------------------------------------------------------------------

    @exact_products()
    def fit(
        self,
        metric: Metric,
        X: Tensor,
        Y: Tensor,
        validation: tuple[Tensor, Tensor] | None = None,
        start: Tensor | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> Fit:
        """Kernel ridge regression in a metric.

        Args:
            metric: M.
            X: training points (n, d), float32 or float64.
            Y: targets (n, c), of the dtype of X or float64.
            validation: points and targets by which bandwidth and ridge are chosen.
            start: coefficients (n, c) from which conjugate gradients start.
            progress: called with the iteration and the residual of conjugate gradients.

        Raises:
            NfaError: several bandwidths or ridges and no validation data, or outputs that are not finite.
        """
        if self.chooses and validation is None:
            raise NfaError(
                "choosing among several bandwidths or ridges needs validation data: give X_val and y_val, or "
                "one bandwidth and one ridge"
            )
        clock = Clock()
        offset = X.mean(0)
        U = images(X - offset, metric)
        U_val = None if validation is None else metric.transform(validation[0] - offset)
        points = None if metric.root is None else X
        budget = room(U.device, self.memory)
        Y, intercept = without_offset(self.offset, Y, X.dtype)
        clock.lap("kernel")
        kernels = [self._kernel(bandwidth, U) for bandwidth in self.bandwidths]
        direct = planned(KernelOperator(kernels[0], U), Y.shape[1], self.solver, budget) == "cholesky"
        r = distances(U) if direct and 2 * len(U) ** 2 * U.itemsize <= budget else None
        best, best_score = None, math.inf
        for kernel in kernels:
            found = self._solutions(kernel, U, Y, direct, r, start, progress, clock)
            together = torch.cat([solution.coefficients for solution in found], 1)
            predictor = Predictor(kernel, metric, offset, U, together, points, intercept)
            outputs = None if U_val is None else predictor.at(U_val)
            for index, solution in enumerate(found):
                own = slice(index * Y.shape[1], (index + 1) * Y.shape[1])
                val_scores = None if outputs is None else with_offset(outputs[:, own], intercept)
                score = 0.0 if U_val is None else mse(val_scores, validation[1])
                if best is None or score < best_score:
                    predictor = replace(predictor, coefficients=solution.coefficients)
                    best, best_score = Fit(predictor, solution, Y, val_scores, {}, r), score
            clock.lap("predict")
        if self.chooses:  # the ridge may be far below what the residual of the system allows for
            train_scores = best.predictor.at(best.predictor.centers)
        else:
            train_scores = self._train_scores(best, Y)
        train_scores = with_offset(train_scores, intercept)
        clock.lap("predict")
        if not bool(torch.isfinite(train_scores).all()):
            raise NfaError("the predictions on the training points are not finite")
        return replace(best, train_scores=train_scores, seconds=clock.seconds)

    def _kernel(self, bandwidth: float | str, U: Tensor) -> RadialKernel:
        if isinstance(bandwidth, str):
            if bool((U == U[0]).all()):
                raise NfaError(
                    "all training points coincide in the metric, so that there is no median distance: the "
                    "points are equal, or what was learned from them is zero"
                )
            bandwidth = median_bandwidth(U, self.seed)
        return make_kernel(self.kernel, bandwidth, **self.kernel_options)

    def _solutions(
        self,
        kernel: RadialKernel,
        U: Tensor,
        Y: Tensor,
        direct: bool,
        r: Tensor | None,
        start: Tensor | None,
        progress: Callable[[int, float], None] | None,
        clock: Clock,
    ) -> Sequence[Solution]:
        """One solution for each ridge, directly from one K (n, n), or without it.

        The factors of all ridges take the same place, the lower triangle of K. Conjugate gradients start from
        the solution for the ridge before.
        """
        found: list[Solution] = []
        if direct:
            K = KernelOperator(kernel, U).matrix() if r is None else kernel.value_(r.clone())
            clock.lap("kernel")
            spare = room(U.device, None)
            if self.memory is not None:
                held = K.nbytes * (1 if r is None else 2)
                spare = min(max(self.memory - held, 1.0), spare)
            found = [cholesky(K, Y, ridge, overwrite=True, memory=spare) for ridge in self.ridges]
        else:
            operator = KernelOperator(kernel, U)
            for ridge in self.ridges:
                options = {"memory": self.memory, "seed": self.seed, "progress": progress}
                found.append(solve(operator, Y, ridge, method="cg", start=start, **options))
                start = found[-1].coefficients
        clock.lap("solve")
        return found

    @staticmethod
    def _train_scores(fit: Fit, Y: Tensor) -> Tensor:
        """Outputs at the centers: ``K a = Y - ridge a`` where that was solved to rounding."""
        s = fit.solution
        if s.method != "cholesky" or s.jitter or s.residual > EXACT:
            return fit.predictor.at(fit.predictor.centers)
        return Y - s.ridge * s.coefficients.to(Y)

    def refit(self, predictor: Predictor, ridge: float, X: Tensor, Y: Tensor) -> Fit:
        """The same metric, bandwidth and ridge with other points: training and validation data together."""
        again = replace(self, bandwidth=predictor.kernel.bandwidth, ridge=ridge)
        return again.fit(predictor.metric, X, Y, start=None)

    # ---- the next metric -----------------------------------------------------------------------------------

    def next_metric(
        self, predictor: Predictor, index: int, distances: Tensor | None = None
    ) -> tuple[Metric, dict[str, Any]]:
        """``M ← G^power``, rescaled, from the AGOP G of a fit; and what a history tells of it.

        Args:
            predictor: of the fit.
            index: of the round, which with the seed chooses the points of the AGOP.
            distances: between its centers (n, n), where they are known; they are overwritten.

        Raises:
            NfaError: an AGOP that is zero or not finite.
        """
        clock = Clock()
        old, width = predictor.metric, predictor.centers.shape[1]
        with exact_products():
            agop = self._agop(predictor, index, distances)
            root = power_root(old.then(agop.root()).root, self.power)
            root = self._normalized(root)
            clock.lap("agop")
            row = {
                "agop_route": agop.route,
                "self_consistency": cosine_of_metrics(old.root, root),
                "rank": root.shape[1],
                "coordinates": width,
            }
        if not bool(torch.isfinite(root).all()):
            raise NfaError("the AGOP is not finite")
        if not bool(root.any()):
            raise NfaError(NO_GRADIENT)
        return Metric.factored(root), row | {"agop_seconds": clock.seconds["agop"]}

    def _agop(self, p: Predictor, index: int, distances: Tensor | None) -> KernelAgop:
        U, a, n = p.centers, p.coefficients.to(p.centers), len(p.centers)
        points = None
        if self.agop_samples is not None and self.agop_samples < n:
            generator = torch.Generator().manual_seed(stream(self.seed, index))
            points = torch.randperm(n, generator=generator)[: self.agop_samples].sort().values.to(U.device)
        budget = room(U.device, self.memory)
        m = n if points is None else len(points)
        if (m * n + n * n) * U.itemsize > budget:
            rows = max(int(budget / 3 / (n * U.itemsize)), 1)
            return blockwise_agop(p.kernel, U, a, points=points, centering=self.centering, rows=rows)
        if distances is not None and points is None:
            slope = p.kernel.slope_(distances)
        else:
            slope = p.kernel.slope_matrix(U if points is None else U[points], U)
        without_self(slope, points)
        return kernel_agop(slope, U, a, points=points, centering=self.centering)

    def _normalized(self, root: Tensor) -> Tensor:
        """The root of M divided by its largest entry (on the diagonal, M being semi-definite) or trace."""
        squares = root.double().square().sum(1)
        scale = {"max": squares.max(), "trace": squares.sum(), "none": squares.new_ones(())}
        scale = float(scale[self.normalization])
        return root / scale**0.5 if scale > 0 else root


def cosine_of_metrics(F: Tensor | None, B: Tensor) -> float:
    """Cosine of ``F Fᵀ``, or of the identity for None, with ``B Bᵀ``, for roots (d, ·).

    Beyond 1024 coordinates it is estimated from 128 random directions, the same for both matrices.
    """
    d = len(B)
    if max(d, B.shape[1]) <= _EXACT_COSINE:
        left = torch.eye(d, dtype=B.dtype, device=B.device) if F is None else F @ F.mT
        right = B @ B.mT
    else:
        probes = torch.randn(d, _PROBES, generator=torch.Generator().manual_seed(0), dtype=B.dtype)
        probes = probes.to(B.device)
        left = probes if F is None else F @ (F.mT @ probes)
        right = B @ (B.mT @ probes)
    norm = float(left.norm() * right.norm())
    return float((left * right).sum()) / norm if norm > 0 else math.nan


def mse(scores: Tensor, Y: Tensor) -> float:
    """Mean squared error of outputs (n, c); infinite where it is not finite."""
    error = float((scores - Y.to(scores)).double().square().mean())
    return error if math.isfinite(error) else math.inf
