"""Recursive Feature Machines: kernel machines that learn features by their own gradients alone.

One round solves kernel ridge regression with the distance ``(x - z)ᵀ M (x - z)``, takes the average gradient
outer product G of the predictor over the training points, and sets ``M ← G^power``, rescaled
(Radhakrishnan, Beaglehole, Pandit and Belkin, arXiv 2212.13881).
"""

import math
import time
import warnings
from typing import Any

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels import KernelOperator, Metric, exact_products, kernel_product, make_kernel
from nfa.machines.kernel_agop import CENTERINGS, kernel_agop
from nfa.solvers import METHODS, Solution, solve

NORMALIZATIONS = ("max", "trace", "none")


class RoundFailedWarning(UserWarning):
    """A round could not be finished; the machine is that of the round before."""


class RFM:
    """A kernel predictor whose Mahalanobis matrix M is learned from its own gradients.

    Args:
        kernel: ``laplace``, ``gaussian``, ``matern`` or ``exponential``; see `nfa.kernels.make_kernel`.
        bandwidth: L, in units of the distance.
        ridge: added to the diagonal of the kernel matrix as it is, not scaled by the number of points.
        rounds: updates of M; there is one more fit than that, the first with ``M = I``.
        power: exponent of the AGOP that becomes M.
        centering: of the gradients: ``none``, ``output`` (its own mean for each output), ``pooled``.
        normalization: of M: ``max`` divides by the largest entry, ``trace`` by the trace, ``none``.
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        agop_samples: take the AGOP over so many training points, drawn anew each round without
            replacement; None takes all.
        seed: of these points.
        device: where to compute; None means where the data are.
        **kernel_options: ``nu`` of matern, ``q`` of exponential.

    Attributes:
        M: (d, d), of the round that is kept: the best on validation data, without these the last.
        history: one dictionary a round: ``round``, ``train_mse``, ``val_mse`` (and accuracies for classes),
            ``solve_seconds``, ``agop_seconds``, ``solver``, ``residual``, ``agop_route``,
            ``self_consistency`` (cosine of M with the matrix that would replace it).
        best_round: the round that is kept.

    Raises:
        NfaError: an option is out of range.
    """

    def __init__(
        self,
        kernel: str = "laplace",
        bandwidth: float = 10.0,
        ridge: float = 1e-3,
        rounds: int = 5,
        power: float = 1.0,
        centering: str = "none",
        normalization: str = "max",
        solver: str = "auto",
        agop_samples: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        **kernel_options: Any,
    ):
        self.kernel = make_kernel(kernel, bandwidth, **kernel_options)
        _check_choice("centering", centering, CENTERINGS)
        _check_choice("normalization", normalization, NORMALIZATIONS)
        _check_choice("solver", solver, METHODS)
        if not (ridge >= 0 and math.isfinite(ridge)):
            raise NfaError(f"ridge must be 0 or a positive number, got {ridge}")
        if not (power > 0 and math.isfinite(power)):
            raise NfaError(f"power must be a positive number, got {power}")
        if rounds < 0 or (agop_samples is not None and agop_samples < 1):
            raise NfaError(
                f"rounds must be 0 or more and agop_samples 1 or more, got {rounds} and {agop_samples}"
            )
        self.ridge, self.rounds, self.power = ridge, rounds, power
        self.centering, self.normalization, self.solver = centering, normalization, solver
        self.agop_samples, self.seed, self.device = agop_samples, seed, device
        self.history: list[dict[str, Any]] = []
        self.best_round = 0
        self._metric = Metric.identity()
        self._centers: Tensor | None = None  # in the coordinates of the metric
        self._coefficients: Tensor | None = None

    # ---- fit and predict -----------------------------------------------------------------------------------

    def fit(self, X: Tensor, y: Tensor, X_val: Tensor | None = None, y_val: Tensor | None = None) -> "RFM":
        """Learn M and the coefficients.

        Args:
            X: (n, d), floating; everything is computed in its dtype, what needs it in float64.
            y: class indices (n,) of an integer dtype, or real targets (n,) or (n, outputs).
            X_val: validation points, by which the best round is chosen; never used for fitting.
            y_val: their targets.

        Raises:
            NfaError: data that are not finite, do not belong together, or hold one class only.

        Warns:
            RoundFailedWarning: a round after the first could not be finished.
        """
        X, Y = self._points(X), self._targets(y, fitting=True)
        _check_pair(X, Y, "X and y")
        if (X_val is None) != (y_val is None):
            raise NfaError("give both X_val and y_val, or neither")
        validation = None
        if X_val is not None:
            validation = self._points(X_val, width=X.shape[1]), self._targets(y_val, fitting=False)
            _check_pair(*validation, "X_val and y_val")
        self._width, self.history = X.shape[1], []
        Y = Y.to(X.dtype)
        generator = torch.Generator().manual_seed(self.seed)
        metric, best = Metric.identity(), math.inf
        for index in range(self.rounds + 1):
            try:
                metric, best = self._round(index, metric, best, X, Y, validation, generator)
            except NfaError as error:
                if index == 0:
                    raise
                warnings.warn(
                    f"round {index} failed ({error}); the machine is that of round {self.best_round}",
                    RoundFailedWarning,
                    stacklevel=2,
                )
                break
        return self

    def predict(self, X: Tensor) -> Tensor:
        """Class indices (n,) int64 after a fit to classes, else predictions in the shape of the targets."""
        scores = self.scores(X)
        if self._classes:
            return scores.argmax(1)
        return scores[:, 0] if self._flat else scores

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        if self._coefficients is None:
            raise NfaError("predict needs a machine that was fitted: call fit(X, y) first")
        X = self._points(X, width=self._width)
        U = self._metric.transform(X)
        return kernel_product(self.kernel, U, self._centers, self._coefficients.to(U))

    @property
    def M(self) -> Tensor:
        """The Mahalanobis matrix, (d, d)."""
        if self._coefficients is None:
            raise NfaError("M is known after a fit: call fit(X, y) first")
        return self._metric.dense(self._width).to(self._coefficients.dtype)

    # ---- one round -----------------------------------------------------------------------------------------

    def _round(
        self,
        index: int,
        metric: Metric,
        best: float,
        X: Tensor,
        Y: Tensor,
        validation: tuple[Tensor, Tensor] | None,
        generator: torch.Generator,
    ) -> tuple[Metric, float]:
        """Fit with a metric, keep the machine if it is the best so far, and find the next metric."""
        start = time.perf_counter()
        U = metric.transform(X)
        solution = solve(KernelOperator(self.kernel, U), Y, self.ridge, method=self.solver, seed=self.seed)
        row = {"round": index, **self._quality(metric, U, solution, X, Y, "train")}
        row |= {"solver": solution.method, "residual": solution.residual, "jitter": solution.jitter}
        row["solve_seconds"] = time.perf_counter() - start
        if validation is not None:
            row |= self._quality(metric, U, solution, *validation, "val")
        score = row["val_mse"] if validation is not None else -index  # without validation the last is kept
        if not math.isfinite(row["train_mse"]):
            raise NfaError("the predictions on the training points are not finite")
        if score < best:
            best, self.best_round = score, index
            self._metric, self._centers, self._coefficients = metric, U, solution.coefficients
        self.history.append(row)
        if index == self.rounds:
            return metric, best
        start = time.perf_counter()
        G, row["agop_route"] = self._agop(metric, U, solution.coefficients, generator)
        M = self._updated(G)
        row["self_consistency"] = _cosine(M, metric.dense(X.shape[1]).to(M))
        metric = Metric.from_matrix(M.to(X.dtype))
        row["agop_seconds"] = time.perf_counter() - start
        return metric, best

    def _agop(
        self, metric: Metric, U: Tensor, coefficients: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, str]:
        """AGOP in the original coordinates, float64 (d, d)."""
        points = U
        if self.agop_samples is not None and self.agop_samples < len(U):
            points = U[torch.randperm(len(U), generator=generator)[: self.agop_samples].to(U.device)]
        with exact_products():
            slope = self.kernel.slope_matrix(points, U)
            found = kernel_agop(slope, points, U, coefficients.to(U), centering=self.centering)
            return metric.pull_back(found.matrix).double(), found.route

    def _updated(self, G: Tensor) -> Tensor:
        """``G^power``, scaled."""
        if not bool(torch.isfinite(G).all()):
            raise NfaError("the AGOP is not finite")
        M = G
        if self.power != 1:
            values, vectors = torch.linalg.eigh(G)
            M = (vectors * values.clamp_min(0) ** self.power) @ vectors.mT
        scale = {"max": M.max(), "trace": M.trace(), "none": M.new_ones(())}[self.normalization]
        return M / scale if float(scale) > 0 else M

    def _quality(
        self, metric: Metric, U: Tensor, solution: Solution, X: Tensor, Y: Tensor, stage: str
    ) -> dict[str, float]:
        """Mean squared error and, for classes, accuracy of a fit."""
        points = U if stage == "train" else metric.transform(X)
        scores = kernel_product(self.kernel, points, U, solution.coefficients.to(U))
        found = {f"{stage}_mse": float((scores - Y.to(scores)).square().mean())}
        if self._classes:
            found[f"{stage}_accuracy"] = float((scores.argmax(1) == Y.argmax(1)).double().mean())
        return found

    # ---- data ----------------------------------------------------------------------------------------------

    def _points(self, X: Tensor, width: int | None = None) -> Tensor:
        if not isinstance(X, Tensor) or not X.is_floating_point() or X.dim() != 2 or not len(X):
            shape = f"{X.dtype} {tuple(X.shape)}" if isinstance(X, Tensor) else type(X).__name__
            raise NfaError(f"expected points (n, d) of a floating dtype, got {shape}")
        if width is not None and X.shape[1] != width:
            raise NfaError(f"expected points with {width} features, as in the fit, got {X.shape[1]}")
        if not bool(torch.isfinite(X).all()):
            raise NfaError("the points have values that are not finite (NaN or infinity)")
        return X.detach().to(self.device or X.device)

    def _targets(self, y: Tensor, *, fitting: bool) -> Tensor:
        """Targets as (n, outputs): class indices one-hot."""
        if not isinstance(y, Tensor) or y.dim() not in (1, 2):
            raise NfaError("expected targets as a tensor (n,) or (n, outputs)")
        y = y.detach().to(self.device or y.device)
        if fitting:
            self._classes = 0 if y.is_floating_point() else _count_classes(y)
            self._flat = y.dim() == 1
        if not self._classes:
            if not bool(torch.isfinite(y).all()):
                raise NfaError("the targets have values that are not finite (NaN or infinity)")
            return y[:, None] if y.dim() == 1 else y
        if y.is_floating_point() or y.dim() != 1 or int(y.max()) >= self._classes or int(y.min()) < 0:
            raise NfaError(f"expected class indices (n,) from 0 to {self._classes - 1}, as in the fit")
        return torch.nn.functional.one_hot(y.long(), self._classes).double()


def _count_classes(y: Tensor) -> int:
    if y.dim() != 1 or not len(y) or int(y.min()) < 0:
        raise NfaError("expected class indices (n,) of 0 or more")
    if len(y.unique()) < 2:
        raise NfaError("the targets are of one class only: there is nothing to tell apart")
    return int(y.max()) + 1


def _check_pair(X: Tensor, Y: Tensor, names: str) -> None:
    if len(X) != len(Y):
        raise NfaError(f"{names} must have one row a sample each, got {len(X)} and {len(Y)}")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise NfaError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _cosine(A: Tensor, B: Tensor) -> float:
    norm = float(A.norm() * B.norm())
    return float((A * B).sum()) / norm if norm > 0 else math.nan
