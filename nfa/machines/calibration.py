"""Probabilities from the scores of classes: a softmax at one temperature.

One number is fitted, so that the likeliest class is that of the largest score whatever the data. It is the β
of the least cross-entropy of ``softmax(β s)`` with labels that are a little in doubt, as if there were one
sample more for each class that could be of any: so classes that come apart do not make it infinite. (Platt's
targets, 1999, are this for two classes.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from nfa.checks import not_negative, told
from nfa.errors import NfaError
from nfa.machines.leave_one_out import leave_one_out
from nfa.machines.network import DeepNetwork, KernelNetwork

_HALVINGS = 100
_DOUBLINGS = 200


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it is worth.

    Attributes:
        beta: factor on scores before the softmax: one over the temperature; 0 where scores tell nothing.
        brier: mean squared distance of probabilities and classes, on the data that beta was fitted to: summed
            over the classes, or of one of them where there are two.
        source: which data these are.
    """

    beta: float
    brier: float
    source: str

    @classmethod
    def of(cls, scores: Tensor, classes: Tensor, source: str, weights: Tensor | None = None) -> "Calibration":
        """Fit to scores (n, c) of samples that were not learned from, and their classes (n,)."""
        S = scores.detach().double()
        w = S.new_ones(len(S)) if weights is None else weights.to(S)
        own = torch.nn.functional.one_hot(classes.to(S.device), S.shape[1]).to(S)
        share = S.shape[1] / (float(w.sum()) + S.shape[1])
        targets = (1 - share) * own + share / S.shape[1]

        def slope(beta: float) -> float:
            return float((((S * beta).softmax(1) - targets) * S).sum(1) @ w)

        beta = _root(slope)
        distances = ((S * beta).softmax(1) - own).square().sum(1) / (2 if S.shape[1] == 2 else 1)
        return cls(beta, float(distances @ w / w.sum()), source)

    @classmethod
    def of_network(cls, network: KernelNetwork | DeepNetwork) -> "Calibration":
        """Fit to the scores that the points a machine on points was fitted to have without themselves.

        Their classes are known from the fit: ``K a + ridge a`` are its targets.

        Raises:
            NfaError: there is no fit, or no room for these scores.
        """
        p, ridge = network.predictor(), float(network.tail.ridge)
        if p is None:
            raise NfaError("expected a fitted machine, got one before its first fit: fit it first")
        with torch.no_grad():
            Y = p.at(p.centers) + ridge * p.coefficients.to(p.centers)
            Y = Y if p.intercept is None else Y.double() + p.intercept
        (scores,) = leave_one_out(p, Y, [ridge])
        return cls.of(scores, Y.argmax(1), "leave-one-out scores")

    @classmethod
    def read(cls, state: Any) -> "Calibration":
        """What a file holds of one: ``beta``, ``brier`` and ``source``.

        Raises:
            NfaError: something else.
        """
        words = "a calibration must have beta and brier, numbers of 0 or more, and a source"
        if not isinstance(state, Mapping) or set(state) != {field.name for field in fields(cls)}:
            raise NfaError(f"{words}, got {told(state)}")
        if not isinstance(state["source"], str):
            raise NfaError(f"{words}, got {told(state['source'])}")
        numbers = {name: float(not_negative(name, state[name])) for name in ("beta", "brier")}
        return cls(source=state["source"], **numbers)

    def probabilities(self, scores: Tensor) -> Tensor:
        """(n, c), each row of the sum 1."""
        return (scores * self.beta).softmax(1)


def _root(slope: Callable[[float], float]) -> float:
    """Where a rising function crosses zero, from 0 on."""
    if slope(0.0) >= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_DOUBLINGS):
        if slope(high) >= 0:
            break
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2
