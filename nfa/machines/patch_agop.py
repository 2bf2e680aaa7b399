"""The average gradient outer product of a convolutional kernel predictor with respect to patches, exactly.

For ``f_c(x) = Σ_j a_jc k(x, x_j)`` and images x_i whose patches count as inputs of their own,

    G = 1/m Σ_i Σ_c Σ_p r rᵀ,   r = ∂f_c(x_i)/∂(patch p of x_i)   (D, D),

which is what a convolutional recursive feature machine sets M to (Beaglehole, Radhakrishnan, Pandit and
Belkin, arXiv 2309.00570). Gradients come from `nfa.kernels.conv_gradient`, all classes from one sweep.
"""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from nfa.kernels.conv import ConvKernel, check_alike, check_images, check_transform
from nfa.kernels.conv_gradient import check_coefficients, each_gradient
from nfa.kernels.conv_span import shorter
from nfa.kernels.conv_workers import cores
from nfa.kernels.precision import exact_products


def patch_agop(
    kernel: ConvKernel,
    points: Tensor,
    centers: Tensor,
    coefficients: Tensor,
    transform: Tensor | None = None,
    *,
    same: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """AGOP (D, D) of ``dtype`` with respect to untransformed patches: mean over points, sum over the rest.

    G depends on the coefficients through ``a aᵀ`` alone, so that more classes than centers cost no more than
    as many. Gradients are held for some points at a time.

    Args:
        kernel: of the predictor.
        points: images (m, c, H, W), float32 or float64.
        centers: images (n, c, H, W).
        coefficients: a, (n, classes).
        transform: T (k, D) that the predictor multiplies patches by; None for the identity.
        same: (m,), for each point the index of the center that is the same image, -1 if none is; None means
            that none is, or, where points and centers are one tensor, that each is its own. Such a pair
            contributes ½∇k(x, x).
        dtype: of the sweep; float32 takes half the time and loses digits where patches are nearly parallel.
        progress: called with the pairs of images that are done, and with their total.

    Raises:
        NfaError: arguments that do not belong together, or are not finite.
    """
    check_images("points", points)
    T = check_transform(transform, points, kernel.patch_size)
    a = check_coefficients(coefficients, centers)
    check_alike(points, centers)
    with exact_products(), cores(points.device):
        T = shorter(T, points, centers, kernel.shape(points))
    if a.shape[1] > len(a):
        a = torch.linalg.qr(a.double().mT, mode="r").R.mT  # (n, n), with the same a aᵀ
    size = points.shape[1] * kernel.patch_size**2 if T is None else len(T)
    total = _Total(points.new_zeros(size, size, dtype=dtype), len(points))
    each_gradient(total.add, kernel, points, centers, a, T, same=same, dtype=dtype, progress=progress)
    G = total.G / len(points)
    if T is not None:
        T = T.to(dtype)
        G = T.mT @ G @ T
    return (G + G.mT) / 2


class _Total:
    """A sum of outer products that come from several threads, in one order: the same to the last bit."""

    def __init__(self, G: Tensor, points: int):
        self.G, self._points = G, points
        self._next = (0, 0)  # the class and point that the sum has come to
        self._early: dict[tuple[int, int], tuple[Tensor, tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def add(self, rows: slice, classes: slice, gradients: Tensor) -> None:
        """Add what some points and classes contribute, (h, w, points, classes, k)."""
        R = gradients.reshape(-1, len(self.G))
        outer = R.mT @ R
        after = (classes.start, rows.stop) if rows.stop < self._points else (classes.stop, 0)
        with self._lock:
            self._early[classes.start, rows.start] = outer, after
            while self._next in self._early:
                outer, self._next = self._early.pop(self._next)
                self.G += outer
