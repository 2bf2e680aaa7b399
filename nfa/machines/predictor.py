"""A fitted kernel predictor: what one round of a recursive feature machine leaves behind."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.kernels import Metric, RadialKernel, kernel_product


@dataclass(frozen=True)
class Predictor:
    """``f(x) = Σ_j a_j k(‖Fᵀx - u_j‖)`` with ``M = F Fᵀ``.

    Attributes:
        kernel: k, with its bandwidth.
        metric: M, by its root F (d, k).
        centers: u, the training points in the coordinates of the metric, (n, k).
        coefficients: a, (n, c).
    """

    kernel: RadialKernel
    metric: Metric
    centers: Tensor
    coefficients: Tensor

    def __call__(self, X: Tensor) -> Tensor:
        """Outputs (m, c) at points X (m, d)."""
        return self.at(self.metric.transform(X))

    def at(self, U: Tensor) -> Tensor:
        """Outputs (m, c) at points in the coordinates of the metric, U (m, k)."""
        return kernel_product(self.kernel, U, self.centers, self.coefficients.to(U))

    def root(self, in_features: int) -> Tensor:
        """F (d, k) as a matrix, also for the identity and a diagonal metric."""
        F = self.metric.root
        if F is None:
            return torch.eye(in_features, dtype=self.centers.dtype, device=self.centers.device)
        return F.diag() if F.dim() == 1 else F
