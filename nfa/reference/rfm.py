"""Recursive feature machines the slow way: loops over points and outputs, float64, explicit differences.

Everything here follows the printed formulas line by line and shares no code with the package, so that a
fast implementation has something independent to agree with. Sizes are meant to be tiny (n up to about 20).

Symbols: ``X`` (n, d) centers, ``Y`` (n, C) targets, ``alpha`` (n, C) coefficients, ``M`` (d, d) symmetric
Mahalanobis matrix, ``L`` bandwidth, ``r`` the distance ``||x - z||_M``. All tensors are float64 on the CPU.

* predictor   ``f_c(x) = sum_j alpha_jc k(x, x_j)``, ``alpha = (K + ridge I)^-1 Y`` (ridge not scaled by n)
* AGOP        ``A = (1/m) sum_i sum_c (grad f_c(x_i) - mean)(grad f_c(x_i) - mean)^T`` over m points
* recursion   ``M <- normalise(A^s)``, beginning at the identity
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nfa.errors import NfaError

SKIP_BELOW = 1e-10
"""Pairs nearer than this (in the distance of M) leave a kernel with a cusp out of the gradient."""

KERNELS = ("laplace", "gaussian", "matern12", "matern32", "matern52", "power")
CENTRINGS = ("none", "output", "pooled")
NORMALISATIONS = ("none", "max", "trace")

Centring = Literal["none", "output", "pooled"]
Normalisation = Literal["none", "max", "trace"]


# --- kernels ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """A radial kernel of ``r = sqrt((x - z)^T M (x - z))``.

    ========== =========================================================
    laplace    ``exp(-r/L)``
    gaussian   ``exp(-r^2 / (2 L^2))``
    matern12   ``exp(-r/L)``
    matern32   ``(1 + a) exp(-a)``, ``a = sqrt(3) r/L``
    matern52   ``(1 + a + a^2/3) exp(-a)``, ``a = sqrt(5) r/L``
    power      ``exp(-(r/L)^q)``, ``0 < q <= 2``
    ========== =========================================================

    Raises :class:`NfaError` for an unknown name, ``L <= 0`` or a ``q`` outside (0, 2].
    """

    name: str
    L: float
    q: float = 1.0

    def __post_init__(self):
        one_of("kernel", self.name, KERNELS)
        if not self.L > 0:
            raise NfaError(f"expected a bandwidth L above 0, got {self.L}; give the scale of the distances")
        if not 0 < self.q <= 2:
            raise NfaError(
                f"expected an exponent q in (0, 2], got {self.q}; others are not positive definite"
            )


def distance(x: Tensor, z: Tensor, M: Tensor) -> float:
    """``sqrt(max(0, (x - z)^T M (x - z)))`` from the explicit difference of two vectors (d,)."""
    v = x - z
    return math.sqrt(max(0.0, torch.dot(v, M @ v).item()))


def kernel_value(kernel: Kernel, x: Tensor, z: Tensor, M: Tensor) -> float:
    """``k(x, z)``; formulas at :class:`Kernel`."""
    r, L = distance(x, z, M), kernel.L
    if kernel.name in ("laplace", "matern12"):
        return math.exp(-r / L)
    if kernel.name == "gaussian":
        return math.exp(-(r**2) / (2 * L**2))
    if kernel.name == "matern32":
        a = math.sqrt(3) * r / L
        return (1 + a) * math.exp(-a)
    if kernel.name == "matern52":
        a = math.sqrt(5) * r / L
        return (1 + a + a**2 / 3) * math.exp(-a)
    return math.exp(-((r / L) ** kernel.q))


def skips_near_pairs(kernel: Kernel) -> bool:
    """Whether ``k'(r)/r`` has no limit at r = 0, so that pairs below :data:`SKIP_BELOW` are dropped."""
    return kernel.name in ("laplace", "matern12") or (kernel.name == "power" and kernel.q < 2)


def kernel_gradient(kernel: Kernel, x: Tensor, z: Tensor, M: Tensor) -> Tensor:
    """Gradient of ``k(x, z)`` with respect to x, ``(k'(r) / r) M (x - z)``, (d,); M must be symmetric.

    ========== ==========================================
    laplace    ``-exp(-r/L) / (L r)``
    gaussian   ``-exp(-r^2 / (2 L^2)) / L^2``
    matern12   as laplace
    matern32   ``-(3 / L^2) exp(-a)``
    matern52   ``-(5 / (3 L^2)) (1 + a) exp(-a)``
    power      ``-q r^(q-2) / L^q exp(-(r/L)^q)``
    ========== ==========================================

    Zero where :func:`skips_near_pairs` holds and ``r < 1e-10``.
    """
    r, L, q = distance(x, z, M), kernel.L, kernel.q
    if skips_near_pairs(kernel) and r < SKIP_BELOW:
        return torch.zeros_like(x)
    if kernel.name in ("laplace", "matern12"):
        slope = -math.exp(-r / L) / (L * r)
    elif kernel.name == "gaussian":
        slope = -math.exp(-(r**2) / (2 * L**2)) / L**2
    elif kernel.name == "matern32":
        a = math.sqrt(3) * r / L
        slope = -3 / L**2 * math.exp(-a)
    elif kernel.name == "matern52":
        a = math.sqrt(5) * r / L
        slope = -5 / (3 * L**2) * (1 + a) * math.exp(-a)
    else:
        slope = -q * r ** (q - 2) / L**q * math.exp(-((r / L) ** q))
    return slope * (M @ (x - z))


def kernel_matrix(kernel: Kernel, X: Tensor, Z: Tensor, M: Tensor) -> Tensor:
    """``K_ij = k(x_i, z_j)``, one pair at a time, (n, m)."""
    K = torch.zeros(len(X), len(Z), dtype=torch.float64)
    for i in range(len(X)):
        for j in range(len(Z)):
            K[i, j] = kernel_value(kernel, X[i], Z[j], M)
    return K


# --- the predictor ---------------------------------------------------------------------------------------


def fit(X: Tensor, Y: Tensor, kernel: Kernel, ridge: float, M: Tensor) -> Tensor:
    """``alpha = (K + ridge I)^-1 Y``, (n, C); ``Y`` may be (n,), one output. Ridge is not scaled by n."""
    for what, array in (("X", X), ("Y", Y), ("M", M)):
        if array.dtype != torch.float64:
            raise NfaError(f"expected float64 for {what}, got {array.dtype}; convert with .double()")
    K = kernel_matrix(kernel, X, X, M)
    return torch.linalg.solve(K + ridge * torch.eye(len(X), dtype=torch.float64), _columns(Y))


def predict(points: Tensor, X: Tensor, alpha: Tensor, kernel: Kernel, M: Tensor) -> Tensor:
    """``f_c(x) = sum_j alpha_jc k(x, x_j)`` at points (m, d), (m, C). There is no intercept."""
    F = torch.zeros(len(points), alpha.shape[1], dtype=torch.float64)
    for i in range(len(points)):
        for j in range(len(X)):
            k = kernel_value(kernel, points[i], X[j], M)
            for c in range(alpha.shape[1]):
                F[i, c] += alpha[j, c] * k
    return F


def predictor_gradient(x: Tensor, X: Tensor, alpha: Tensor, kernel: Kernel, M: Tensor) -> Tensor:
    """``grad f_c(x) = sum_j alpha_jc grad_x k(x, x_j)`` at one point (d,), (C, d)."""
    g = torch.zeros(alpha.shape[1], len(x), dtype=torch.float64)
    for j in range(len(X)):
        dk = kernel_gradient(kernel, x, X[j], M)
        for c in range(alpha.shape[1]):
            g[c] += alpha[j, c] * dk
    return g


def difference_gradient(
    x: Tensor, X: Tensor, alpha: Tensor, kernel: Kernel, M: Tensor, step: float = 1e-6
) -> Tensor:
    """``(f_c(x + h e_k) - f_c(x - h e_k)) / (2 h)``: what :func:`predictor_gradient` must be, (C, d)."""
    g = torch.zeros(alpha.shape[1], len(x), dtype=torch.float64)
    for k in range(len(x)):
        h = torch.zeros_like(x)
        h[k] = step
        up = predict((x + h)[None], X, alpha, kernel, M)[0]
        down = predict((x - h)[None], X, alpha, kernel, M)[0]
        g[:, k] = (up - down) / (2 * step)
    return g


# --- AGOP and the update of M ----------------------------------------------------------------------------


def gradients(points: Tensor, X: Tensor, alpha: Tensor, kernel: Kernel, M: Tensor) -> Tensor:
    """:func:`predictor_gradient` at each of m points, (m, C, d)."""
    return torch.stack([predictor_gradient(x, X, alpha, kernel, M) for x in points])


def agop(
    points: Tensor, X: Tensor, alpha: Tensor, kernel: Kernel, M: Tensor, centring: Centring = "none"
) -> Tensor:
    """``(1/m) sum_i sum_c (g_ic - mean)(g_ic - mean)^T``, a mean over points and a sum over outputs, (d, d).

    The mean is 0 (``none``), ``(1/m) sum_i g_ic`` of each output (``output``), or the one vector
    ``(1/(m C)) sum_i sum_c g_ic`` (``pooled``).
    """
    one_of("centring", centring, CENTRINGS)
    G = gradients(points, X, alpha, kernel, M)
    m, C, d = G.shape
    mean = torch.zeros(C, d, dtype=torch.float64)
    for i in range(m):
        for c in range(C):
            if centring == "output":
                mean[c] += G[i, c] / m
            elif centring == "pooled":
                for other in range(C):
                    mean[other] += G[i, c] / (m * C)
    A = torch.zeros(d, d, dtype=torch.float64)
    for i in range(m):
        for c in range(C):
            A += torch.outer(G[i, c] - mean[c], G[i, c] - mean[c])
    return A / m


def matrix_power(A: Tensor, s: float) -> Tensor:
    """``A^s = sum_k max(0, lambda_k)^s u_k u_k^T`` of the symmetric part of A, (d, d)."""
    values, vectors = torch.linalg.eigh((A + A.T) / 2)
    P = torch.zeros_like(A)
    for k in range(len(A)):
        P += max(0.0, values[k].item()) ** s * torch.outer(vectors[:, k], vectors[:, k])
    return P


def update(
    A: Tensor, power: float = 1.0, normalise: Normalisation = "none", *, diagonal: bool = False
) -> Tensor:
    """``M = A^s``, divided by nothing, its largest entry or its trace, (d, d).

    The power comes first, so the returned M has largest entry (or trace) 1. ``diagonal`` keeps the
    diagonal of A only, before the power. A zero matrix stays zero.
    """
    one_of("normalise", normalise, NORMALISATIONS)
    if diagonal:
        A = torch.diag(torch.diag(A))
    M = matrix_power(A, power)
    scale = {"none": 1.0, "max": M.max().item(), "trace": torch.trace(M).item()}[normalise]
    return M / scale if scale > 0 else M


# --- the recursion ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rounds:
    """What each of the T + 1 fits used and gave; entry 0 is the plain kernel, entry T the final fit."""

    M: list[Tensor]  # (d, d)
    alpha: list[Tensor]  # (n, C)
    residual: list[Tensor]  # (n, C), Y - f(X)
    prediction: list[Tensor]  # (n_test, C), f(X_test)


def run_rfm(
    X: Tensor,
    Y: Tensor,
    X_test: Tensor,
    kernel: Kernel,
    ridge: float,
    rounds: int,
    *,
    M: Tensor | None = None,
    centring: Centring = "none",
    power: float = 1.0,
    normalise: Normalisation = "none",
    diagonal: bool = False,
    points: Tensor | None = None,
) -> Rounds:
    """T times: fit with M, AGOP at ``points`` (default X), M <- update; then one last fit with the last M.

    ``M`` begins as the identity unless given. Nothing is selected: every round comes back.
    """
    M = torch.eye(X.shape[1], dtype=torch.float64) if M is None else M
    points = X if points is None else points
    out = Rounds([], [], [], [])
    for t in range(rounds + 1):
        alpha = fit(X, Y, kernel, ridge, M)
        out.M.append(M)
        out.alpha.append(alpha)
        out.residual.append(_columns(Y) - predict(X, X, alpha, kernel, M))
        out.prediction.append(predict(X_test, X, alpha, kernel, M))
        if t < rounds:
            M = update(agop(points, X, alpha, kernel, M, centring), power, normalise, diagonal=diagonal)
    return out


# --- Deep RFM --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """Random features with given draws: ``W`` (D, d), ``b`` (D,).

    ``relu``: ``max(0, w_k . x + b_k)``; ``laplace``: ``sqrt(2/D) cos(w_k . x + b_k)``.
    """

    kind: Literal["relu", "laplace"]
    W: Tensor
    b: Tensor


def draw_relu(d: int, width: int, generator: torch.Generator) -> Features:
    """Weights and biases of a default linear layer: uniform in ``+-1/sqrt(d)``."""
    bound = 1 / math.sqrt(d)
    W = (2 * torch.rand(width, d, dtype=torch.float64, generator=generator) - 1) * bound
    b = (2 * torch.rand(width, dtype=torch.float64, generator=generator) - 1) * bound
    return Features("relu", W, b)


def draw_laplace(
    d: int, width: int, gamma: float, generator: torch.Generator, *, norm: Literal[1, 2] = 2
) -> Features:
    """Cauchy frequencies of scale gamma, uniform phases: ``E phi(x) . phi(z) = exp(-gamma ||x - z||_norm)``.

    Euclidean norm: ``w = gamma u / |v|``, u normal in R^d and v one normal number (joint Cauchy). Norm 1:
    every coordinate its own Cauchy number, ``w_k = gamma u_k / |v_k|``.
    """
    if norm not in (1, 2):
        raise NfaError(f"expected norm 1 (independent frequencies) or 2 (joint), got {norm}; choose one")
    W = torch.zeros(width, d, dtype=torch.float64)
    for k in range(width):
        u = torch.randn(d, dtype=torch.float64, generator=generator)
        v = torch.randn(1 if norm == 2 else d, dtype=torch.float64, generator=generator)
        W[k] = gamma * u / v.abs()
    phase = 2 * math.pi * torch.rand(width, dtype=torch.float64, generator=generator)
    return Features("laplace", W, phase)


def map_features(X: Tensor, features: Features) -> Tensor:
    """``Phi(x)`` of each row, (n, D); formulas at :class:`Features`."""
    D = len(features.W)
    Phi = torch.zeros(len(X), D, dtype=torch.float64)
    for i in range(len(X)):
        for k in range(D):
            z = (torch.dot(features.W[k], X[i]) + features.b[k]).item()
            Phi[i, k] = max(0.0, z) if features.kind == "relu" else math.sqrt(2 / D) * math.cos(z)
    return Phi


def unit_rows(X: Tensor) -> Tensor:
    """Each row divided by its Euclidean norm; a zero row stays zero."""
    out = torch.zeros_like(X)
    for i in range(len(X)):
        norm = math.sqrt(sum(v.item() ** 2 for v in X[i]))
        out[i] = X[i] / norm if norm > 0 else X[i]
    return out


def signed_one_hot(labels: Sequence[int], classes: int) -> Tensor:
    """+1 at the label, -1 elsewhere, (n, C)."""
    Y = -torch.ones(len(labels), classes, dtype=torch.float64)
    for i, label in enumerate(labels):
        Y[i, label] = 1.0
    return Y


@dataclass(frozen=True)
class DeepLayer:
    """One layer of Deep RFM, its three feature matrices on the training and on the test points."""

    X: Tensor  # (n, d) rows of unit norm
    alpha: Tensor  # (n, C)
    M: Tensor  # (d, d), AGOP of the plain kernel fit over its largest entry
    root: Tensor  # (n, d), M^(1/2) x
    Phi: Tensor  # (n, D), features of M^(1/2) x
    X_test: Tensor
    root_test: Tensor
    Phi_test: Tensor


def deep_rfm(
    X: Tensor, Y: Tensor, X_test: Tensor, kernel: Kernel, layers: Sequence[Features], ridge: float = 0.0
) -> list[DeepLayer]:
    """Layer by layer: unit rows; one fit with M = I; ``M = AGOP / max``; ``x -> Phi(M^(1/2) x)``.

    ``Y`` (n, C) are the labels of every layer (:func:`signed_one_hot`); AGOP is uncentred, over the
    training points. ``layers`` hold the random draws: layer 0 takes d features, layer l those of l - 1.
    A ReLU layer too narrow can send two points to parallel rows: K is then singular and ridge 0 raises.
    """
    out = []
    for features in layers:
        X, X_test = unit_rows(X), unit_rows(X_test)
        eye = torch.eye(X.shape[1], dtype=torch.float64)
        alpha = fit(X, Y, kernel, ridge, eye)
        M = update(agop(X, X, alpha, kernel, eye), normalise="max")
        R = matrix_power(M, 0.5)
        root = torch.stack([R @ x for x in X])
        root_test = torch.stack([R @ x for x in X_test])
        Phi, Phi_test = map_features(root, features), map_features(root_test, features)
        out.append(DeepLayer(X, alpha, M, root, Phi, X_test, root_test, Phi_test))
        X, X_test = Phi, Phi_test
    return out


# --- small helpers ---------------------------------------------------------------------------------------


def _columns(Y: Tensor) -> Tensor:
    return Y[:, None] if Y.ndim == 1 else Y


def one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of these."""
    if value not in allowed:
        raise NfaError(
            f"expected {what} to be one of {', '.join(allowed)}, got {value!r}; choose one of these"
        )
