"""A fitted kernel predictor: what one round of a machine leaves behind."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nfa.kernels import Metric, exact_products
from nfa.machines.offset import with_offset

if TYPE_CHECKING:
    from nfa.machines.kernel import Kernel


@dataclass(frozen=True)
class Predictor:
    """``f(x) = b + Σ_j a_j k(W (x - o), W (x_j - o))`` with ``M = WᵀW``.

    Attributes:
        kernel: k, with its one bandwidth.
        metric: M, by its root ``F = Wᵀ`` (d, k).
        centers: the training data as the kernel takes them: points (n, k) in coordinates of the metric, or
            images (n, c, h, w).
        coefficients: a, (n, c).
        offset: o (d,), which distances do not see: without it large means cost digits; None for none.
        points: the training points (n, d), while the centers are their images only up to rounding.
        intercept: b (c,) float64, the mean of the targets; None where that was not taken off.
        weights: of the training data (n,) float64, which all count the same for None; no part of f, they are
            what an update goes by.
        inputs: the training data (n, …) as they came, of which the centers may have lost what M does not see;
            like the weights. None where there is no update to come.
    """

    kernel: "Kernel"
    metric: Metric
    centers: Tensor
    coefficients: Tensor
    offset: Tensor | None = None
    points: Tensor | None = None
    intercept: Tensor | None = None
    weights: Tensor | None = None
    inputs: Tensor | None = None

    @exact_products()
    def __call__(self, X: Tensor, memory: float | None = None) -> Tensor:
        """Outputs (m, c) at inputs X (m, …), in the dtype of the centers.

        Args:
            X: inputs of the shape of those of the fit.
            memory: bytes for kernel values, some inputs at a time; None takes 80 % of what is free.
        """
        sums = self.at(self.coordinates(X), memory)
        return with_offset(sums, self.intercept).to(sums)

    def coordinates(self, X: Tensor) -> Tensor:
        """Inputs (m, …) in coordinates of the metric."""
        return self.kernel.coordinates(self.metric, X if self.offset is None else X - self.offset)

    def at(self, U: Tensor, memory: float | None = None) -> Tensor:
        """Outputs (m, c), without the intercept, at inputs in coordinates of the metric."""
        return self.kernel.product(self, U, memory)

    def weights_at(self, points: Tensor | None) -> Tensor | None:
        """Weights of some centers (m,), or of all; None where all count the same."""
        return self.weights if self.weights is None or points is None else self.weights[points]

    def settled(self) -> "Predictor":
        """The same with centers that equal the images of the training points to the last bit.

        Where a cusp of the kernel makes a difference: for gradients at training points.
        """
        if self.points is None:
            return self
        centers = self.points if self.offset is None else self.points - self.offset
        return replace(self, centers=self.kernel.coordinates(self.metric, centers), points=None)

    def root(self) -> Tensor:
        """F (d, k) as a matrix, also for the identity and a diagonal metric."""
        F = self.metric.root
        if F is None:
            like = self.centers if self.offset is None else self.offset
            d = self.kernel.width(self.centers.shape[1:])
            return torch.eye(d, dtype=like.dtype, device=like.device)
        return F.diag() if F.dim() == 1 else F

    @property
    def weight(self) -> Tensor:
        """W (k, d)."""
        return self.root().mT


def copies(X: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that equal an earlier one, and which: indices (q,) and (q,)."""
    words = X.contiguous().view(torch.int32)
    weights = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=torch.Generator().manual_seed(0))
    weights = (weights | 1).to(X.device)
    codes = torch.cat([(part.long() * weights).sum(1) for part in words.split(256)])  # exact, modulo 2^64
    sorted_codes, order = codes.sort(stable=True)
    again = (sorted_codes[1:] == sorted_codes[:-1]).nonzero()[:, 0] + 1
    if not len(again):
        return again, again
    starts = torch.searchsorted(sorted_codes, sorted_codes[again])
    later, first = order[again], order[starts]
    equal = (X[later] == X[first]).all(1)
    return later[equal], first[equal]
