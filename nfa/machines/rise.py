"""Whether what a round has learned does harm, where no validation data tell it.

A training error that rises is no proof: a metric that drops directions of noise no longer fits the noise.
So where it rises above that of round 0, halves of the training data tell: coefficients are fitted to each
half with what the round has learned and with what round 0 had, and predict the other half.
"""

import math
import warnings

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels import Metric
from nfa.machines.criteria import mse
from nfa.machines.layer import Layer
from nfa.machines.offset import without_offset

_POINTS = 600  # of the training data, at most
_FEWEST = 20  # from which halves tell anything
_SURE = 2.0  # standard errors
_RISES = 1 + 1e-3
_ROUNDING = 1e-8  # of the variance of the targets


class Rise:
    """Rounds of a layer without validation data, against its first.

    Args:
        layer: what fits.
        X: what comes into it, at the training samples.
        Y: their targets (n, c).
        weights: of these samples (n,); None where all count the same.
    """

    def __init__(self, layer: Layer, X: Tensor, Y: Tensor, weights: Tensor | None = None):
        self._layer, self._X, self._Y, self._weights = layer, X, Y, weights
        self._first_error: float | None = None
        self._first_halves: Tensor | None = None

    def check(self, index: int, metric: Metric, train_error: float) -> None:
        """Take a fitted round.

        Args:
            index: of the round.
            metric: with which it was fitted.
            train_error: mean squared error at the training points.

        Raises:
            NfaError: the training error has risen, and predictions have become worse.
        """
        if index == 0:
            self._first_error = train_error
            return
        if len(self._X) < _FEWEST or not self._rises(train_error):
            return
        halves = self._halves(metric)
        if self._first_halves is None:
            self._first_halves = self._halves(Metric.identity())
        if halves is None or self._first_halves is None:
            return
        worse = halves - self._first_halves
        if float(worse.mean()) > _SURE * float(worse.std()) / math.sqrt(len(worse)):
            rose = "" if self._first_error is None else f" from {self._first_error:.3g} in round 0"
            raise NfaError(
                f"the training error rose{rose} to {train_error:.3g}, and halves of the training data "
                f"predict each other with an error of {float(halves.mean()):.3g} where it was "
                f"{float(self._first_halves.mean()):.3g}: what was learned does harm. Give validation data, "
                "another bandwidth or a smaller ridge"
            )

    def _rises(self, train_error: float) -> bool:
        if self._first_error is None:  # not known where a fit was gone on with
            return True
        spread, _ = without_offset("mean", self._Y, torch.float64, self._weights)
        variance = mse(spread, torch.zeros_like(spread), self._weights)
        return train_error > _RISES * self._first_error + _ROUNDING * variance

    def _halves(self, metric: Metric) -> Tensor | None:
        """Squared errors of each point, predicted from the half that it is not in; None where that fails.

        In the mean of weighted points each counts with its weight, of which the mean is 1.
        """
        n, generator = len(self._X), torch.Generator().manual_seed(self._layer.solver.seed)
        chosen = torch.randperm(n, generator=generator)[:_POINTS].to(self._X.device)
        left, right = chosen.tensor_split(2)
        errors = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the round itself has given those that count
                for own, other in ((left, right), (right, left)):
                    held_out = self._X[other], self._Y[other]
                    weights = None if self._weights is None else self._weights[own]
                    fit = self._layer.fit(metric, self._X[own], self._Y[own], held_out, weights=weights)
                    assert fit.val_scores is not None  # of the half held out
                    error = (fit.val_scores.double() - held_out[1].double()).square().sum(1)
                    errors.append(error if self._weights is None else error * self._weights[other])
        except (NfaError, torch.OutOfMemoryError):
            return None
        both = torch.cat(errors)
        return both if self._weights is None else both / self._weights[chosen].mean()
