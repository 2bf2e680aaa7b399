"""Classification by a recursive feature machine, with probabilities."""

import warnings
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from nfa.errors import NfaError
from nfa.machines.calibration import Calibration
from nfa.machines.leave_one_out import leave_one_out
from nfa.machines.target_code import TargetCode
from nfa.sklearn.base import RFMEstimator
from nfa.sklearn.data import as_given, labels_of, plain_array
from nfa.sklearn.rounds import HeldOut


class RFMClassifier(ClassifierMixin, RFMEstimator):
    """Kernel ridge regression on classes with a distance that is learned from its own gradients.

    Data, options and attributes are those of `RFMRegressor`; labels are numbers, texts or bools.

    Probabilities are a softmax of the scores at one temperature, fitted to validation data or held-out folds
    where there are any, else to the scores that each training sample has without itself, in closed form. The
    metric has learned from these samples: such probabilities are too sure, and their Brier score is too
    small, the more so the noisier the labels.

    Args:
        **options: as of `RFMRegressor`, ``kernel_options`` and ``cv`` too.

    Attributes:
        classes_: the labels, in the order of the columns of probabilities.
        calibration_: ``beta`` (one over the temperature), ``brier`` (score on the data it was fitted to) and
            ``source`` (which these were); None where there was no room for it.
        brier_score_: that score.

    Example:
        >>> from nfa.sklearn import RFMClassifier
        >>> X, y = [[0.0], [1.0], [4.0], [5.0]], ["low", "low", "high", "high"]
        >>> RFMClassifier(bandwidth=2.0, rounds=1).fit(X, y).predict([[0.5], [4.5]]).tolist()
        ['low', 'high']
    """

    _is_classifier = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Learn M, the coefficients and the temperature; see `RFMRegressor.fit`.

        Args:
            X: (n, d).
            y: labels (n,).
            sample_weight: (n,) of 0 or more.
            X_val: validation data.
            y_val: their labels, none that y does not have.

        Raises:
            NfaError: data or options that do not belong together, or one class only; it is a ValueError.

        Warns:
            UserWarning: there is no room for leave-one-out scores, and so no probabilities.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    def predict(self, X: Any) -> Any:
        """Labels (n,): a tensor for a tensor, unless they are texts."""
        best = self._scores(X).argmax(1)
        labels = self.classes_[best.cpu().numpy()]
        if isinstance(X, Tensor) and labels.dtype.kind in "biuf":
            return torch.from_numpy(labels).to(X.device)
        return labels

    def decision_function(self, X: Any) -> Any:
        """Scores (n, classes); of two classes by how much the second one is ahead, (n,)."""
        scores = self._scores(X)
        return as_given(scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores, X)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities (n, classes)."""
        check_is_fitted(self)
        if self.calibration_ is None:
            raise NfaError("there was no room to calibrate probabilities: fit with X_val and y_val")
        return as_given(self.calibration_.probabilities(self._scores(X)), X)

    def predict_log_proba(self, X: Any) -> Any:
        """Their logarithms."""
        found = self.predict_proba(X)
        return found.log() if isinstance(found, Tensor) else np.log(found)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of labels that are predicted."""
        weights = plain_array(sample_weight)
        return float(accuracy_score(plain_array(y), plain_array(self.predict(X)), sample_weight=weights))

    def _labels(self, y: Any) -> np.ndarray:
        labels = column_or_1d(labels_of(self, y), warn=True)
        check_classification_targets(labels)
        return labels

    def _targets(self, y: Any, *, reset: bool) -> Tensor:
        labels = self._labels(y)
        if reset:
            self.classes_ = np.unique(labels)
            if len(self.classes_) < 2:
                raise NfaError(
                    f"{type(self).__name__} needs samples of two classes or more, got one class, "
                    f"{self.classes_.tolist()[0]!r}"
                )
        strange = np.setdiff1d(labels, self.classes_)
        if len(strange):
            raise NfaError(f"expected labels of the training data in y_val, got {strange.tolist()[0]!r}")
        return torch.from_numpy(np.searchsorted(self.classes_, labels))

    def _finish(
        self,
        y: Tensor,
        validation: tuple[Tensor, Tensor] | None,
        held: HeldOut | None,
        weights: Tensor | None,
    ) -> None:
        """Find the temperature."""
        machine = self.machine_
        self.calibration_: Calibration | None
        if held is not None:
            scores, rows = held.scores[held.best_round], held.samples
            w = None if weights is None else weights.to(rows.device)[rows]
            self.calibration_ = Calibration.of(scores, y.to(rows.device)[rows], "held-out folds", w)
        elif validation is not None and not machine.refit:
            self.calibration_ = Calibration.of(
                machine.scores(validation[0]), validation[1], "validation data"
            )
        else:
            self.calibration_ = self._apart(y if validation is None else torch.cat([y, validation[1]]))
        self.brier_score_ = None if self.calibration_ is None else self.calibration_.brier

    def _apart(self, y: Tensor) -> Calibration | None:
        """By the scores that each sample has without itself; None where there is no room for them."""
        machine, predictor = self.machine_, self.machine_.predictor
        y, ridge = y.to(predictor.centers.device), machine.history[machine.best_round]["ridge"]
        Y = TargetCode.of(y).columns(y, predictor.centers)
        try:
            (scores,) = leave_one_out(predictor, Y, [ridge], machine.stack[0].solver.memory)
        except NfaError as error:
            warnings.warn(f"no probabilities: {error}", UserWarning, stacklevel=5)
            return None
        return Calibration.of(scores, y, "leave-one-out scores", predictor.weights)
