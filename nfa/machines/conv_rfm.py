"""Convolutional recursive feature machines: kernel machines that learn the features of image patches.

The recursion is that of Beaglehole, Radhakrishnan, Pandit and Belkin (arXiv 2309.00570); a round of it is
`nfa.machines.conv_round.ConvRecursion`.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nfa.checks import device_of_name, flag, known_options, whole, whole_or_none
from nfa.errors import NfaError
from nfa.kernels.conv import ConvKernel
from nfa.machines.conv_network import ConvKernelNetwork
from nfa.machines.conv_predictor import ConvPredictor, checked_images
from nfa.machines.conv_round import ConvFit, ConvRecursion, plain_options
from nfa.machines.fitting import RoundMachine
from nfa.machines.rounds import Progress
from nfa.machines.saved import expect, history_of, index_in, opened_machine, save_machine
from nfa.machines.targets import TargetCode

_FORMAT = "nfa.ConvRFM 1"


class ConvRFM(RoundMachine):
    """A convolutional kernel predictor that learns a Mahalanobis matrix M of image patches.

    ``f(x) = Σ_j a_j k_T(x, x_j)`` with the infinite-width kernel of [convolution, ReLU]·depth, whose first
    layer sees ``T u`` for every patch u. A round sets ``T`` to a power of the AGOP of f with respect to
    patches, with Frobenius norm 1, so that ``M = TᵀT`` has the trace 1 (arXiv 2309.00570). Patches are
    ordered (channel, row, column), as in ``weight.reshape(out, -1)`` of a convolution.

    The published code chooses ridge and round by accuracy on its test images. That is ``criterion=
    "accuracy", agop_draw="first"`` with these as validation images; its tables are optimistic by as much.

    Args:
        patch_size: side of all windows, in pixels.
        depth: number of convolutions of the kernel.
        ridge: added to the diagonal of the kernel matrix divided by its largest entry, as published; or
            several, from which the validation images choose in each round.
        rounds: updates of M; there is one more fit than that, the first with ``M = I``.
        agop_images: take the AGOP over so many training images; None takes all.
        agop_draw: ``random``, anew each round without replacement, or the ``first`` ones, as published.
        power: exponent of the AGOP that becomes M, up to scale: 1 for ``T = G^½/‖G^½‖``, 2 for
            ``T = G/‖G‖``.
        stride: of the first convolution.
        padding: ``none``, or ``zero`` for ``patch_size // 2`` zeros on each side.
        head: ``flatten``, or ``pool`` for global average pooling, which costs far more.
        kind: ``ntk`` or ``nngp``.
        criterion: by which validation images choose the ridge and the round: ``mse`` or ``accuracy``.
        solver: ``auto``, ``cholesky`` or ``cg``; see `nfa.solvers.solve`.
        patience: stop when the validation error was no lower for so many rounds; None goes on to the end.
        refit: at the end solve once more, with training and validation images together, with the T and the
            ridge of the round that is kept.
        seed: of the images of the AGOP, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data; None takes 80 % of what is free.
        offset: ``mean`` fits real targets less their mean, which is added to what is predicted; ``none`` is
            the published recursion, without an intercept. One-hot columns of classes are always fitted as
            they are, as published.

    Attributes:
        M: (D, D), of the round that is kept: the best on validation data, without these the last.
        transform: T (D, D) of that round.
        history: one dictionary a round: ``round``, ``train_mse``, ``val_mse`` (and accuracies for classes),
            ``ridge``, ``scale`` (the largest kernel value), ``solver``, ``residual``, ``jitter``;
            ``kernel_seconds``, ``solve_seconds``, ``predict_seconds``, ``agop_seconds``; ``rank`` of the
            next M; and ``self_consistency``, the cosine of M with the matrix that replaces it.
        best_round: the round that is kept.
        predictor: the kernel predictor of that round.

    Raises:
        NfaError: an option is out of range.
    """

    def __init__(
        self,
        patch_size: int = 3,
        depth: int = 3,
        ridge: float | Sequence[float] = 1e-3,
        rounds: int = 3,
        agop_images: int | None = 20,
        *,
        agop_draw: str = "random",
        power: float = 1.0,
        stride: int = 1,
        padding: str = "none",
        head: str = "flatten",
        kind: str = "ntk",
        criterion: str = "mse",
        solver: str = "auto",
        patience: int | None = None,
        refit: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
        memory: float | None = None,
        offset: str = "mean",
        **unknown: Any,
    ):
        known_options(unknown, type(self))
        kernel = ConvKernel(patch_size, depth, stride, padding, head, kind)
        self.recursion = ConvRecursion(
            kernel, ridge, power, agop_images, agop_draw, criterion, solver, seed, memory, offset=offset
        )
        self.rounds, self.patience = whole("rounds", rounds), whole_or_none("patience", patience, 1)
        self.refit, self.device = flag("refit", refit), device_of_name(device)
        self.history: list[dict[str, Any]] = []
        self.best_round = 0
        self._predictor: ConvPredictor | None = None
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
    ) -> "ConvRFM":
        """Learn M and the coefficients.

        Args:
            X: images (n, c, h, w), float32 or float64; kernels are computed in this dtype, gradients and
                systems in float64.
            y: labels (n,) or (n, 1), integers, bools or a list of texts; or floating targets (n,) or
                (n, outputs).
            X_val: validation images, by which the round is chosen, and the ridge where there are several;
                never used for fitting.
            y_val: their targets.
            progress: show the rounds on standard error.

        Raises:
            NfaError: data that are not finite, do not belong together, or hold one class only; images
                smaller than what the kernel sees.

        Warns:
            RoundFailedWarning: a round after the first could not be finished, or learned nothing, or did
                harm (`nfa.machines.rise`); the machine is that of the round before.
        """
        self._check_pair(X_val, y_val)
        X = self._images(X)
        targets = targets_of(y, y_val, self.recursion.criterion)
        Y = targets.columns(y, X)
        validation = None
        if X_val is not None:
            images = self._images(X_val, X.shape[1:]).to(X)
            validation = images, targets.columns(y_val, images)
        with self._anew():
            self._targets = targets
            self._fit_rounds(X, Y, validation, flag("progress", progress))
        return self

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        return self.predictor(X, self.recursion.memory)

    @property
    def predictor(self) -> ConvPredictor:
        """The kernel predictor of the round that is kept."""
        return self._fitted()

    @property
    def transform(self) -> Tensor:
        """T, (D, D) in the dtype of the data."""
        return self.predictor.root()

    @property
    def M(self) -> Tensor:
        """The Mahalanobis matrix of patches, ``TᵀT``, (D, D) in the dtype of the data."""
        T = self.transform
        return T.mT @ T

    def network(self) -> ConvKernelNetwork:
        """The machine as a module ``x (n, c, h, w) -> T u -> outputs`` that `nfa.audit` can measure.

        Its convolution ``feature_map`` has ``WᵀW = M``.
        """
        return ConvKernelNetwork.of(self.predictor)

    # ---- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted machine to a safetensors file, whole or not at all."""
        p = self.predictor
        tensors = {"centers": p.centers, "coefficients": p.coefficients}
        if p.transform is not None:
            tensors["transform"] = p.transform
        if p.intercept is not None:
            tensors["intercept"] = p.intercept
        state = {
            "options": self._options(),
            "targets": dataclasses.asdict(self._targets),
            "best_round": self.best_round,
            "history": self.history,
        }
        save_machine(path, _FORMAT, tensors, state)

    @classmethod
    def load(cls, path: str | os.PathLike, device: torch.device | str | None = None) -> "ConvRFM":
        """Read a machine that `save` wrote.

        Raises:
            NfaError: the file is missing, or none of these.
        """
        with opened_machine(path, _FORMAT, device) as (tensors, state):
            machine = cls(**state["options"], device=device)
            kernel, history = machine.recursion.kernel, history_of(state)
            machine._targets = TargetCode(**state["targets"])
            centers = checked_images(expect("centers", tensors.get("centers"), *[None] * 4))
            kernel.shape(centers)
            D, T = centers.shape[1] * kernel.patch_size**2, tensors.get("transform")
            T = None if T is None else expect("transform", T, D, D)
            a = expect("coefficients", tensors.get("coefficients"), len(centers), machine._targets.columns_of)
            b = None if "intercept" not in tensors else expect("intercept", tensors["intercept"], a.shape[1])
            machine._predictor = ConvPredictor(kernel, T, centers, a, b)
            machine.best_round = index_in("best_round", state["best_round"], len(history))
            machine.history = history
        return machine

    def _options(self) -> dict[str, Any]:
        own = {"rounds": self.rounds, "patience": self.patience, "refit": self.refit}
        return plain_options(self.recursion) | own

    def _learned(self, fit: ConvFit, index: int) -> tuple[Tensor, dict[str, Any]]:
        return self.recursion.next_transform(fit.predictor, index)

    def _row(
        self, index: int, fit: ConvFit, Y: Tensor, validation: tuple[Tensor, Tensor] | None
    ) -> dict[str, Any]:
        return {"round": index, **quality(self._targets, fit, Y, validation)}

    def _error(self, fit: ConvFit, validation: tuple[Tensor, Tensor]) -> float:
        return self.recursion.error(fit.val_scores, validation[1])

    def _solving(self, line: Progress, index: int) -> Callable[[int, int], None]:
        return line.kernel(index)

    def _images(self, X: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        return self._on_device(checked_images(X, shape))


def targets_of(y: Any, y_val: Any, criterion: str) -> TargetCode:
    """What kind the targets are.

    Raises:
        NfaError: numbers, where classes are to be counted.
    """
    targets = TargetCode.of(y, y_val)
    if criterion == "accuracy" and not targets.classes:
        raise NfaError("criterion='accuracy' needs labels of classes, got real targets: choose 'mse'")
    return targets


def quality(
    targets: TargetCode, fit: ConvFit, Y: Tensor, validation: tuple[Tensor, Tensor] | None
) -> dict[str, Any]:
    """What a history tells of a fit: errors and accuracies, and `ConvFit.row`."""
    row = targets.quality(fit.train_scores, Y, "train")
    if validation is not None:
        row |= targets.quality(fit.val_scores, validation[1], "val")
    return row | fit.row
