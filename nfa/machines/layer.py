"""One layer of a machine: what is fitted, what is learned from the fit, and what is handed on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nfa.checks import as_tuple, choice, flag, not_negative, one_or_several, settle, whole
from nfa.errors import NfaError
from nfa.kernels import Metric, exact_products
from nfa.machines.criteria import CRITERIA
from nfa.machines.kernel import Kernel
from nfa.machines.leave_one_out import leave_one_out
from nfa.machines.offset import OFFSETS, with_offset, without_offset
from nfa.machines.predictor import Predictor
from nfa.machines.progress import Clock
from nfa.machines.radial import Radial
from nfa.machines.system import Solver, System
from nfa.machines.update import Agop, Update
from nfa.solvers import Solution

EXACT = 1e-3  # a residual up to which a system counts as solved
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Fit:
    """A predictor, and how it was found.

    Attributes:
        predictor: the fit; its coefficients are those of the kernel as it is.
        solution: of the system, whose kernel matrix is divided by its scale.
        train_scores: outputs (n, c) at the training data.
        val_scores: outputs at the validation data, if there are any.
        facts: what a history tells of the system.
        seconds: by phase: ``kernel``, ``solve``, ``predict``.
        distances: (n, n) between the centers, where there was room to keep them.
    """

    predictor: Predictor
    solution: Solution
    train_scores: Tensor
    val_scores: Tensor | None
    facts: dict[str, object]
    seconds: dict[str, float]
    distances: Tensor | None = field(default=None, repr=False)

    @property
    def row(self) -> dict[str, object]:
        """What a history tells of the fit."""
        s = self.solution
        row = {**self.facts, "ridge": s.ridge, "solver": s.method, "residual": s.residual}
        row |= {"jitter": s.jitter, "iterations": s.iterations}
        return row | {f"{phase}_seconds": seconds for phase, seconds in self.seconds.items()}

    def settled(self) -> "Fit":
        """The same with a predictor that a file or a module holds; see `Predictor.settled`."""
        if self.predictor.points is None:
            return self
        return replace(self, predictor=self.predictor.settled(), distances=None)


@dataclass(frozen=True)
class Layer:
    """Kernel ridge regression in a metric, and the rounds in which the metric is learned.

    A round fits, and its update takes the next metric from the fit; there is one more fit than updates, the
    first with ``M = I``. What a layer hands on to the next one is its lift of the inputs.

    Args:
        kernel: of the predictor.
        update: from a predictor to the next metric.
        ridge: added to the diagonal of the kernel matrix (of images: divided by its largest entry) as it is,
            not scaled by the number of points; or several, from which validation data choose in each round.
        rounds: updates of M.
        offset: ``mean`` fits targets less their mean, which becomes the intercept; ``none``, as published.
        criterion: by which validation data choose: ``mse``, ``accuracy`` or ``auc``.
        solver: method, memory, seed.
        lift: what is handed on, `RandomFeatures` or `ConvFeatures`; None for the last layer.
        unit_norm: scale the points that come in to length one.
        keeps: which round a layer ends with: the ``best`` on validation data, without these the last; or the
            ``last``, whose root of M is then the symmetric one.
        leave_one_out: choose bandwidth and ridge by what each training point is predicted from all others,
            in the place of validation data.

    Raises:
        NfaError: an option is out of range.
    """

    kernel: Kernel = field(default_factory=Radial)
    update: Update = field(default_factory=Agop)
    ridge: float | Sequence[float] = 1e-3
    rounds: int = 5
    offset: str = "mean"
    criterion: str = "mse"
    solver: Solver = field(default_factory=Solver)
    lift: Any = None
    unit_norm: bool = False
    keeps: str = "best"
    leave_one_out: bool = False

    def __post_init__(self):
        settle(
            self,
            ridge=one_or_several(self.ridge, partial(not_negative, "ridge")),
            rounds=whole("rounds", self.rounds) if self.update.learns else 0,
            offset=choice("offset", self.offset, OFFSETS),
            criterion=choice("criterion", self.criterion, tuple(CRITERIA)),
            unit_norm=flag("unit_norm", self.unit_norm),
        )
        if not self.ridges:
            raise NfaError("give at least one ridge")
        self.update.check_kernel(self.kernel)

    @property
    def ridges(self) -> tuple[float, ...]:
        """The ridges to choose from."""
        return as_tuple(self.ridge)

    @property
    def chooses(self) -> bool:
        """Whether validation data are needed to choose a bandwidth or a ridge."""
        return self.kernel.chooses or len(self.ridges) > 1

    def error(self, scores: Tensor, Y: Tensor, weights: Tensor | None = None) -> float:
        """What is lowest for the best outputs (n, c), for samples with these weights (n,)."""
        return CRITERIA[self.criterion](scores, Y, weights)

    # ---- a fit ---------------------------------------------------------------------------------------------

    @exact_products()
    def fit(
        self,
        metric: Metric,
        X: Tensor,
        Y: Tensor,
        validation: Pair | None = None,
        start: Tensor | None = None,
        progress: Callable[..., None] | None = None,
        weights: Tensor | None = None,
    ) -> Fit:
        """Kernel ridge regression in a metric: least ``Σ_i w_i ‖f(x_i) - y_i‖² + ridge ‖f‖²``.

        Args:
            metric: M.
            X: training data (n, …), float32 or float64.
            Y: targets (n, c), of the dtype of X or float64.
            validation: inputs and targets by which bandwidth and ridge are chosen.
            start: coefficients (n, c) from which conjugate gradients start.
            progress: called with the iteration and the residual of conjugate gradients, or with the pairs of
                images whose kernel is computed, and their total.
            weights: of the training data (n,) float64, above 0; None where all count the same.

        Raises:
            NfaError: several bandwidths or ridges and no validation data, too little memory, or outputs that
                are not finite.
        """
        if self.chooses and validation is None and not self.leave_one_out:
            raise NfaError(
                "choosing among several bandwidths or ridges needs validation data: give X_val and y_val, or "
                "one bandwidth and one ridge"
            )
        clock, kernel = Clock(), self.kernel
        offset = X.mean(0) if kernel.centred else None
        U = kernel.images(metric, X if offset is None else X - offset)
        targets, (Y, intercept) = Y, without_offset(self.offset, Y, X.dtype, weights)
        plain = Predictor(
            kernel,
            metric,
            U,
            Y,
            offset,
            X if offset is not None and metric.root is not None else None,
            intercept,
            weights,
        )
        seen = None if validation is None else plain.coordinates(validation[0])
        clock.lap("kernel")
        best: tuple[System, Solution, Tensor | None] | None = None
        best_error = math.inf
        for system in kernel.systems(metric, U, Y.shape[1], self.solver, clock.lap, progress):
            system.weights = weights
            found = system.solutions(Y, self.ridges, None if start is None else start * system.scale)
            clock.lap("solve")
            together = torch.cat([solution.coefficients for solution in found], 1) / system.scale
            predictor = replace(plain, kernel=system.kernel, coefficients=together)
            outputs = None if seen is None else predictor.at(seen, self.solver.memory)
            apart: Sequence[Tensor | None] = [None] * len(found)
            if self.chooses and self.leave_one_out:
                ridges = [ridge * system.scale for ridge in self.ridges]
                apart = leave_one_out(predictor, targets, ridges, self.solver.memory)
            for index, solution in enumerate(found):
                own = slice(index * Y.shape[1], (index + 1) * Y.shape[1])
                val_scores = None if outputs is None else with_offset(outputs[:, own], intercept)
                predicted, error = apart[index], 0.0
                if predicted is not None:
                    error = self.error(predicted, targets, weights)
                elif val_scores is not None and validation is not None:
                    error = self.error(val_scores, validation[1])
                if best is None or error < best_error:
                    best, best_error = (system, solution, val_scores), error
            clock.lap("predict")
        assert best is not None  # there is a system at least, and a ridge
        system, solution, val_scores = best
        coefficients = solution.coefficients / system.scale
        train_scores = with_offset(self._train_scores(system, solution, Y), intercept)
        clock.lap("predict")
        if not bool(torch.isfinite(train_scores).all()):
            raise NfaError(
                f"the predictions on the training {kernel.noun} are not finite: give a larger ridge"
            )
        predictor = replace(plain, kernel=system.kernel, coefficients=coefficients)
        return Fit(
            predictor, solution, train_scores, val_scores, system.facts, clock.seconds, system.distances
        )

    def _train_scores(self, system: System, solution: Solution, Y: Tensor) -> Tensor:
        """Outputs at the training data: ``K a = Y - ridge a`` where that was solved to rounding.

        A ridge that was chosen may be far below what the residual of the system allows for.
        """
        exact = solution.method == "cholesky" and not solution.jitter and solution.residual <= EXACT
        if exact and (system.keeps_matrix or not self.chooses):
            rest = solution.ridge * solution.coefficients.to(Y)
            return Y - (rest if system.weights is None else rest / system.weights[:, None].to(Y))
        return system.outputs(solution.coefficients).to(Y)

    def refit(
        self, predictor: Predictor, ridge: float, X: Tensor, Y: Tensor, weights: Tensor | None = None
    ) -> Fit:
        """The same metric, bandwidth and ridge with other data: training and validation data together."""
        layer = replace(self, kernel=predictor.kernel, ridge=ridge)
        return layer.fit(predictor.metric, X, Y, weights=weights)
