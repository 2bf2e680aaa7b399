"""FACT the slow way: what a linear map in front of a kernel predictor is where the fit is stationary.

Symbols as in `nfa.reference.rfm`: ``X`` (n, d), ``alpha`` (n, C), ``M`` (d, d), all float64. In kernel ridge
regression ``Y - f(X) = ridge · alpha``, so that the ridge drops out of ``-(1/(n ridge)) Σ_i ∂l_i/∂x_i x_iᵀ``:

* FACT        ``(1/n) sum_i sum_c alpha_ic grad f_c(x_i) x_i^T``
* radial      ``M <- normalise((FACT FACT^T)^s)``
* inner       ``M <- normalise((FACT M)^s)``
"""

import torch
from torch import Tensor

from nfa.reference import rfm


def fact(X: Tensor, alpha: Tensor, gradients: Tensor) -> Tensor:
    """``(1/n) sum_i sum_c alpha_ic g_ic x_i^T`` for gradients g (n, C, d) at the training points, (d, d)."""
    F = torch.zeros(X.shape[1], X.shape[1], dtype=torch.float64)
    for i in range(len(X)):
        for c in range(alpha.shape[1]):
            F += alpha[i, c] * torch.outer(gradients[i, c], X[i])
    return F / len(X)


def inner_matrix(X: Tensor, Z: Tensor, M: Tensor, degree: int) -> Tensor:
    """``K_ij = (x_i^T M z_j)^degree``, (n, m)."""
    K = torch.zeros(len(X), len(Z), dtype=torch.float64)
    for i in range(len(X)):
        for j in range(len(Z)):
            K[i, j] = torch.dot(X[i], M @ Z[j]) ** degree
    return K


def inner_gradients(points: Tensor, X: Tensor, alpha: Tensor, M: Tensor, degree: int) -> Tensor:
    """``grad f_c(x) = sum_j alpha_jc degree (x^T M x_j)^(degree - 1) M x_j`` at each point, (m, C, d)."""
    G = torch.zeros(len(points), alpha.shape[1], X.shape[1], dtype=torch.float64)
    for i in range(len(points)):
        for j in range(len(X)):
            slope = degree * torch.dot(points[i], M @ X[j]) ** (degree - 1)
            for c in range(alpha.shape[1]):
                G[i, c] += alpha[j, c] * slope * (M @ X[j])
    return G


def run_radial(
    X: Tensor, Y: Tensor, kernel: rfm.Kernel, ridge: float, rounds: int, power: float = 0.5
) -> list[Tensor]:
    """The M (d, d) of each fit, from the identity; each divided by its largest entry."""
    M = [torch.eye(X.shape[1], dtype=torch.float64)]
    for _ in range(rounds):
        alpha = rfm.fit(X, Y, kernel, ridge, M[-1])
        F = fact(X, alpha, rfm.gradients(X, X, alpha, kernel, M[-1]))
        M.append(rfm.update(F @ F.T, power, "max"))
    return M


def run_inner(
    X: Tensor, Y: Tensor, degree: int, ridge: float, rounds: int, power: float = 0.5
) -> list[Tensor]:
    """The same for the kernel ``(x^T M z)^degree``."""
    M = [torch.eye(X.shape[1], dtype=torch.float64)]
    for _ in range(rounds):
        K = inner_matrix(X, X, M[-1], degree)
        alpha = torch.linalg.solve(K + ridge * torch.eye(len(X), dtype=torch.float64), Y)
        F = fact(X, alpha, inner_gradients(X, X, alpha, M[-1], degree))
        M.append(rfm.update(F @ M[-1], power, "max"))
    return M
