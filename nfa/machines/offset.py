"""Regression without the level of the targets: their mean is taken off before a fit, and put back after it.

A kernel predictor has no intercept, so that to targets with a mean far from zero it fits little else. The
mean of each output is the intercept that ridge regression on centred targets has; with it, a machine fitted
to ``y + c`` predicts ``c`` more than one fitted to ``y``. The published recursions have none: ``none``.
"""

import torch
from torch import Tensor

OFFSETS = ("mean", "none")


def without_offset(
    offset: str, Y: Tensor, dtype: torch.dtype, weights: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Targets (n, c) in a dtype less their mean, taken off in float64, and this mean (c,) float64.

    For ``none`` the targets as they are, and None. Targets that are all equal become zero exactly.
    """
    if offset == "none":
        return Y.to(dtype), None
    first = Y[0].double()
    rest = Y.double() - first  # of the size of their spread, whatever their level
    mean = rest.mean(0) if weights is None else weights @ rest / weights.sum()
    return (rest - mean).to(dtype), first + mean


def with_offset(scores: Tensor, intercept: Tensor | None) -> Tensor:
    """Outputs (n, c) and the mean of the targets, in float64; without one as they are."""
    return scores if intercept is None else scores.double() + intercept


def intercept_or_none(intercept: Tensor) -> Tensor | None:
    """A stored intercept (c,), or None where there is none to add."""
    return intercept if bool(intercept.any()) else None
