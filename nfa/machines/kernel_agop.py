"""The average gradient outer product of a kernel predictor, exactly, by the cheapest of two routes.

A predictor ``f_c(x) = Σ_j a_jc k(‖x - z_j‖)`` of a radial kernel has the gradient

    ∂f_c(x_i) = Σ_j K'_ij a_jc (x_i - z_j) = s_ic x_i - Σ_j K'_ij a_jc z_j,      s = K' a,

with ``K'_ij = k'(r_ij) / r_ij``. *Class by class* these (points, d) matrices are formed and multiplied. The
*dual* route sums over the classes first (identity 4 of the design notes):

    Σ_ic ∂f ∂fᵀ = Zᵀ [(K'ᵀK') ∘ (a aᵀ)] Z - Xᵀ [K' ∘ (s aᵀ)] Z - (…)ᵀ + Xᵀ diag(Σ_c s²) X,

whose cost does not grow with the number of classes. The recursion ``M ← AGOP`` is that of Radhakrishnan,
Beaglehole, Pandit and Belkin (arXiv 2212.13881).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.errors import NfaError

CENTERINGS = ("none", "output", "pooled")
ROUTES = ("auto", "classes", "dual")


@dataclass(frozen=True)
class KernelAgop:
    """An AGOP and how it was found.

    Attributes:
        matrix: (d, d), the mean over the points and the sum over the outputs.
        route: ``classes`` or ``dual``.
    """

    matrix: Tensor
    route: str


def kernel_agop(
    slope: Tensor,
    points: Tensor,
    centers: Tensor,
    coefficients: Tensor,
    *,
    centering: str = "none",
    route: str = "auto",
) -> KernelAgop:
    """Mean gradient outer product of a kernel predictor over points.

    Args:
        slope: K' = k'(r)/r between points and centers, (m, n); zero where the kernel has a cusp.
        points: where gradients are taken, (m, d).
        centers: (n, d).
        coefficients: a, (n, c).
        centering: ``none``; ``output`` removes the mean gradient of each output over the points; ``pooled``
            removes one mean over outputs and points.
        route: ``classes``, ``dual``, or ``auto`` for the one with fewer operations.

    Returns:
        The AGOP in the coordinates of points and centers, and the route.

    Raises:
        NfaError: unknown centering or route.
    """
    _check("centering", centering, CENTERINGS)
    _check("route", route, ROUTES)
    if route == "auto":
        m, n = slope.shape
        route = _cheaper(m, n, centers.shape[1], coefficients.shape[1])
    s = slope @ coefficients
    total = (_by_classes if route == "classes" else _dual)(slope, points, centers, coefficients, s)
    if centering != "none":
        total = total - _removed(slope, points, centers, coefficients, s, centering)
    total = (total + total.mT) / 2
    return KernelAgop(total / len(points), route)


def _cheaper(m: int, n: int, d: int, c: int) -> str:
    """Multiplications of each route, products of matrices only."""
    by_classes = c * (m * n * d + m * d * d)
    dual = m * n * n + n * n * d + m * n * d + 2 * n * d * d
    return "classes" if by_classes < dual else "dual"


def _by_classes(slope: Tensor, X: Tensor, Z: Tensor, a: Tensor, s: Tensor) -> Tensor:
    G = X.new_zeros(X.shape[1], X.shape[1])
    for column, total in zip(a.T, s.T, strict=True):
        gradients = torch.addmm(total[:, None] * X, slope, column[:, None] * Z, alpha=-1)
        G.addmm_(gradients.mT, gradients)
    return G


def _dual(slope: Tensor, X: Tensor, Z: Tensor, a: Tensor, s: Tensor) -> Tensor:
    Q = (slope.mT @ slope).mul_(a @ a.mT)
    G = Z.mT @ (Q @ Z)
    del Q
    cross = X.mT @ ((slope * (s @ a.mT)) @ Z)
    return G - cross - cross.mT + X.mT @ (s.square().sum(1)[:, None] * X)


def _removed(slope: Tensor, X: Tensor, Z: Tensor, a: Tensor, s: Tensor, centering: str) -> Tensor:
    """What centring takes away: ``m Σ_c ḡ_c ḡ_cᵀ``, or ``m c ḡ ḡᵀ`` with the mean over the outputs too."""
    means = (X.mT @ s - Z.mT @ (slope.sum(0)[:, None] * a)) / len(X)  # (d, c)
    if centering == "pooled":
        means = means.mean(1, keepdim=True) * a.shape[1] ** 0.5
    return len(X) * means @ means.mT


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise NfaError(f"{what} must be one of {', '.join(known)}, got {value!r}")
