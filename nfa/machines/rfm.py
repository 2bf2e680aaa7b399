"""Recursive Feature Machines: kernel machines that learn features by their own gradients alone.

The recursion is that of Radhakrishnan, Beaglehole, Pandit and Belkin (arXiv 2212.13881); a round of it is
`nfa.machines.recursion.Recursion`.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nfa.checks import choice, device_of_name, flag, known_options, whole, whole_or_none
from nfa.kernels import Metric, exact_products, make_kernel, option_names
from nfa.machines.fitting import RoundMachine
from nfa.machines.network import KernelNetwork
from nfa.machines.predictor import Predictor
from nfa.machines.recursion import Fit, Recursion, mse
from nfa.machines.rounds import Progress
from nfa.machines.saved import expect, history_of, index_in, opened_machine, save_machine
from nfa.machines.targets import TargetCode, check_points

_FORMAT = "nfa.RFM 1"
_METRICS = {None: ("identity",), 1: ("diagonal",), 2: ("full", "factored")}  # by the dimensions of a root


class RFM(RoundMachine):
    """A kernel predictor whose Mahalanobis matrix M is learned from its own gradients.

    Args:
        kernel: ``laplace``, ``gaussian``, ``matern`` or ``exponential``; see `nfa.kernels.make_kernel`.
        bandwidth: L, in units of the distance; ``median`` for the median distance in the metric of each
            round; or several, from which the validation data choose in each round.
        ridge: added to the diagonal of the kernel matrix as it is, not scaled by the number of points; or
            several, from which the validation data choose in each round.
        rounds: updates of M; there is one more fit than that, the first with ``M = I``.
        power: exponent of the AGOP that becomes M.
        centering: of the gradients: ``none``, ``output`` (its own mean for each output), ``pooled``.
        normalization: of M: ``max`` divides by the largest entry, ``trace`` by the trace, ``none``.
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        agop_samples: take the AGOP over so many training points, drawn anew each round without
            replacement; None takes all.
        patience: stop when the validation error was no lower for so many rounds; None goes on to the end.
        refit: at the end solve once more, with training and validation points together, in the metric and
            with the bandwidth and the ridge of the round that is kept.
        seed: of these points, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        offset: ``mean`` fits real targets less their mean, which is added to what is predicted; ``none`` is
            the published recursion, without an intercept. One-hot columns of classes are always fitted as
            they are, as published.
        **kernel_options: ``nu`` of matern, ``q`` of exponential.

    Attributes:
        M: (d, d), of the round that is kept: the best on validation data, without these the last.
        history: one dictionary a round: ``round``, ``train_mse``, ``val_mse`` (and accuracies for classes),
            ``bandwidth``, ``ridge``, ``solver``, ``residual``, ``jitter``; ``kernel_seconds``,
            ``solve_seconds``, ``predict_seconds``, ``agop_seconds``; ``agop_route``; ``rank`` of the next
            M; and ``self_consistency``, the cosine of M with the matrix that replaces it.
        best_round: the round that is kept.
        predictor: the kernel predictor of that round.

    Raises:
        NfaError: an option is out of range.
    """

    initial: ClassVar = Metric.identity()

    def __init__(
        self,
        kernel: str = "laplace",
        bandwidth: float | str | Sequence[float | str] = 10.0,
        ridge: float | Sequence[float] = 1e-3,
        rounds: int = 5,
        power: float = 1.0,
        centering: str = "none",
        normalization: str = "max",
        solver: str = "auto",
        agop_samples: int | None = None,
        patience: int | None = None,
        refit: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
        memory: float | None = None,
        offset: str = "mean",
        **kernel_options: Any,
    ):
        known_options(kernel_options, type(self), option_names())
        self.recursion = Recursion(
            kernel, bandwidth, ridge, power, centering, normalization, solver, agop_samples, seed, memory,
            kernel_options, offset,
        )  # fmt: skip
        self.rounds, self.patience = whole("rounds", rounds), whole_or_none("patience", patience, 1)
        self.refit, self.device = flag("refit", refit), device_of_name(device)
        self.history: list[dict[str, Any]] = []
        self.best_round = 0
        self._predictor: Predictor | None = None
        self._targets = TargetCode()

    # ---- fit and predict -----------------------------------------------------------------------------------

    def fit(
        self,
        X: Tensor,
        y: Tensor,
        X_val: Tensor | None = None,
        y_val: Tensor | None = None,
        *,
        progress: bool = False,
    ) -> "RFM":
        """Learn M and the coefficients.

        Args:
            X: (n, d) float32 or float64; everything is computed in its dtype, what needs it in float64.
            y: labels (n,) or (n, 1), integers, bools or a list of texts; or floating targets (n,) or
                (n, outputs).
            X_val: validation points, by which the round is chosen, and the bandwidth and the ridge where
                there are several; never used for fitting.
            y_val: their targets.
            progress: show the rounds on standard error.

        Raises:
            NfaError: data that are not finite, do not belong together, or hold one class only.

        Warns:
            RoundFailedWarning: a round after the first could not be finished, or learned nothing, or did
                harm (`nfa.machines.rise`); the machine is that of the round before.
        """
        self._check_pair(X_val, y_val)
        X = self._points(X)
        targets = TargetCode.of(y, y_val)
        Y = targets.columns(y, X)
        validation = None
        if X_val is not None:
            points = self._points(X_val, X.shape[1]).to(X)
            validation = points, targets.columns(y_val, points)
        with self._anew():
            self._targets = targets
            self._fit_rounds(X, Y, validation, flag("progress", progress))
        return self

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        predictor = self.predictor
        return predictor(self._points(X, len(predictor.offset)).to(predictor.offset.device))

    @property
    def predictor(self) -> Predictor:
        """The kernel predictor of the round that is kept."""
        return self._fitted()

    @property
    def M(self) -> Tensor:
        """The Mahalanobis matrix, (d, d) in the dtype of the data."""
        root = self.predictor.root()
        with exact_products():
            return root @ root.mT

    def network(self) -> nn.Module:
        """The machine as a module ``x (n, …) -> Fᵀx -> outputs (n, c)`` that `nfa.audit` can measure.

        Its linear layer ``feature_map`` has ``WᵀW = M``.
        """
        self._predictor = self.predictor.settled()
        return KernelNetwork.of(self._predictor)

    # ---- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted machine to a safetensors file, whole or not at all."""
        p = self._predictor = self.predictor.settled()
        tensors = {"offset": p.offset, "centers": p.centers, "coefficients": p.coefficients}
        if p.metric.root is not None:
            tensors["root"] = p.metric.root
        if p.intercept is not None:
            tensors["intercept"] = p.intercept
        state = {
            "options": self._options(),
            "bandwidth": p.kernel.bandwidth,
            "targets": dataclasses.asdict(self._targets),
            "metric": p.metric.kind,
            "best_round": self.best_round,
            "history": self.history,
        }
        save_machine(path, _FORMAT, tensors, state)

    @classmethod
    def load(cls, path: str | os.PathLike, device: torch.device | str | None = None) -> "RFM":
        """Read a machine that `save` wrote.

        Raises:
            NfaError: the file is missing, or none of these.
        """
        with opened_machine(path, _FORMAT, device) as (tensors, state):
            machine = cls(**state["options"], device=device)
            recursion, history = machine.recursion, history_of(state)
            kernel = make_kernel(recursion.kernel, state["bandwidth"], **recursion.kernel_options)
            machine._targets = TargetCode(**state["targets"])
            root, offset = tensors.get("root"), expect("offset", tensors.get("offset"), None)
            metric = Metric(
                root, choice("metric", state["metric"], _METRICS[None if root is None else root.dim()])
            )
            if root is not None:
                expect("root", root, len(offset), *[None] * (root.dim() - 1))
            centers = expect("centers", tensors.get("centers"), None, metric.rank or len(offset))
            a = expect("coefficients", tensors.get("coefficients"), len(centers), machine._targets.columns_of)
            b = None if "intercept" not in tensors else expect("intercept", tensors["intercept"], a.shape[1])
            machine._predictor = Predictor(kernel, metric, offset, centers, a, intercept=b)
            machine.best_round = index_in("best_round", state["best_round"], len(history))
            machine.history = history
        return machine

    def _options(self) -> dict[str, Any]:
        options = {f.name: getattr(self.recursion, f.name) for f in dataclasses.fields(Recursion)}
        own = {"rounds": self.rounds, "patience": self.patience, "refit": self.refit}
        return {**options.pop("kernel_options"), **options, **own}

    # ---- data ----------------------------------------------------------------------------------------------

    def _learned(self, fit: Fit, index: int) -> tuple[Metric, dict[str, Any]]:
        return self.recursion.next_metric(fit.predictor, index, fit.distances)

    def _row(
        self, index: int, fit: Fit, Y: Tensor, validation: tuple[Tensor, Tensor] | None
    ) -> dict[str, Any]:
        row = {"round": index, **self._targets.quality(fit.train_scores, Y, "train")}
        if validation is not None:
            row |= self._targets.quality(fit.val_scores, validation[1], "val")
        return row | fit.row

    def _error(self, fit: Fit, validation: tuple[Tensor, Tensor]) -> float:
        return mse(fit.val_scores, validation[1])

    def _solving(self, line: Progress, index: int) -> Callable[[int, float], None]:
        return line.solving(index)

    def _points(self, X: Tensor, width: int | None = None) -> Tensor:
        return self._on_device(check_points(X, width))
