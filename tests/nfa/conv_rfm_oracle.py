"""Convolutional kernel machines the slow way: loops over images, positions and classes, float64.

Everything here follows the printed formulas and shares no code with the package, so that a fast
implementation has something independent to agree with. Sizes are meant to be tiny: a handful of images of
5 to 9 pixels. Gradients are propagated forwards, as numbers that carry their own (:class:`Dual`), so the
rules at ``|rho| = 1`` and at zero patches stand in one place, :func:`relu`.

Symbols: an image is (c, h, w); ``u_p`` in R^D, ``D = c ps ps``, is its patch at position p, entries in the
order (channel, row, column), as ``torch.nn.functional.unfold`` gives them; ``T`` (D, D) transforms patches,
``u <- T u``; ``Y`` (n, C) are targets. Tensors that come in and go out are float64 on the CPU.

* kernel     convolutional NTK of [conv, ReLU] * depth, flatten (or average), linear: :func:`patch_kernel`
* predictor  ``f_c(x) = sum_j alpha_jc k(x, x_j) / s``, ``s = max K_train``, ``alpha = (K/s + ridge I)^-1 Y``
* AGOP       ``G = (1/m) sum_i sum_c sum_p (df_c/du_p)(df_c/du_p)^T`` over m images; ``u_p`` untransformed,
             every patch a variable of its own; nothing is centred
* recursion  ``T <- G^(1/2) / ||G^(1/2)||_F`` (``root``) or ``T <- G / ||G||_F`` (``plain``), from ``T = I``

The published code differentiates ``sum_j alpha_jc k(x, x_j)``, without s: its G is s^2 times this one, T the
same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
UPDATES = ("root", "plain")
SCORES = ("accuracy", "mse")
NONLINEARITIES = (None, "relu")

Update = Literal["root", "plain"]
Score = Literal["accuracy", "mse"]


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
        _one_of("kind", self.kind, KINDS)
        _one_of("head", self.head, HEADS)
        if min(self.patch_size, self.depth, self.stride) < 1 or self.padding < 0:
            raise NfaError(
                "expected patch_size, depth and stride of at least 1 and padding of at least 0, got "
                f"{self.patch_size}, {self.depth}, {self.stride} and {self.padding}; change what is below"
            )


def patches(image: Tensor, patch_size: int, padding: int = 0, stride: int = 1) -> Tensor:
    """Patches of one image (c, h, w), zeros around it: (rows, columns, c patch_size^2)."""
    _double("the image", image)
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


# --- the predictor ---------------------------------------------------------------------------------------


def fit(K: Tensor, Y: Tensor, ridge: float) -> tuple[Tensor, float]:
    """``alpha = (K/s + ridge I)^-1 Y``, (n, C), and ``s = max K`` (1 where K is 0 throughout)."""
    _double("Y", Y)
    scale = K.max().item()
    scale = scale if scale > 0 else 1.0
    return torch.linalg.solve(K / scale + ridge * torch.eye(len(K), dtype=torch.float64), Y), scale


def predict(K: Tensor, alpha: Tensor, scale: float) -> Tensor:
    """``f_c(x_i) = sum_j alpha_jc K_ij / s`` from K (m, n) of new images and centers: (m, C)."""
    F = torch.zeros(len(K), alpha.shape[1], dtype=torch.float64)
    for i in range(len(K)):
        for c in range(alpha.shape[1]):
            for j in range(len(alpha)):
                F[i, c] += alpha[j, c] * K[i, j] / scale
    return F


def predictor_gradient(
    x: Tensor, X: Tensor, alpha: Tensor, scale: float, kernel: ConvKernel, T: Tensor | None = None
) -> Tensor:
    """``df_c/du_p = sum_j alpha_jc dk(x, x_j)/du_p / s`` at one image: (C, rows, columns, D)."""
    out = [0.0] * alpha.shape[1]
    for j in range(len(X)):
        dk = kernel_gradient(x, X[j], kernel, T)
        for c in range(alpha.shape[1]):
            out[c] = out[c] + alpha[j, c] * dk / scale
    return torch.stack(out)


def agop(
    images: Tensor, X: Tensor, alpha: Tensor, scale: float, kernel: ConvKernel, T: Tensor | None = None
) -> Tensor:
    """``(1/m) sum_i sum_c sum_p (df_c/du_p)(df_c/du_p)^T`` over m images: (D, D)."""
    G = 0.0
    for x in images:
        gradient = predictor_gradient(x, X, alpha, scale, kernel, T)
        for c in range(gradient.shape[0]):
            for i in range(gradient.shape[1]):
                for j in range(gradient.shape[2]):
                    G = G + torch.outer(gradient[c, i, j], gradient[c, i, j]) / len(images)
    return G


def matrix_root(G: Tensor) -> Tensor:
    """``G^(1/2) = sum_k sqrt(max(0, lambda_k)) v_k v_k^T``."""
    values, vectors = torch.linalg.eigh((G + G.T) / 2)
    R = torch.zeros_like(G)
    for k in range(len(G)):
        R += math.sqrt(max(0.0, values[k].item())) * torch.outer(vectors[:, k], vectors[:, k])
    return R


def next_transform(G: Tensor, update: Update = "root") -> Tensor:
    """``G^(1/2)`` (``root``) or ``G`` (``plain``) over its Frobenius norm; a zero matrix stays zero."""
    _one_of("update", update, UPDATES)
    T = matrix_root(G) if update == "root" else G
    norm = torch.linalg.norm(T).item()
    return T / norm if norm > 0 else T


# --- ConvRFM ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rounds:
    """What each of the R + 1 fits used and gave; entry 0 is the plain kernel, entry R the final fit."""

    T: list[Tensor]  # (D, D); the identity in entry 0
    K: list[Tensor]  # (n, n), not divided by its maximum
    scale: list[float]  # max K
    ridge: list[float]  # the chosen one
    alpha: list[Tensor]  # (n, C), of the chosen ridge
    agop: list[Tensor]  # (D, D), R of them: entry t made T of entry t + 1
    prediction: list[Tensor]  # (n_test, C), f(X_test)
    val_prediction: list[Tensor]  # (n_val, C), empty without validation images
    val_score: list[list[float]]  # of every ridge, higher is better; empty without validation images

    @property
    def best(self) -> int:
        """First round of the highest validation score of its chosen ridge."""
        scores = [max(of_round) for of_round in self.val_score]
        return scores.index(max(scores))


def score(prediction: Tensor, Y: Tensor, kind: Score = "accuracy") -> float:
    """Share of rows whose largest entry is where that of Y is (``accuracy``), or ``-mse``."""
    _one_of("score", kind, SCORES)
    if kind == "mse":
        return -sum(v.item() ** 2 for v in (prediction - Y).flatten()) / prediction.numel()
    return sum(p.argmax().item() == y.argmax().item() for p, y in zip(prediction, Y, strict=True)) / len(Y)


def run_conv_rfm(
    X: Tensor,
    Y: Tensor,
    X_test: Tensor,
    kernel: ConvKernel,
    ridge: float | Sequence[float],
    rounds: int,
    *,
    X_val: Tensor | None = None,
    Y_val: Tensor | None = None,
    select: Score = "accuracy",
    images: int = 20,
    update: Update = "root",
    agop_ridge: Literal["chosen", "last"] = "chosen",
) -> Rounds:
    """R times: fit with T, AGOP at the first ``images`` training images, T <- update; then one last fit.

    Of several ridges, the first of the highest score on the validation images is chosen in each round anew.
    The published code passes its test images for validation, and takes the AGOP of the fit with the last
    ridge, whichever was chosen (``agop_ridge="last"``).
    """
    ridges = list(ridge) if isinstance(ridge, Sequence) else [ridge]
    if len(ridges) > 1 and X_val is None:
        raise NfaError(f"expected validation images to choose from {len(ridges)} ridges, got none; give one")
    T = torch.eye(X.shape[1] * kernel.patch_size**2, dtype=torch.float64)
    out = Rounds([], [], [], [], [], [], [], [], [])
    for t in range(rounds + 1):
        K = kernel_matrix(X, X, kernel, T)
        fits = [fit(K, Y, r) for r in ridges]
        scale, chosen = fits[0][1], 0
        if X_val is not None:
            K_val = kernel_matrix(X_val, X, kernel, T)
            outputs = [predict(K_val, alpha, scale) for alpha, _ in fits]
            scores = [score(output, Y_val, select) for output in outputs]
            chosen = scores.index(max(scores))
            out.val_score.append(scores)
            out.val_prediction.append(outputs[chosen])
        alpha = fits[chosen][0]
        out.T.append(T)
        out.K.append(K)
        out.scale.append(scale)
        out.ridge.append(ridges[chosen])
        out.alpha.append(alpha)
        out.prediction.append(predict(kernel_matrix(X_test, X, kernel, T), alpha, scale))
        if t < rounds:
            used = fits[-1][0] if agop_ridge == "last" else alpha
            out.agop.append(agop(X[:images], X, used, scale, kernel, T))
            T = next_transform(out.agop[-1], update)
    return out


# --- Deep ConvRFM ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeepLayer:
    """One layer of Deep ConvRFM: its images, the rounds on them, and the filters that make the next."""

    X: Tensor  # (n, c, h, w)
    X_val: Tensor
    X_test: Tensor
    rounds: Rounds
    best: int  # the round whose T shapes the filters
    filters: Tensor | None  # (width, D); None in the last layer


def deep_conv_rfm(
    X: Tensor,
    Y: Tensor,
    X_val: Tensor,
    Y_val: Tensor,
    X_test: Tensor,
    kernel: ConvKernel,
    ridge: float | Sequence[float],
    rounds: int,
    draws: Sequence[Tensor],
    *,
    nonlinearity: Literal["relu"] | None = None,
    conv_stride: int = 1,
    select: Score = "accuracy",
    images: int = 20,
    update: Update = "root",
    agop_ridge: Literal["chosen", "last"] = "chosen",
) -> list[DeepLayer]:
    """ConvRFM; the T of its best round on validation; random filters; convolution; again, one less deep.

    ``draws`` hold standard normal numbers (width, D), one a convolution; layer 0 sees ``kernel.depth``
    convolutions, layer l ``kernel.depth - l``. Filters are ``draws M^(1/2)`` with ``M = T^2``, so
    ``M^(1/2) = T``; no scale of them changes a prediction, as K is divided by its maximum. The convolution
    has the patch size and padding of the kernel; nothing but ``nonlinearity`` (nothing, as published) comes
    after. Published: test images for validation; a default convolution where the first round is the best,
    here T = I.
    """
    _one_of("nonlinearity", nonlinearity, NONLINEARITIES)
    if len(draws) >= kernel.depth:
        raise NfaError(
            f"expected fewer draws than kernel.depth={kernel.depth}, got {len(draws)}: each takes one "
            "convolution away, and one has to stay; raise depth"
        )
    out = []
    for layer in range(len(draws) + 1):
        shallower = replace(kernel, depth=kernel.depth - layer)
        result = run_conv_rfm(
            X, Y, X_test, shallower, ridge, rounds,
            X_val=X_val, Y_val=Y_val, select=select, images=images, update=update, agop_ridge=agop_ridge,
        )  # fmt: skip
        filters = draws[layer] @ result.T[result.best] if layer < len(draws) else None
        out.append(DeepLayer(X, X_val, X_test, result, result.best, filters))
        if filters is not None:
            X, X_val, X_test = (
                features(x, filters, kernel, nonlinearity, conv_stride) for x in (X, X_val, X_test)
            )
    return out


def features(
    X: Tensor, filters: Tensor, kernel: ConvKernel, nonlinearity: Literal["relu"] | None, stride: int = 1
) -> Tensor:
    """:func:`convolve` each image of X (n, c, h, w), then ``max(0, z)`` if wanted."""
    Z = torch.stack([convolve(x, filters, kernel.patch_size, kernel.padding, stride) for x in X])
    return torch.where(Z > 0, Z, 0.0) if nonlinearity == "relu" else Z


# --- small helpers ---------------------------------------------------------------------------------------


def _double(what: str, array: Tensor) -> None:
    if array.dtype != torch.float64:
        raise NfaError(f"expected float64 for {what}, got {array.dtype}; convert with .double()")


def _one_of(what: str, value: str | None, allowed: Sequence[str | None]) -> None:
    if value not in allowed:
        raise NfaError(
            f"expected {what} to be one of {', '.join(map(str, allowed))}, got {value!r}; choose one of these"
        )
