"""What all machines share: options, targets, the fit, predictions and files."""

import inspect
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nfa.checks import device_of_name, flag, whole, whole_or_none
from nfa.errors import NfaError
from nfa.kernels import exact_products
from nfa.machines.layer import Layer, Pair
from nfa.machines.loop import FAILURES, Steps
from nfa.machines.network import KernelNetwork
from nfa.machines.options import bound, held, reserve, signature_of
from nfa.machines.predictor import Predictor
from nfa.machines.progress import Progress
from nfa.machines.reached import Round, RoundFailedWarning
from nfa.machines.saved import Saved, expect, history_of, opened_machine, save_machine
from nfa.machines.target_code import Label, TargetCode
from nfa.machines.weights import weighted


class Machine(ABC):
    """A kernel predictor that learns features round by round.

    A subclass says what its options are, and makes the layers of them.

    Args:
        *values: the first options, by position.
        **options: of the machine, and of its kernel.

    Attributes:
        defaults: its options, in their order; of them ``positional`` may be given by position.
        stack: the layers made of the options.
        history: one dictionary a round.
        best_round: the round that is kept: the best on validation data, without these the last.

    Raises:
        NfaError: an option is unknown or out of range.
    """

    defaults: ClassVar[dict[str, Any]]
    positional: ClassVar[int] = 99
    format: ClassVar[str]
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls) -> None:
        """Show the options as the signature of the class, and keep their names from kernels."""
        super().__init_subclass__()
        if hasattr(cls, "defaults"):
            cls.__signature__ = signature_of(cls.defaults, cls.positional)
            reserve(cls)

    def __init__(self, *values: Any, **options: Any):
        self._given = found = bound(type(self), values, options)
        self.stack = self.layers_of(found)
        self.device = device_of_name(found["device"])
        self._own(found)
        self.history: list[dict[str, Any]] = []
        self._targets = TargetCode()
        self._shape: tuple[int, ...] = ()
        self._predictor: Predictor | None = None

    @staticmethod
    @abstractmethod
    def layers_of(options: Mapping[str, Any]) -> tuple[Layer, ...]:
        """The layers of these options.

        Raises:
            NfaError: one is out of range.
        """

    def _options(self) -> dict[str, Any]:
        """The options that a file keeps, plain values."""
        return held(self._given, self.stack[0])

    def _own(self, options: Mapping[str, Any]) -> None:
        """Take the options that no layer has."""
        self.patience = whole_or_none("patience", options["patience"], 1)
        self.refit = flag("refit", options["refit"])
        self.best_round = 0

    # ---- fit -----------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Tensor,
        y: Any,
        X_val: Tensor | None = None,
        y_val: Any = None,
        *,
        sample_weight: Tensor | None = None,
        progress: bool = False,
    ) -> Self:
        """Learn M and the coefficients.

        Args:
            X: training data, points (n, d) or images (n, c, h, w), float32 or float64; what is computed is
                of this dtype, what needs it of float64.
            y: labels (n,) or (n, 1), integers, bools or a list of texts; or floating targets (n,) or
                (n, outputs).
            X_val: validation data, which choose the round (and the layer, where that is asked for), and
                bandwidth and ridge where there are several; never used for fitting.
            y_val: their targets.
            sample_weight: how much each training point counts (n,), of which none is negative: a point of
                weight 2 counts as two, one of weight 0 is not there. Machines on images have none.
            progress: show rounds or layers on standard error.

        Raises:
            NfaError: data that are not finite, do not belong together, hold one class only, or are smaller
                than what the kernel sees.

        Warns:
            RoundFailedWarning: a round after the first could not be finished, or learned nothing, or did
                harm (`nfa.machines.rise`); the machine, or the layer, is that of the round before.
        """
        if (X_val is None) != (y_val is None):
            raise NfaError("give both X_val and y_val, or neither")
        self._check_validation(X_val)
        X = self._inputs(X)
        weights = None
        if sample_weight is not None:
            X, y, weights = weighted(X, y, sample_weight, self.stack[0].kernel)
        targets = TargetCode.of(y, y_val)
        criterion = self.stack[0].criterion
        if criterion != "mse" and not targets.classes:
            raise NfaError(f"criterion={criterion!r} needs labels of classes, got real targets: choose 'mse'")
        Y, validation = self._columns(targets, y, X), None
        if X_val is not None:
            points = self._inputs(X_val, X.shape[1:]).to(X)
            validation = points, self._columns(targets, y_val, points)
        with self._anew():
            self._targets, self._shape = targets, tuple(X.shape[1:])
            steps = Steps(self.stack, X, Y, targets, validation, weights=weights)
            self._run(steps, flag("progress", progress))
        return self

    def _check_validation(self, X_val: Tensor | None) -> None:
        if self.refit and X_val is None:
            raise NfaError("refit=True adds the validation data: give X_val and y_val, or refit=False")

    def _run(self, steps: Steps, progress: bool) -> None:
        """Fit all rounds, and at the end the best one anew where that is asked for."""
        layer = self.stack[0]
        line = Progress(layer.rounds) if progress else None
        if line is not None:
            steps.report = getattr(line, layer.kernel.tells)
        for found in steps.after():
            if self.history:
                self.history[-1] |= found.update
            if found.failed is not None:
                _warn(
                    f"round {found.index + 1} failed ({found.failed}); the machine is that of round "
                    f"{self.best_round}"
                )
                break
            row = {"round": found.index, **found.row}
            self.history.append(row)
            self.best_round, self._predictor = found.kept.index, found.kept.predictor
            if line is not None:
                line.fitted(row)
            if self._is_patient_no_more(found, steps.validation):
                break
        if self.refit and steps.validation is not None:
            self._fit_again(steps, steps.validation, found)

    def _is_patient_no_more(self, found: Round, validation: Pair | None) -> bool:
        waited = found.index - self.best_round
        return self.patience is not None and validation is not None and waited >= self.patience

    def _fit_again(self, steps: Steps, validation: Pair, found: Round) -> None:
        """Fit the best round to training and validation data together."""
        X, Y = torch.cat([steps.X, validation[0]]), torch.cat([steps.Y, validation[1]])
        layer, kept, weights = self._targets.suited(self.stack[0]), found.kept, steps.weights
        if weights is not None:
            weights = torch.cat([weights, weights.new_ones(len(validation[0]))])
        try:
            self._predictor = layer.refit(kept.predictor, kept.ridge, X, Y, weights).predictor
        except FAILURES as error:
            _warn(
                f"the refit failed ({error}); the machine is that of round {self.best_round}, fitted to the "
                "training data alone"
            )

    @contextmanager
    def _anew(self) -> Iterator[None]:
        """Context of a fit that begins: where it ends without a predictor, the fit of before is kept."""
        before = vars(self).copy()
        self.history, self._predictor = [], None
        try:
            yield
        except BaseException:
            if self._predictor is None:
                vars(self).update(before)
            raise

    # ---- what is fitted ------------------------------------------------------------------------------------

    @property
    def predictor(self) -> Predictor:
        """The kernel predictor that is kept."""
        if self._predictor is None:
            raise NfaError("this machine is not fitted: call fit(X, y) first")
        return self._predictor

    @property
    def M(self) -> Tensor:
        """The Mahalanobis matrix, of points (d, d) or of patches (D, D), in the dtype of the data."""
        root = self.predictor.root()
        with exact_products():
            return root @ root.mT

    @property
    def classes(self) -> tuple[Label, ...]:
        """The label of each output, in their order; empty where the targets were numbers."""
        return self._targets.names if self.predictor else ()

    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""
        predictor = self.predictor
        X = self._inputs(X, self._shape).to(predictor.centers.device)
        return predictor(X, self.stack[0].solver.memory)

    def predict(self, X: Tensor) -> Tensor | list[str]:
        """Labels (n,) as they were given, texts as a list; or numbers in the shape of the targets."""
        return self._targets.decoded(self.scores(X))

    def network(self) -> torch.nn.Module:
        """The machine as a module that `nfa.audit` can measure: its ``feature_map`` has ``WᵀW = M``."""
        self._predictor = self.predictor.settled()
        return KernelNetwork.of(self._predictor, self._shape)

    # ---- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted machine to a safetensors file, whole or not at all."""
        tensors, facts = self._written()
        state = {"options": self._options(), "targets": asdict(self._targets), "history": self.history}
        save_machine(path, self.format, tensors, state | facts)

    def _written(self) -> Saved:
        """What a file holds of the fit."""
        p = self._predictor = self.predictor.settled()
        tensors, facts = p.kernel.written(p)
        tensors |= {"centers": p.centers, "coefficients": p.coefficients}
        if p.intercept is not None:
            tensors["intercept"] = p.intercept
        return tensors, facts | {"best_round": self.best_round}

    @classmethod
    def load(cls, path: str | os.PathLike, device: torch.device | str | None = None) -> Self:
        """Read a machine that `save` wrote.

        Raises:
            NfaError: the file is missing, or none of these.
        """
        with opened_machine(path, cls.format, device) as (tensors, state):
            machine = cls(**state["options"], device=device)
            machine._targets = TargetCode(**state["targets"])
            machine.history = history_of(state)
            machine._read(tensors, state)
        return machine

    def _read(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take what a file holds of the fit."""
        kernel = self.stack[0].kernel
        p = kernel.read(tensors, state, self._targets.columns_of)
        if "intercept" in tensors:
            b = expect("intercept", tensors["intercept"], p.coefficients.shape[1])
            p = replace(p, intercept=b)
        self._predictor = p
        self._shape = kernel.input_shape(p)
        self.best_round = whole("best_round", state["best_round"], 0, len(self.history) - 1)

    # ---- data ----------------------------------------------------------------------------------------------

    def _inputs(self, X: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        X = self.stack[0].kernel.checked(X, shape)
        return X if self.device is None else X.to(self.device)

    def _columns(self, targets: TargetCode, y: Any, like: Tensor) -> Tensor:
        return targets.columns(y, like)


def _warn(message: str) -> None:
    warnings.warn(message, RoundFailedWarning, stacklevel=4)  # the caller of fit
