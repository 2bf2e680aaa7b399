"""How sensitive the outputs are to each direction of a layer, over how much W amplifies it."""

import math
from dataclasses import dataclass

from torch import Tensor

from nfa.ansatz.exponent import weighted_points
from nfa.ansatz.pair import FeaturePair


@dataclass(frozen=True)
class Scatter:
    """The points behind the alignment and the exponent of a layer, each axis over its mean.

    Attributes:
        amplified: ``σᵢ²`` of the directions in the range of W, descending, (n,) float64.
        sensitive: ``uᵢᵀCuᵢ`` of the same directions, (n,).
        alpha: the fitted exponent; NaN where there is none.
        level: logarithm of the fitted line where ``σ²`` is at its mean.
        chance: standard deviation of a point by chance, C rotated at random; the mean is 1.
    """

    amplified: Tensor
    sensitive: Tensor
    alpha: float
    level: float
    chance: float

    @property
    def slope(self) -> float:
        """Of the fitted line on logarithmic axes."""
        return 1 / self.alpha - 1 if self.alpha else math.nan


def scatter_of(pair: FeaturePair) -> Scatter | None:
    """The points of a layer; None where it has fewer than two directions, or C is zero there."""
    keep = pair.squared_singular_values > 0
    amplified, sensitive = pair.squared_singular_values[keep], pair.inside_diagonal[keep]
    if len(amplified) < 2 or not float(sensitive.sum()) > 0:
        return None
    order = amplified.argsort(descending=True)
    amplified, sensitive = (v[order].cpu() / float(v.mean()) for v in (amplified, sensitive))
    alpha, _ = pair.alpha_fit()
    return Scatter(amplified, sensitive, alpha, _level(amplified, sensitive, alpha), pair.direction_std)


def _level(amplified: Tensor, sensitive: Tensor, alpha: float) -> float:
    """The line of the fitted slope goes through the mean of the points that it was fitted to."""
    if math.isnan(alpha):
        return math.nan
    some = sensitive > 0
    x, y, weight = weighted_points(amplified[some], sensitive[some])
    return float((weight * (y - (1 / alpha - 1) * x)).sum() / weight.sum())
