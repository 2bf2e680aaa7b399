"""The average gradient outer product of a kernel predictor, exactly, by the cheapest of three routes.

A predictor ``f_c(x) = Σ_j a_jc k(‖x - z_j‖)`` of a radial kernel has at its own center x_i the gradient

    ∂f_c(x_i) = Σ_j (L_c)_ij z_j,      L_c = diag(s_c) - K' diag(a_c),      s = K' a,

with ``K'_ij = k'(r_ij) / r_ij``. *Class by class* these (points, k) matrices are formed and multiplied. The
other routes sum over the classes first (identity 4 of the design notes), so that their cost does not grow
with the number of classes:

    G = Zᵀ P Z / m,      P = Σ_c L_cᵀ L_c = (K'ᵀK') ∘ (a aᵀ) - K' ∘ (s aᵀ) - (…)ᵀ + diag(Σ_c s_c²).

The *dual* route forms G (k, k); the *factored* one, for fewer centers than coordinates, takes ``P = R Rᵀ``
and gives ``G = B Bᵀ`` with ``B = Zᵀ R / √m`` (k, n), and nothing of size k × k is needed. The recursion
``M ← AGOP`` is that of Radhakrishnan, Beaglehole, Pandit and Belkin (arXiv 2212.13881).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa import processes
from nfa.checks import choice
from nfa.errors import NfaError
from nfa.kernels.halving import Halving
from nfa.kernels.profiles import RadialKernel
from nfa.kernels.spans import spans
from nfa.solvers.semidefinite import root, times_root

CENTERINGS = ("none", "output", "pooled")
ROUTES = ("auto", "classes", "dual", "factored")
_BLOCK = 768  # rows and columns of a block of a symmetric product, of which half need be computed
_LOST = 1e-3  # of a row of K'K' may be lost to rounding
_CANCELLED = 0.1  # ε over the square of what is left of Σ |K' a|: at random, rounding loses far less
_WIDE = 512  # columns up to which classes are multiplied side by side


@dataclass(frozen=True)
class KernelAgop:
    """An AGOP in the coordinates of the centers, mean over the points and sum over the outputs.

    Attributes:
        route: ``classes``, ``dual`` or ``factored``.
        matrix: G (k, k), symmetric; None on the factored route.
        factor: B (k, n) with ``G = B Bᵀ``, on the factored route.
    """

    route: str
    matrix: Tensor | None = None
    factor: Tensor | None = None

    def dense(self) -> Tensor:
        """G, (k, k)."""
        if self.matrix is not None:
            return self.matrix
        assert self.factor is not None  # one of the two is there
        return self.factor @ self.factor.mT

    def root(self) -> Tensor:
        """B (k, r) with ``G = B Bᵀ`` up to rounding."""
        return self.factor if self.factor is not None else root(self.dense().clone())


def kernel_agop(
    slope: Tensor,
    centers: Tensor,
    coefficients: Tensor,
    *,
    points: Tensor | None = None,
    weights: Tensor | None = None,
    centering: str = "none",
    route: str = "auto",
) -> KernelAgop:
    """Mean gradient outer product of a kernel predictor over its centers, or some of them.

    Beyond its arguments it takes n² scalars on the dual and the factored route; on that of the classes m · k.

    Args:
        slope: K' = k'(r)/r between points and centers, (m, n); zero where the kernel has a cusp.
        centers: Z (n, k), in coordinates where the distance is Euclidean; gradients are sums of differences
            of these, and an offset only costs digits.
        coefficients: a, (n, c).
        points: indices (m,) of the centers at which gradients are taken, None for all.
        weights: (m,) of these points, for a weighted mean; None where all count the same.
        centering: ``none``; ``output`` removes the mean gradient of each output over the points; ``pooled``
            removes one mean over outputs and points.
        route: ``classes``, ``dual``, ``factored``, or ``auto`` for the one with the fewest operations.

    Raises:
        NfaError: unknown centering or route, or an AGOP that is not finite.
    """
    choice("centering", centering, CENTERINGS)
    choice("route", route, ROUTES)
    m, n = slope.shape
    slope, D = _weighted(slope, weights, 1.0 if weights is None else float(weights.sum()) / m)
    Z, s = centers, slope @ coefficients
    if route == "auto":
        route = _cheapest(m, n, centers.shape[1], coefficients.shape[1])
        if route != "classes" and not _squares_fit(slope, coefficients, s):
            route = "classes"
    problem = _Problem(slope, Z, coefficients, s, points, centering, D)
    if route == "classes":
        G = _centered(_finite(_by_classes(problem)), Z, problem.weights_of_mean() / m**0.5, centering)
        return KernelAgop(route, matrix=G / m)
    P = _finite(_summed_over_classes(problem))
    if route == "dual":
        return KernelAgop(route, matrix=_congruence(P, Z) / m)
    return KernelAgop(route, factor=times_root(Z.mT, P) / m**0.5)


def blockwise_agop(
    kernel: RadialKernel,
    centers: Tensor,
    coefficients: Tensor,
    *,
    points: Tensor | None = None,
    weights: Tensor | None = None,
    centering: str = "none",
    rows: int,
    shared: bool = False,
) -> KernelAgop:
    """`kernel_agop` class by class, with K' of so many ``rows`` at a time: no n × n matrix is held.

    Where it is ``shared``, the points are shared out over the processes of the default group.
    """
    choice("centering", centering, CENTERINGS)
    n, k = centers.shape
    Z, a = centers, coefficients
    index = torch.arange(n, device=Z.device) if points is None else points
    G, V = Z.new_zeros(k, k), torch.zeros_like(a)
    mean = 1.0 if weights is None else float(weights.mean())
    mine = processes.own_span(len(index)) if shared else slice(0, len(index))

    def add(own: slice) -> None:
        part = index[own]
        slope = kernel.slope_matrix(centers[part], centers)
        without_self(slope, part)
        slope, D = _weighted(slope, None if weights is None else weights[own], mean)
        p = _Problem(slope, Z, a, slope @ a, part, "none", D)
        G_part, V_part = _by_classes(p), p.weights_of_mean()
        G.add_(G_part)
        V.add_(V_part)

    Halving(Z.device).rows(add, mine.stop, rows, mine.start)
    if shared:
        G, V = processes.summed(G), processes.summed(V)
    G = _centered(_finite(G), Z, V / len(index) ** 0.5, centering)
    return KernelAgop("classes", matrix=G / len(index))


def without_self(slope: Tensor, points: Tensor | None) -> None:
    """Set the slope between each point and itself to zero, in place: it stands before ``x - x``."""
    rows = torch.arange(len(slope), device=slope.device)
    slope[rows, rows if points is None else points] = 0.0


def root_weights(weights: Tensor, mean: float, like: Tensor) -> Tensor:
    """D (m,) with ``D_i² = w_i / mean``: a mean of ``D_i² g_i g_iᵀ`` is the weighted one of ``g_i g_iᵀ``."""
    return (weights / mean).sqrt().to(like)


def _weighted(slope: Tensor, weights: Tensor | None, mean: float) -> tuple[Tensor, Tensor | None]:
    """K' with each row times the D of its point, with which every gradient is times that; and D."""
    if weights is None:
        return slope, None
    D = root_weights(weights, mean, slope)
    return slope * D[:, None], D


@dataclass(frozen=True)
class _Problem:
    """What the routes share: K' (m, n), Z (n, k), a (n, c), s (m, c), and which centers are points.

    D (m,) is what the rows of K' and s were multiplied with; None for nothing.
    """

    slope: Tensor
    Z: Tensor
    a: Tensor
    s: Tensor
    points: Tensor | None
    centering: str
    D: Tensor | None = None

    @property
    def at(self) -> Tensor | slice:
        """Index of the points among the centers."""
        return slice(None) if self.points is None else self.points

    def weights_of_mean(self) -> Tensor:
        """V (n, c) with ``Zᵀ V`` the sum of each output's gradients over the points, weighted by D²."""
        if self.D is None:
            V = self.slope.sum(0)[:, None] * -self.a
            V[self.at] += self.s
            return V
        V = (self.D @ self.slope)[:, None] * -self.a
        V[self.at] += self.D[:, None] * self.s
        return V

    def removed(self) -> Tensor | None:
        """V (n, q) whose ``V Vᵀ`` centring takes away from P."""
        return mean_to_remove(self.weights_of_mean() / len(self.slope) ** 0.5, self.centering)


def _cheapest(m: int, n: int, k: int, c: int) -> str:
    """Fewest multiplications, for the AGOP and its root."""
    by_classes = c * (m * n * k + m * k * k / 2) + k**3 / 2
    summed = m * n * n / 2
    dual = summed + n * n * k + n * k * k / 2 + k**3 / 2
    factored = summed + n**3 / 3 + n * n * k / 2
    costs = {"classes": by_classes, "dual": dual}
    if n <= k:  # else the coordinates to come would be more than they are
        costs["factored"] = factored
    return min(costs, key=costs.__getitem__)


def _squares_fit(slope: Tensor, a: Tensor, s: Tensor) -> bool:
    """Whether P can be summed in the dtype of K'.

    Near points have a slope of one over their distance, and duplicates large coefficients of opposite signs.
    In P these stand squared, and are to cancel there.
    """
    eps = torch.finfo(slope.dtype).eps
    low, high = slope.aminmax()
    largest, typical = (
        max(-float(low), float(high)),
        float(torch.linalg.vector_norm(slope, 1)) / slope.numel(),
    )
    if largest**2 * eps > _LOST * len(slope) * typical**2:
        return False
    sizes = torch.cat([part.abs() @ a.abs() for part in slope.split(_BLOCK)])
    return float(sizes.norm()) ** 2 * eps <= _CANCELLED * float(s.norm()) ** 2


def _by_classes(p: _Problem) -> Tensor:
    """``Σ_c (L_c Z)ᵀ (L_c Z)``, classes side by side where they are narrow."""
    (m, n), k, c = p.slope.shape, p.Z.shape[1], p.a.shape[1]
    G = p.Z.new_zeros(k, k)
    X = p.Z[p.at]
    for group in spans(c, max(_WIDE // k, 1)):
        a, s = p.a[:, group], p.s[:, group]
        inside = (a[:, :, None] * p.Z[:, None]).reshape(n, -1)
        gradients = torch.sub((s[:, :, None] * X[:, None]).reshape(m, -1), p.slope @ inside).reshape(-1, k)
        _add_gram(G, gradients)
    return _mirrored(G)


def _summed_over_classes(p: _Problem) -> Tensor:
    """P (n, n), symmetric."""
    n, K = len(p.Z), p.slope
    P, V = K.new_empty(n, n), p.removed()
    for rows, columns in _upper_blocks(n):
        block = torch.mm(K[:, rows].mT, K[:, columns], out=P[rows, columns])
        block *= p.a[rows] @ p.a[columns].mT
        if V is not None:
            block.addmm_(V[rows], V[columns].mT, alpha=-1)
        if p.points is None:
            block -= K[rows, columns] * (p.s[rows] @ p.a[columns].mT)
            block -= (K[columns, rows] * (p.s[columns] @ p.a[rows].mT)).mT
    _mirrored(P)
    if p.points is not None:
        for part in spans(len(K), _BLOCK):
            at, cross = p.points[part], K[part] * (p.s[part] @ p.a.mT)
            P[at] -= cross
            P[:, at] -= cross.mT
    P.diagonal()[p.at] += p.s.square().sum(1)
    return P


def _congruence(P: Tensor, Z: Tensor) -> Tensor:
    """``Zᵀ P Z`` (k, k) for a symmetric P."""
    product, G = P @ Z, Z.new_empty(Z.shape[1], Z.shape[1])
    for rows, columns in _upper_blocks(len(G)):
        torch.mm(Z[:, rows].mT, product[:, columns], out=G[rows, columns])
    return _mirrored(G)


def _centered(G: Tensor, Z: Tensor, V: Tensor, centering: str) -> Tensor:
    """G without the outer products of the mean gradients ``Zᵀ V``, in place."""
    removed = mean_to_remove(V, centering)
    if removed is not None:
        means = Z.mT @ removed
        G.addmm_(means, means.mT, alpha=-1)
    return G


def mean_to_remove(V: Tensor, centering: str) -> Tensor | None:
    """What centring removes of weights V (n, c) of mean gradients: V, one mean of all, or nothing."""
    if centering == "none":
        return None
    return V if centering == "output" else V.mean(1, keepdim=True) * V.shape[1] ** 0.5


def _add_gram(G: Tensor, A: Tensor) -> None:
    """Add ``Aᵀ A`` to the upper blocks of G."""
    for rows, columns in _upper_blocks(len(G)):
        G[rows, columns].addmm_(A[:, rows].mT, A[:, columns])


def _upper_blocks(n: int) -> Iterator[tuple[slice, slice]]:
    ranges = list(spans(n, _BLOCK))
    return ((rows, columns) for i, rows in enumerate(ranges) for columns in ranges[i:])


def _mirrored(A: Tensor) -> Tensor:
    """A with its upper triangle copied to the lower one, in place."""
    for rows, columns in _upper_blocks(len(A)):
        if rows == columns:
            block = A[rows, rows]
            block.copy_(block.triu() + block.triu(1).mT)
        else:
            A[columns, rows] = A[rows, columns].mT
    return A


def _finite(A: Tensor) -> Tensor:
    if not bool(torch.isfinite(A.sum())):
        raise NfaError("the AGOP is not finite: the coefficients are too large, raise the ridge")
    return A
