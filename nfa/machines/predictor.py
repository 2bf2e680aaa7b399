"""A fitted kernel predictor: what one round of a recursive feature machine leaves behind."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nfa.kernels import Metric, RadialKernel, exact_products, kernel_product
from nfa.machines.offset import with_offset


@dataclass(frozen=True)
class Predictor:
    """``f(x) = b + Σ_j a_j k(‖Fᵀ(x - o) - u_j‖)`` with ``M = F Fᵀ``.

    Attributes:
        kernel: k, with its bandwidth.
        metric: M, by its root F (d, k).
        offset: o (d,), which distances do not see: without it large means cost digits.
        centers: u, the training points in the coordinates of the metric, (n, k).
        coefficients: a, (n, c).
        points: the training points (n, d), while the centers are their images only up to rounding.
        intercept: b (c,) float64, the mean of the targets; None where that was not taken off.
    """

    kernel: RadialKernel
    metric: Metric
    offset: Tensor
    centers: Tensor
    coefficients: Tensor
    points: Tensor | None = None
    intercept: Tensor | None = None

    @exact_products()
    def __call__(self, X: Tensor) -> Tensor:
        """Outputs (m, c) at points X (m, d)."""
        sums = self.at(self.metric.transform(X - self.offset))
        return with_offset(sums, self.intercept).to(sums)

    def at(self, U: Tensor) -> Tensor:
        """Outputs (m, c), without the intercept, at points in the coordinates of the metric, U (m, k)."""
        return kernel_product(self.kernel, U, self.centers, self.coefficients.to(U))

    def settled(self) -> "Predictor":
        """The same with centers that equal the images of the training points to the last bit.

        Where a cusp of the kernel makes a difference: for gradients at training points.
        """
        if self.points is None:
            return self
        return replace(self, centers=self.metric.transform(self.points - self.offset), points=None)

    def root(self) -> Tensor:
        """F (d, k) as a matrix, also for the identity and a diagonal metric."""
        F = self.metric.root
        if F is None:
            return torch.eye(len(self.offset), dtype=self.offset.dtype, device=self.offset.device)
        return F.diag() if F.dim() == 1 else F


def images(X: Tensor, metric: Metric) -> Tensor:
    """Points (n, d) in the coordinates of a metric (n, k): one product; equal points have equal images."""
    if metric.root is None:
        return X
    F = metric.root.to(X)
    if F.dim() == 1:
        return X * F
    U = X @ F
    later, first = copies(X)
    U[later] = U[first]
    return U


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
