"""What the estimators share: options, the fit, importances."""

import inspect
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from nfa.checks import told
from nfa.errors import NfaError
from nfa.inputs.tables import TableEncoder
from nfa.inputs.tables.frames import is_frame, table_of_frame
from nfa.inputs.tables.importances import by_column
from nfa.machines.rfm import RFM
from nfa.machines.target_code import TargetCode
from nfa.sklearn.data import count, points_of, take, text_table, weights_of
from nfa.sklearn.rounds import HeldOut, held_out

OPTIONS: dict[str, Any] = {
    **{name: value for name, value in RFM.defaults.items() if name != "seed"},
    "random_state": 0, "kernel_options": None, "cv": None,
}  # fmt: skip
_LARGEST = 2**31 - 1


class RFMEstimator(BaseEstimator):
    """An `nfa.RFM` behind the conventions of scikit-learn.

    The options are those of `nfa.RFM`, with ``random_state`` in the place of the seed, ``kernel_options`` for
    those of a kernel (``{"nu": 1.5}``), and ``cv``.
    """

    cv: Any
    criterion: str
    random_state: Any
    kernel_options: Any
    options: ClassVar[tuple[str, ...]] = tuple(OPTIONS)

    def __init__(self, **options: Any):
        unknown = next((name for name in options if name not in OPTIONS), None)
        if unknown is not None:
            raise TypeError(f"{type(self).__name__} has no option {unknown!r}; options: {', '.join(OPTIONS)}")
        for name, default in OPTIONS.items():
            setattr(self, name, options.get(name, default))

    vars(__init__)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
                for name, default in OPTIONS.items()
            ),
        ]
    )

    # ---- fit -----------------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any) -> Self:
        if (X_val is None) != (y_val is None):
            raise NfaError("give both X_val and y_val, or neither")
        if X_val is not None and self.cv is not None:
            raise NfaError("validation data and cv both choose the round: give one of them")
        weights = self._checked(X, y, sample_weight)
        kept = None if weights is None or weights.all() else np.flatnonzero(weights)
        folds = self._folds(X, y, kept)
        if kept is not None and weights is not None:
            X, y, weights = take(X, kept), take(y, kept), weights[kept]
        points = self._fitted_points(X)
        own = self._targets(y, reset=True)
        machine = self._machine(alone=X_val is None)
        w = None if weights is None else torch.from_numpy(weights).to(points.device)
        held = None if folds is None else self._held_out(machine, points, own, w, folds)
        self.cv_errors_ = None if held is None else held.errors
        if held is not None:
            machine = self._machine(alone=True, rounds=held.best_round)
        validation = None
        if X_val is not None:
            check_consistent_length(X_val, y_val)
            validation = self._points(X_val).to(points), self._targets(y_val, reset=False)
        machine.fit(points, own, *(validation or ()), sample_weight=w)
        self.machine_ = machine
        self.feature_importances_ = self._importances()
        self._finish(own, validation, held, w)
        return self

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> np.ndarray | None:
        """Weights, after a look at whether the data belong together."""
        for data, name in ((X, "X"), (y, "y")):
            if isinstance(data, Tensor) and (data.layout != torch.strided or not data.dim()):
                raise NfaError(f"expected {name} as a dense tensor, one row a sample, got {told(data)}")
        if y is not None:
            check_consistent_length(X, y)
        return None if sample_weight is None else weights_of(sample_weight, count(X))

    def _fitted_points(self, X: Any) -> Tensor:
        """Points (n, d), and from what columns."""
        table = text_table(X)
        self.encoder_ = None
        self._columns: list[str] = []
        if table is None:
            return points_of(self, X, reset=True)
        validate_data(self, X, skip_check_array=True)
        self.encoder_, self._columns = TableEncoder.fit(table), list(table.columns)
        return self.encoder_.transform(table)

    def _points(self, X: Any) -> Tensor:
        """Points (n, d) of new samples."""
        if self.encoder_ is None:
            return points_of(self, X, reset=False)
        if not is_frame(X):
            raise NfaError(
                f"{type(self).__name__} was fitted to a DataFrame with columns of text: give one with the "
                f"same columns, got {told(X)}"
            )
        validate_data(self, X, skip_check_array=True, reset=False)
        return self.encoder_.transform(table_of_frame(X))

    def _machine(self, *, alone: bool, rounds: int | None = None) -> RFM:
        """A machine with the options; ``alone`` without validation data, it chooses by leaving one out."""
        given = {name: getattr(self, name) for name in RFM.defaults if name != "seed"}
        given |= self.kernel_options or {}
        given |= {"seed": self._seed()} | ({} if rounds is None else {"rounds": rounds})
        machine = RFM(**given)
        if not self._is_classifier and machine.stack[0].criterion != "mse":
            raise NfaError(f"criterion={self.criterion!r} needs labels of classes: choose 'mse'")
        if alone:
            machine.stack = tuple(replace(layer, leave_one_out=True) for layer in machine.stack)
        return machine

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer) and self.random_state >= 0:
            return int(self.random_state)  # so that numbers are those of nfa.RFM(seed=…)
        return int(check_random_state(self.random_state).randint(_LARGEST))

    def _folds(self, X: Any, y: Any, kept: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Indices among the samples that are kept; None where no folds are asked for."""
        if self.cv is None:
            return None
        n, labels = count(X), self._labels(y)
        splitter = check_cv(self.cv, labels, classifier=self._is_classifier)
        folds = splitter.split(np.zeros((n, 1)), labels)
        if kept is None:
            return [(np.asarray(own), np.asarray(held)) for own, held in folds]
        place = np.full(n, -1)
        place[kept] = np.arange(len(kept))
        found = ((place[own], place[held]) for own, held in folds)
        return [(own[own >= 0], held[held >= 0]) for own, held in found]

    def _held_out(
        self, machine: RFM, X: Tensor, y: Tensor, weights: Tensor | None, folds: list[Any]
    ) -> HeldOut:
        code = TargetCode.of(y)
        X = X if machine.device is None else X.to(machine.device)
        weights = None if weights is None else weights.to(X.device)
        return held_out(machine, X, code.columns(y, X), code, weights, folds)

    # ---- what differs --------------------------------------------------------------------------------------

    _is_classifier: ClassVar[bool]

    def _labels(self, y: Any) -> np.ndarray:
        """Targets as splitters take them."""
        raise NotImplementedError

    def _targets(self, y: Any, *, reset: bool) -> Tensor:
        """Targets as `nfa.RFM` takes them."""
        raise NotImplementedError

    def _finish(
        self,
        y: Tensor,
        validation: tuple[Tensor, Tensor] | None,
        held: HeldOut | None,
        weights: Tensor | None,
    ) -> None:
        """What comes after the fit."""

    # ---- what is fitted ------------------------------------------------------------------------------------

    def _scores(self, X: Any) -> Tensor:
        """Outputs (n, c) of the machine, where it is."""
        check_is_fitted(self)
        points = self._points(X)
        return self.machine_.scores(points.to(self.machine_.predictor.centers))

    def _importances(self) -> np.ndarray:
        diagonal = self.machine_.predictor.root().double().square().sum(1).cpu().numpy()
        if self.encoder_ is None:
            return diagonal
        sums = by_column(self.encoder_, diagonal.tolist())
        return np.array([sums[name] for name in self._columns])
