"""Regression by a recursive feature machine."""

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from torch import Tensor

from nfa.sklearn.base import RFMEstimator
from nfa.sklearn.data import as_given, numbers_of, plain_array


class RFMRegressor(RegressorMixin, RFMEstimator):
    """Kernel ridge regression with a distance that is learned from its own gradients (arXiv 2212.13881).

    X is an array, a list of lists, a tensor (also on a GPU, where it stays and predictions are returned), or
    a DataFrame. A DataFrame of numbers is taken as it is; one with columns of text, categories or dates is
    encoded: numbers standardised, texts one-hot, gaps filled and marked (`nfa.inputs.tables`).

    Args:
        **options: those of `nfa.RFM`, of the same values; ``random_state`` for its seed. Where ``bandwidth``
            or ``ridge`` are several, each round takes those with the least closed-form leave-one-out error,
            or the least error on validation data where these are given.
        kernel_options: those of the kernel, such as ``{"nu": 1.5}`` of ``matern``.
        cv: folds, a number or a splitter, that are held out to choose the round; the machine is then fitted
            to all samples. None takes the last round, or the best on validation data.

    Attributes:
        machine_: the fitted `nfa.RFM`, with ``M``, ``history`` and ``network()``.
        n_features_in_: number of columns.
        feature_names_in_: their names, of a DataFrame.
        feature_importances_: the diagonal of M by column, those of one-hot inputs added up; it depends on the
            units of a column unless that was standardised.
        encoder_: of a DataFrame that had to be encoded; else None.
        cv_errors_: mean error of each round on what was held out; else None.

    Example:
        >>> from nfa.sklearn import RFMRegressor
        >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0]
        >>> RFMRegressor(bandwidth=2.0, rounds=1).fit(X, y).predict([[1.0]]).shape
        (1,)
    """

    _is_classifier = False

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Learn M and the coefficients.

        Args:
            X: (n, d).
            y: numbers (n,) or (n, outputs).
            sample_weight: (n,) of 0 or more: a sample of weight 2 counts as two, one of weight 0 is not
                there.
            X_val: validation data, which choose the round, and bandwidth and ridge where there are several.
            y_val: their targets.

        Raises:
            NfaError: data or options that do not belong together; it is a ValueError.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    def predict(self, X: Any) -> Any:
        """Numbers in the shape of the targets."""
        scores = self._scores(X)
        return as_given(scores[:, 0] if self._flat else scores, X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² of the predictions."""
        weights = plain_array(sample_weight)
        return float(r2_score(plain_array(y), plain_array(self.predict(X)), sample_weight=weights))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _labels(self, y: Any) -> np.ndarray:
        return numbers_of(self, y)

    def _targets(self, y: Any, *, reset: bool) -> Tensor:
        y = numbers_of(self, y)
        if reset:
            self._flat = y.ndim == 1
        return torch.from_numpy(np.array(y))
