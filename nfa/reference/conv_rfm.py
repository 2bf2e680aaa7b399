"""Convolutional kernel machines the slow way: loops over images, positions and classes, float64.

Everything here follows the printed formulas and shares no code with the package, so that a fast
implementation has something independent to agree with. Sizes are meant to be tiny: a handful of images of
5 to 9 pixels.

Symbols: an image is (c, h, w); ``u_p`` in R^D, ``D = c ps ps``, is its patch at position p, entries in the
order (channel, row, column), as ``torch.nn.functional.unfold`` gives them; ``T`` (D, D) transforms patches,
``u <- T u``; ``Y`` (n, C) are targets. Tensors that come in and go out are float64 on the CPU.

* kernel     convolutional NTK of [conv, ReLU] * depth, flatten (or average), linear: see `conv_kernel`
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

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.reference.conv_kernel import ConvKernel, convolve, double, kernel_gradient, kernel_matrix, one_of

UPDATES = ("root", "plain")
SCORES = ("accuracy", "mse")
NONLINEARITIES = (None, "relu")

Update = Literal["root", "plain"]
Score = Literal["accuracy", "mse"]


# --- the predictor ---------------------------------------------------------------------------------------


def fit(K: Tensor, Y: Tensor, ridge: float) -> tuple[Tensor, float]:
    """``alpha = (K/s + ridge I)^-1 Y``, (n, C), and ``s = max K`` (1 where K is 0 throughout)."""
    double("Y", Y)
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
    out = [torch.zeros((), dtype=torch.float64)] * alpha.shape[1]
    for j in range(len(X)):
        dk = kernel_gradient(x, X[j], kernel, T)
        for c in range(alpha.shape[1]):
            out[c] = out[c] + alpha[j, c] * dk / scale
    return torch.stack(out)


def agop(
    images: Tensor, X: Tensor, alpha: Tensor, scale: float, kernel: ConvKernel, T: Tensor | None = None
) -> Tensor:
    """``(1/m) sum_i sum_c sum_p (df_c/du_p)(df_c/du_p)^T`` over m images: (D, D)."""
    G = torch.zeros((), dtype=torch.float64)
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
    one_of("update", update, UPDATES)
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
    one_of("score", kind, SCORES)
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
            assert Y_val is not None, "validation images come with their targets"
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
    one_of("nonlinearity", nonlinearity, NONLINEARITIES)
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
