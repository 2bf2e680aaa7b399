"""Neural collapse: how far the features of a class are one point, and those points a simplex.

Papyan, Han and Donoho (PNAS 2020) name the two measures; the scale is that of Beaglehole, Súkeník, Mondelli
and Belkin (arXiv 2402.13728). Neither changes under rotations, shifts and one scale of all features.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.checks import choice
from nfa.errors import NfaError
from nfa.kernels.spans import spans

DIVISORS = ("n", "Cn")
_ENTRIES = 2**24  # of features in float64 at a time


@dataclass(frozen=True)
class ClassMeans:
    """What NC1 and NC2 are made of, in float64.

    Attributes:
        centered: mean of each class that occurs, without the mean of those means, (C, d).
        within: sum of all squared distances of a feature to the mean of its class.
        samples: n.
    """

    centered: Tensor
    within: float
    samples: int

    @classmethod
    def of(cls, H: Tensor, labels: Tensor) -> "ClassMeans":
        """The means of features H (n, d) with class indices (n,).

        Raises:
            NfaError: shapes that do not belong together, or fewer than two classes.
        """
        if H.dim() != 2 or labels.shape != H.shape[:1] or labels.is_floating_point():
            raise NfaError(
                f"expected features (n, d) and class indices (n,), got {tuple(H.shape)} and {labels.dtype} "
                f"{tuple(labels.shape)}"
            )
        names, index = torch.unique(labels.to(H.device), return_inverse=True)
        if len(names) < 2:
            raise NfaError(f"neural collapse needs features of two classes or more, got {len(names)}")
        with torch.no_grad():
            sums = torch.zeros(len(names), H.shape[1], dtype=torch.float64, device=H.device)
            parts = list(spans(len(H), max(_ENTRIES // max(H.shape[1], 1), 1)))
            for rows in parts:
                sums.index_add_(0, index[rows], H[rows].double())
            means = sums / torch.bincount(index)[:, None]
            within = sum(float((H[rows].double() - means[index[rows]]).square().sum()) for rows in parts)
            return cls(means - means.mean(0), within, len(H))

    def nc1(self, divisor: str = "n") -> float:
        """See `nc1`."""
        C = len(self.centered)
        within = self.within / (self.samples * (C if choice("divisor", divisor, DIVISORS) == "Cn" else 1))
        between = float(self.centered.square().sum()) / C
        if between == 0:
            return math.inf if within > 0 else math.nan
        return within / between

    def nc2(self) -> float:
        """See `nc2`."""
        C = len(self.centered)
        directions = self.centered / self.centered.norm(dim=1, keepdim=True)
        simplex = torch.full((C, C), -1 / (C - 1), dtype=torch.float64, device=directions.device)
        simplex.fill_diagonal_(1.0)
        return float((directions @ directions.mT - simplex).square().mean())


def nc1(H: Tensor, labels: Tensor, divisor: str = "n") -> float:
    """Variability within classes over that between them, ``tr Σ_W / tr Σ_B``; 0 for collapsed classes.

    ``Σ_B = (1/C) Σ_c (μ_c - μ)(μ_c - μ)ᵀ`` with μ the mean of the class means, and
    ``Σ_W = (1/n) Σ_i (h_i - μ_y(i))(…)ᵀ`` over n samples of C classes. The published code of Deep RFM divides
    by ``C n`` in its place, which makes the number C times smaller.

    Args:
        H: features (n, d).
        labels: class indices (n,); the classes are those that occur.
        divisor: of Σ_W: ``n``, or ``Cn`` as in that code.

    Returns:
        Infinity where all class means are one point, NaN where all features are.

    Raises:
        NfaError: shapes that do not belong together, or fewer than two classes.
    """
    return ClassMeans.of(H, labels).nc1(divisor)


def nc2(H: Tensor, labels: Tensor) -> float:
    """Distance of the class means from a simplex: mean squared entry of ``Gram - ETF``; 0 for a simplex.

    ``Gram_ab = cos(μ_a - μ, μ_b - μ)``, and ``ETF = (1 + 1/(C-1)) I - 11ᵀ/(C-1)`` is 1 on the diagonal and
    ``-1/(C-1)`` off it. Two classes are always a simplex.

    Args:
        H: features (n, d).
        labels: class indices (n,); the classes are those that occur.

    Returns:
        NaN where a class mean is the mean of all, which has no direction.

    Raises:
        NfaError: shapes that do not belong together, or fewer than two classes.
    """
    return ClassMeans.of(H, labels).nc2()
