"""By what validation data choose: numbers that are lowest for the best outputs."""

import math

from torch import Tensor


def mse(scores: Tensor, Y: Tensor) -> float:
    """Mean squared error of outputs (n, c); infinite where it is not finite."""
    error = float((scores - Y.to(scores)).double().square().mean())
    return error if math.isfinite(error) else math.inf


def misclassified(scores: Tensor, Y: Tensor) -> float:
    """Share of samples whose largest output (n, c) is not that of their class, for one-hot columns Y."""
    return float((scores.argmax(1) != Y.argmax(1)).double().mean())


def lost_auc(scores: Tensor, Y: Tensor) -> float:
    """One less the area under the ROC curve, mean over the classes that both occur and are not all there is.

    Each class is told from the others by its output less the mean of theirs; equal outputs count half. 0.5
    where no class can be told.
    """
    margins = scores.double() - (scores.sum(1, keepdim=True) - scores).double() / max(scores.shape[1] - 1, 1)
    areas = []
    for margin, own in zip(margins.T, (Y > 0).T, strict=True):
        positive, negative = int(own.sum()), int((~own).sum())
        if positive and negative:
            _, place, counts = margin.unique(return_inverse=True, return_counts=True)
            ranks = counts.cumsum(0) - (counts - 1) / 2  # means over equal ones
            above = float(ranks[place][own].sum()) - positive * (positive + 1) / 2
            areas.append(above / (positive * negative))
    return 1 - sum(areas) / len(areas) if areas else 0.5


CRITERIA = {"mse": mse, "accuracy": misclassified, "auc": lost_auc}
