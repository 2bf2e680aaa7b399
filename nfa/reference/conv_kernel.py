"""The convolutional kernel and its gradients the slow way: loops over positions, float64.

Gradients are propagated forwards, as numbers that carry their own (:class:`Dual`), so the rules at
``|rho| = 1`` and at zero patches stand in one place, :func:`relu`. The symbols are those of
`nfa.reference.conv_rfm`; `nfa.reference.conv_kernel_by_autograd` is the same kernel written a second time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nfa.errors import NfaError

FLAT = 1e-14
"""Where ``1 - rho^2`` is below this, rho is 1 or -1: kappa0 is so steep there that an error of 1e-16 in rho
would be one of 5e-9 in kappa0, and its infinite slope counts as 0."""

KINDS = ("ntk", "nngp")
HEADS = ("flatten", "pool")


# --- patches ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvKernel:
    """What the kernel is the limit of: ``depth`` convolutions of ``patch_size`` with ReLU, then a head.

    ``padding`` zeros go around the image, and ``stride`` lies between patches, at the first convolution
    only; the others are without padding, of stride 1. The head is linear on all positions (``flatten``:
    only equal positions of two images meet) or on their mean (``pool``: all pairs of positions meet). The
    kernel is the tangent kernel (``ntk``) or the covariance of the outputs (``nngp``).

    Raises :class:`NfaError` for a size below 1, a padding below 0, or an unknown kind or head.
    """

    patch_size: int
    depth: int = 1
    padding: int = 0
    stride: int = 1
    kind: Literal["ntk", "nngp"] = "ntk"
    head: Literal["flatten", "pool"] = "flatten"

    def __post_init__(self):
        one_of("kind", self.kind, KINDS)
        one_of("head", self.head, HEADS)
        if min(self.patch_size, self.depth, self.stride) < 1 or self.padding < 0:
            raise NfaError(
                "expected patch_size, depth and stride of at least 1 and padding of at least 0, got "
                f"{self.patch_size}, {self.depth}, {self.stride} and {self.padding}; change what is below"
            )


def patches(image: Tensor, patch_size: int, padding: int = 0, stride: int = 1) -> Tensor:
    """Patches of one image (c, h, w), zeros around it: (rows, columns, c patch_size^2)."""
    double("the image", image)
    channels, height, width = image.shape
    rows = (height + 2 * padding - patch_size) // stride + 1
    columns = (width + 2 * padding - patch_size) // stride + 1
    if min(height, width) + 2 * padding < patch_size:
        raise NfaError(
            f"expected images of at least {patch_size} pixels with their padding, got {height} x {width} "
            f"and padding {padding}; lower the patch size"
        )
    pixels, out = image.numpy(), np.zeros((rows, columns, channels * patch_size**2))
    for i in range(rows):
        for j in range(columns):
            d = 0
            for c in range(channels):
                for a in range(patch_size):
                    for b in range(patch_size):
                        y, x = i * stride + a - padding, j * stride + b - padding
                        if 0 <= y < height and 0 <= x < width:
                            out[i, j, d] = pixels[c, y, x]
                        d += 1
    return torch.from_numpy(out)


def convolve(image: Tensor, filters: Tensor, patch_size: int, padding: int = 0, stride: int = 1) -> Tensor:
    """``z_k(p) = <w_k, u_p>`` with filters (width, D) and no bias: (width, rows, columns)."""
    U = patches(image, patch_size, padding, stride)
    out = torch.zeros(len(filters), *U.shape[:2], dtype=torch.float64)
    for k in range(len(filters)):
        for i in range(U.shape[0]):
            for j in range(U.shape[1]):
                out[k, i, j] = torch.dot(filters[k], U[i, j])
    return out


# --- the kernel ------------------------------------------------------------------------------------------


class Dual:
    """A number and its gradient with respect to all entries of the patches of x."""

    __slots__ = ("slope", "value")

    def __init__(self, value: float, slope: np.ndarray) -> None:
        self.value, self.slope = value, slope

    def __add__(self, other: "Dual") -> "Dual":
        return Dual(self.value + other.value, self.slope + other.slope)

    def times(self, factor: float) -> "Dual":
        """Multiply by a constant."""
        return Dual(self.value * factor, self.slope * factor)


def relu(k: Dual, kxx: Dual, kzz: Dual, theta: Dual) -> tuple[Dual, Dual]:
    """Covariance and tangent kernel behind a ReLU times sqrt(2), of Gaussians with the covariance before.

    ``rho = k / sqrt(kxx kzz)``; ``k <- sqrt(kxx kzz) kappa1(rho)``; ``theta <- theta kappa0(rho)``;
    ``kappa0 = (pi - acos rho)/pi``, ``kappa1 = (sqrt(1 - rho^2) + (pi - acos rho) rho)/pi``. Slopes:
    ``kappa1' = kappa0`` and ``kappa0' = 1/(pi sqrt(1 - rho^2))``. Where ``1 - rho^2 < FLAT`` (self pairs,
    patches that two images share, opposite patches): ``rho = 1`` or ``-1`` and ``kappa0' = 0``. Where a
    variance is 0 (zero patches): ``rho = 0``, so k and theta are 0 with the slopes ``kappa0(0) dk`` and
    ``kappa0(0) dtheta``.
    """
    if kxx.value == 0 or kzz.value == 0:
        return Dual(0.0, 0.5 * k.slope), theta.times(0.5)
    size = math.sqrt(kxx.value) * math.sqrt(kzz.value)
    d_size = 0.5 * size * (kxx.slope / kxx.value + kzz.slope / kzz.value)
    rho = k.value / size
    end = 1 - rho**2 < FLAT
    rho = math.copysign(1.0, rho) if end else rho
    d_rho = k.slope / size - rho * d_size / size
    angle = math.pi - math.acos(rho)
    kappa0, kappa1 = angle / math.pi, (math.sqrt(1 - rho**2) + angle * rho) / math.pi
    d_kappa0 = 0.0 if end else 1 / (math.pi * math.sqrt(1 - rho**2))
    return (
        Dual(size * kappa1, d_size * kappa1 + size * kappa0 * d_rho),
        Dual(theta.value * kappa0, theta.slope * kappa0 + theta.value * d_kappa0 * d_rho),
    )


def patch_kernel(
    U: Tensor, V: Tensor, channels: int, kernel: ConvKernel, T: Tensor | None = None, *, slopes: bool = True
) -> Dual:
    """``k(x, z)`` of patches U, V (rows, columns, D), with its gradient (rows columns D,) by U.

    First layer: ``k(p, q) = <T u_p, T v_q> / c``, likewise ``kxx(p)`` and ``kzz(q)``, ``theta = k``. Then
    :func:`relu`; and before each further one ``k <- sum k(p + shift, q + shift)`` over the shifts of a
    ps x ps window, likewise kxx and kzz, and ``theta <- k + sum theta(p + shift, q + shift)`` (k the new
    one). At last the mean of ``k + theta`` (``ntk``) or of ``k`` (``nngp``) over p = q (``flatten``) or over
    all p and q (``pool``). Without ``slopes`` the gradient is empty.
    """
    rows, columns, D = U.shape
    if min(rows, columns) <= (kernel.depth - 1) * (kernel.patch_size - 1):
        raise NfaError(
            f"expected images that {kernel.depth} convolutions of {kernel.patch_size} leave something of, "
            f"got {rows} x {columns} positions after the first; lower depth or patch size"
        )
    M = np.eye(D) if T is None else T.numpy().T @ T.numpy()
    u, v = U.reshape(-1, D).numpy(), V.reshape(-1, D).numpy()

    def product(a: np.ndarray, b: np.ndarray, moves: int | None = None, factor: int = 1) -> Dual:
        """``<T a, T b> / c``; its slope by patch number ``moves``, which is a, ``factor`` times by it."""
        slope = np.zeros((len(u) if slopes else 0, D))
        if slopes and moves is not None:
            slope[moves] = factor * (M @ b) / channels
        return Dual(float(a @ M @ b) / channels, slope.ravel())

    at = {divmod(i, columns): i for i in range(len(u))}  # (row, column): number of the patch
    kxx = {p: product(u[i], u[i], i, 2) for p, i in at.items()}
    kzz = {q: product(v[j], v[j]) for q, j in at.items()}
    pairs = [(p, q) for p in at for q in at if p == q or kernel.head == "pool"]
    theta = k = {(p, q): product(u[at[p]], v[at[q]], at[p]) for p, q in pairs}
    for layer in range(kernel.depth):
        if layer > 0:
            k, theta = _window_pairs(k, kernel.patch_size), _window_pairs(theta, kernel.patch_size)
            theta = {pair: k[pair] + theta[pair] for pair in k}
            kxx, kzz = _windows(kxx, kernel.patch_size), _windows(kzz, kernel.patch_size)
        both = {(p, q): relu(k[p, q], kxx[p], kzz[q], theta[p, q]) for p, q in k}
        k, theta = ({pair: value[which] for pair, value in both.items()} for which in (0, 1))
    total = _sum([k[pair] + theta[pair] if kernel.kind == "ntk" else k[pair] for pair in k])
    return total.times(1 / len(k))


def _windows(at: dict, ps: int) -> dict:
    """``sum_(a, b) at(i + a, j + b)`` wherever the ps x ps window lies inside."""
    out = {}
    for i, j in at:
        window = [(i + a, j + b) for a in range(ps) for b in range(ps)]
        if all(p in at for p in window):
            out[i, j] = _sum([at[p] for p in window])
    return out


def _window_pairs(at: dict, ps: int) -> dict:
    """``sum_(a, b) at((i + a, j + b), (m + a, n + b))`` wherever both windows lie inside."""
    out = {}
    for (i, j), (m, n) in at:
        window = [((i + a, j + b), (m + a, n + b)) for a in range(ps) for b in range(ps)]
        if all(pair in at for pair in window):
            out[(i, j), (m, n)] = _sum([at[pair] for pair in window])
    return out


def _sum(terms: list[Dual]) -> Dual:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def kernel_value(x: Tensor, z: Tensor, kernel: ConvKernel, T: Tensor | None = None) -> float:
    """``k(x, z)`` of two images (c, h, w) of one shape."""
    return patch_kernel(_cut(x, kernel), _cut(z, kernel), len(x), kernel, T, slopes=False).value


def kernel_gradient(x: Tensor, z: Tensor, kernel: ConvKernel, T: Tensor | None = None) -> Tensor:
    """Gradient of ``k(x, z)`` by the untransformed patches of x, z held fixed: (rows, columns, D).

    For ``z = x`` too, where it is half the gradient of ``k(x, x)``.
    """
    U = _cut(x, kernel)
    return torch.from_numpy(patch_kernel(U, _cut(z, kernel), len(x), kernel, T).slope.reshape(U.shape))


def kernel_matrix(X: Tensor, Z: Tensor, kernel: ConvKernel, T: Tensor | None = None) -> Tensor:
    """``K_ij = k(x_i, z_j)`` of images (n, c, h, w) and (m, c, h, w), one pair at a time: (n, m)."""
    K = torch.zeros(len(X), len(Z), dtype=torch.float64)
    for i in range(len(X)):
        for j in range(len(Z)):
            K[i, j] = kernel_value(X[i], Z[j], kernel, T)
    return K


def _cut(image: Tensor, kernel: ConvKernel) -> Tensor:
    return patches(image, kernel.patch_size, kernel.padding, kernel.stride)


# --- small helpers ---------------------------------------------------------------------------------------


def double(what: str, array: Tensor) -> None:
    """Refuse what is not float64."""
    if array.dtype != torch.float64:
        raise NfaError(f"expected float64 for {what}, got {array.dtype}; convert with .double()")


def one_of(what: str, value: str | None, allowed: Sequence[str | None]) -> None:
    """Refuse a value that is none of these."""
    if value not in allowed:
        raise NfaError(
            f"expected {what} to be one of {', '.join(map(str, allowed))}, got {value!r}; choose one of these"
        )
