"""By what validation data choose: numbers that are lowest for the best outputs.

Each takes outputs (n, c), targets (n, c) and, where samples do not all count the same, their weights (n,).
"""

import math

import torch
from torch import Tensor


def mse(scores: Tensor, Y: Tensor, weights: Tensor | None = None) -> float:
    """Mean squared error of outputs (n, c); infinite where it is not finite."""
    error = float(_mean((scores - Y.to(scores)).double().square().mean(1), weights))
    return error if math.isfinite(error) else math.inf


def misclassified(scores: Tensor, Y: Tensor, weights: Tensor | None = None) -> float:
    """Share of samples whose largest output (n, c) is not that of their class, for one-hot columns Y."""
    return float(_mean((scores.argmax(1) != Y.argmax(1)).double(), weights))


def lost_auc(scores: Tensor, Y: Tensor, weights: Tensor | None = None) -> float:
    """One less the area under the ROC curve, mean over the classes that both occur and are not all there is.

    Each class is told from the others by its output less the mean of theirs; equal outputs count half. 0.5
    where no class can be told.
    """
    margins = scores.double() - (scores.sum(1, keepdim=True) - scores).double() / max(scores.shape[1] - 1, 1)
    counts, areas = scores.new_ones(len(scores), dtype=torch.float64) if weights is None else weights, []
    for margin, own in zip(margins.T, (Y > 0).T, strict=True):
        others = counts * ~own
        positive, negative = float(counts[own].sum()), float(others.sum())
        if positive and negative:
            values, place = margin.unique(return_inverse=True)
            at = counts.new_zeros(len(values)).index_add_(0, place, others)
            below = at.cumsum(0) - at / 2
            areas.append(float((counts * below[place])[own].sum()) / (positive * negative))
    return 1 - sum(areas) / len(areas) if areas else 0.5


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean() if weights is None else (values * weights).sum() / weights.sum()


CRITERIA = {"mse": mse, "accuracy": misclassified, "auc": lost_auc}
