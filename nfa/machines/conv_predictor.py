"""A fitted convolutional kernel predictor: what one round of a convolutional machine leaves behind."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.checks import floats
from nfa.errors import NfaError
from nfa.kernels.conv import ConvKernel, check_images
from nfa.kernels.operator import wide_product
from nfa.machines.offset import with_offset
from nfa.machines.patch_agop import patch_agop
from nfa.machines.predictor import copies
from nfa.solvers import room


@dataclass(frozen=True)
class ConvPredictor:
    """``f(x) = b + Σ_j a_j k_T(x, x_j)``.

    Attributes:
        kernel: k, as it is, not divided by its largest value.
        transform: T (D, D), applied to every patch; None for the identity.
        centers: the training images (n, c, h, w).
        coefficients: a, (n, outputs).
        intercept: b (outputs,) float64, the mean of the targets; None where that was not taken off.
    """

    kernel: ConvKernel
    transform: Tensor | None
    centers: Tensor
    coefficients: Tensor
    intercept: Tensor | None = None

    def __call__(self, X: Tensor, memory: float | None = None) -> Tensor:
        """Outputs (m, outputs) at images X (m, c, h, w), in the dtype of the centers.

        Args:
            X: images of the size of the centers.
            memory: bytes for kernel values, some images at a time; None takes 80 % of what is free.
        """
        X = checked_images(X, self.centers.shape[1:]).to(self.centers)
        n, size = len(self.centers), X.itemsize
        rows = int(min(max(room(X.device, memory) / 2 / (n * size), 1), len(X)))
        parts = [self.kernel.matrix(part, self.centers, self.transform) for part in X.split(rows)]
        sums = torch.cat([wide_product(K, self.coefficients.to(K)) for K in parts])
        return with_offset(sums, self.intercept).to(sums)

    def root(self) -> Tensor:
        """T (D, D) as a matrix, also for the identity."""
        if self.transform is not None:
            return self.transform
        D = self.centers.shape[1] * self.kernel.patch_size**2
        return torch.eye(D, dtype=self.centers.dtype, device=self.centers.device)

    def agop(self, points: Tensor, same: Tensor | None = None) -> Tensor:
        """AGOP (D, D) float64 with respect to patches: mean over images, sum over positions and outputs.

        Args:
            points: images (m, c, h, w).
            same: (m,), which center each image is, -1 for none; None looks for them.
        """
        points = checked_images(points, self.centers.shape[1:]).to(self.centers)
        same = matches(points, self.centers) if same is None else same
        return patch_agop(self.kernel, points, self.centers, self.coefficients, self.transform, same=same)


def matches(points: Tensor, centers: Tensor) -> Tensor:
    """For each point (m, …) the first center (n, …) that equals it to the last bit, -1 for none: (m,)."""
    n = len(centers)
    later, first = copies(torch.cat([centers, points.to(centers)]).flatten(1))
    found = torch.full((len(points),), -1, device=centers.device)
    known = (later >= n) & (first < n)
    found[later[known] - n] = first[known]
    return found


def unless_identity(T: Tensor) -> Tensor | None:
    """T (D, D), or None where it is the identity."""
    return None if bool((T == torch.eye(len(T)).to(T)).all()) else T


def checked_images(X: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """Images (n, c, h, w), detached, known to be finite.

    Raises:
        NfaError: something else, or images of another size than those of the fit.
    """
    X = floats("images", X, "(n, channels, height, width)")
    check_images("X", X)
    if shape is not None and X.shape[1:] != shape:
        raise NfaError(f"expected images of shape {tuple(shape)}, as in the fit, got {tuple(X.shape[1:])}")
    return X
