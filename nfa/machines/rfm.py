"""Recursive Feature Machines: kernel machines that learn features by their own gradients alone.

The recursion is that of Radhakrishnan, Beaglehole, Pandit and Belkin (arXiv 2212.13881); a round of it is
`nfa.machines.recursion.Recursion`.
"""

import dataclasses
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nfa.errors import NfaError
from nfa.kernels import Metric, exact_products, make_kernel
from nfa.machines.network import KernelNetwork
from nfa.machines.predictor import Predictor
from nfa.machines.recursion import Fit, Recursion
from nfa.machines.rounds import Progress, RoundFailedWarning, check_whole
from nfa.machines.saved import load_machine, save_machine
from nfa.machines.targets import TargetCode, check_points

_FORMAT = "nfa.RFM 1"


class RFM:
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
        **kernel_options: Any,
    ):
        self.recursion = Recursion(
            kernel, bandwidth, ridge, power, centering, normalization, solver, agop_samples, seed, memory,
            kernel_options,
        )  # fmt: skip
        check_whole("rounds", rounds, 0)
        check_whole("patience", patience, 1)
        self.rounds, self.patience, self.refit, self.device = rounds, patience, refit, device
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
            y: class indices (n,) of an integer dtype, or real targets (n,) or (n, outputs).
            X_val: validation points, by which the round is chosen, and the bandwidth and the ridge where
                there are several; never used for fitting.
            y_val: their targets.
            progress: show the rounds on standard error.

        Raises:
            NfaError: data that are not finite, do not belong together, or hold one class only.

        Warns:
            RoundFailedWarning: a round after the first could not be finished.
        """
        if (X_val is None) != (y_val is None):
            raise NfaError("give both X_val and y_val, or neither")
        if self.refit and X_val is None:
            raise NfaError("refit=True adds the validation data: give X_val and y_val, or refit=False")
        X = self._points(X)
        targets = TargetCode.of(y)
        Y = targets.columns(y, X)
        validation = None
        if X_val is not None:
            points = self._points(X_val, X.shape[1]).to(X)
            validation = points, targets.columns(y_val, points)
        self._targets, self.history, self._predictor = targets, [], None
        line = Progress(self.rounds) if progress else None
        metric, start, best = Metric.identity(), None, math.inf
        fit: Fit | None = None
        for index in range(self.rounds + 1):
            try:
                if fit is not None:
                    metric, update = self.recursion.next_metric(fit.predictor, index - 1, fit.distances)
                    self.history[-1] |= update
                    start, fit = fit.predictor.coefficients, None  # its distances make room for the next
                fit = self.recursion.fit(metric, X, Y, validation, start, line and line.solving(index))
            except (NfaError, torch.OutOfMemoryError) as error:
                if index == 0:
                    raise
                warnings.warn(
                    f"round {index} failed ({error}); the machine is that of round {self.best_round}",
                    RoundFailedWarning,
                    stacklevel=2,
                )
                break
            row = self._row(index, fit, Y, validation)
            self.history.append(row)
            score = (
                row["val_mse"] if validation is not None else -index
            )  # without validation the last is kept
            if score < best or self._predictor is None:
                best, self.best_round, self._predictor = score, index, fit.predictor
            if line is not None:
                line.fitted(row)
            if self.patience is not None and validation and index - self.best_round >= self.patience:
                break
        if self.refit:
            both = (torch.cat(pair) for pair in zip((X, Y), validation, strict=True))
            try:
                again = self.recursion.refit(self.predictor, self.history[self.best_round]["ridge"], *both)
            except (NfaError, torch.OutOfMemoryError) as error:
                warnings.warn(
                    f"the refit failed ({error}); the machine is that of round {self.best_round}, fitted to "
                    "the training points alone",
                    RoundFailedWarning,
                    stacklevel=2,
                )
            else:
                self._predictor = again.predictor
        return self

    def predict(self, X: Tensor) -> Tensor:
        """Class indices (n,) int64 after a fit to classes, else predictions in the shape of the targets."""
        return self._targets.decoded(self.scores(X))

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        predictor = self.predictor
        return predictor(self._points(X, len(predictor.offset)))

    @property
    def predictor(self) -> Predictor:
        """The kernel predictor of the round that is kept."""
        if self._predictor is None:
            raise NfaError("this machine is not fitted: call fit(X, y) first")
        return self._predictor

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
        tensors, state = load_machine(path, _FORMAT, device)
        options = state["options"]
        machine = cls(**options, device=device)
        kernel = make_kernel(options["kernel"], state["bandwidth"], **machine.recursion.kernel_options)
        metric = Metric(tensors.get("root"), state["metric"])
        machine._predictor = Predictor(
            kernel, metric, tensors["offset"], tensors["centers"], tensors["coefficients"]
        )
        machine._targets = TargetCode(**state["targets"])
        machine.best_round, machine.history = state["best_round"], state["history"]
        return machine

    def _options(self) -> dict[str, Any]:
        options = {f.name: getattr(self.recursion, f.name) for f in dataclasses.fields(Recursion)}
        own = {"rounds": self.rounds, "patience": self.patience, "refit": self.refit}
        return {**options.pop("kernel_options"), **options, **own}

    # ---- data ----------------------------------------------------------------------------------------------

    def _row(
        self, index: int, fit: Fit, Y: Tensor, validation: tuple[Tensor, Tensor] | None
    ) -> dict[str, Any]:
        row = {"round": index, **self._targets.quality(fit.train_scores, Y, "train")}
        if validation is not None:
            row |= self._targets.quality(fit.val_scores, validation[1], "val")
        return row | fit.row

    def _points(self, X: Tensor, width: int | None = None) -> Tensor:
        X = check_points(X, width)
        return X if self.device is None else X.to(self.device)
