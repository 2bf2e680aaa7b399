"""Statistics of feature matrices, from the dense matrices themselves."""

import math

import torch
from torch import Tensor

# Singular values below this fraction of the group's largest count as zero.
RANK_TOLERANCE = 1e-7
# Squared singular values that are this near, times their number and relative to the largest, are equal.
EQUAL = 1e-15
# What is left below this fraction of the norm once a mean or a trace is subtracted is rounding.
ZERO_TOLERANCE = 1e-12


def matrix_power(G: Tensor, alpha: float) -> Tensor:
    """``G^α = V diag(λ^α) Vᵀ`` of symmetric positive semi-definite matrices.

    Eigenvalues below ``d ε λ_max`` are rounding and count as 0: their root would not be small.

    Args:
        G: ``(..., d, d)``, symmetrised first.
        alpha: exponent; positive, unless every G is definite.

    Returns:
        ``(..., d, d)`` float64.
    """
    G = G.double()
    eigenvalues, V = torch.linalg.eigh((G + G.mT) / 2)
    floor = G.shape[-1] * torch.finfo(G.dtype).eps * eigenvalues[..., -1:]
    return V @ torch.diag_embed(torch.where(eigenvalues > floor, eigenvalues, 0) ** alpha) @ V.mT


def cosine(A: Tensor, B: Tensor) -> float:
    """Cosine ``⟨A, B⟩ / (‖A‖ ‖B‖)`` over all entries of two ``(groups, d, d)`` stacks; NaN if one is zero."""
    a, b = A.double().flatten(), B.double().flatten()
    return _cosine(a, b, of=(a, b))


def pearson(A: Tensor, B: Tensor) -> float:
    """Pearson correlation over all entries of two ``(groups, d, d)`` stacks; NaN if one is constant."""
    a, b = A.double().flatten(), B.double().flatten()
    return _cosine(a - a.mean(), b - b.mean(), of=(a, b))


def offdiag_pearson(A: Tensor, B: Tensor) -> float:
    """Pearson correlation over the entries ``i ≠ j`` of each block, pooled; NaN if there are none."""
    groups, d, _ = A.shape
    entries = [(g, i, j) for g in range(groups) for i in range(d) for j in range(d) if i != j]
    if not entries:
        return math.nan
    return pearson(torch.stack([A[e] for e in entries]), torch.stack([B[e] for e in entries]))


def alignment(W: Tensor, C: Tensor) -> tuple[float, float]:
    """Cosine of the traceless parts of C and ``WWᵀ`` on the range of W, and its z-score.

    With ``U_g`` (out × r_g) an orthonormal basis of the range of ``W_g``, both sides become block-diagonal
    r × r matrices, ``r = Σ_g r_g``, of which ``tr/r`` times the identity is removed. For a Haar-rotated C
    in one group the cosine has mean 0 and standard deviation ``1 / √(Σ_g r_g(r_g+1)/2 - 1)``.

    Args:
        W: weight ``(groups, out, in)``.
        C: sensitivity ``(groups, out, out)``.

    Returns:
        ``(alignment, z)``; both NaN if one of the traceless parts is zero (rank 1, or isotropic).
    """
    bases = [_range_basis(w)[0] for w in W.double()]
    A = torch.block_diag(*[U.T @ c @ U for U, c in zip(bases, C.double(), strict=True)])
    B = torch.block_diag(*[U.T @ w @ w.T @ U for U, w in zip(bases, W.double(), strict=True)])
    r = sum(U.shape[1] for U in bases)
    if r == 0:
        return math.nan, math.nan
    eye = torch.eye(r, dtype=A.dtype, device=A.device)
    A0, B0 = A - A.trace() / r * eye, B - B.trace() / r * eye
    rho = _cosine(A0.flatten(), B0.flatten(), of=(A, B))
    degrees = sum(U.shape[1] * (U.shape[1] + 1) // 2 for U in bases) - 1
    return rho, rho * math.sqrt(degrees)


def alpha_fit(W: Tensor, C: Tensor) -> tuple[float, float]:
    """Exponent α of ``C ∝ (WWᵀ)^(1/α - 1)``, fitted on W's left singular vectors.

    Least squares of ``log(u_iᵀ C u_i)`` on ``log σ_i²``, all groups pooled, has slope ``1/α - 1``.
    Directions with ``u_iᵀ C u_i ≤ 0`` have no logarithm and are left out. One with less than a
    ten-thousandth of the mean of either counts less, in proportion. Equal singular values have the mean of
    their energies, which does not depend on the choice of their vectors.

    Args:
        W: weight ``(groups, out, in)``.
        C: sensitivity ``(groups, out, out)``.

    Returns:
        ``(1 / (1 + slope), correlation of the fit)``; NaN where undefined: fewer than two directions,
        or all σ equal (no slope), or a constant ordinate (no correlation).
    """
    points = []
    for w, c in zip(W.double(), C.double(), strict=True):
        U, sigmas = _range_basis(w)
        energies = (U.T @ c @ U).diagonal()
        for sigma in sigmas:
            equal = (sigmas**2 - sigma**2).abs() <= EQUAL * len(sigmas) * sigmas.max() ** 2
            energy = float(energies[equal].mean())
            if energy > 0:
                points.append((2 * math.log(sigma), math.log(energy)))
    if len(points) < 2:
        return math.nan, math.nan
    x, y = torch.tensor(points, dtype=torch.float64).T
    w = torch.ones_like(x)
    for logs in (x, y):
        values = (logs - logs.max()).exp()
        w = w * (values / (1e-4 * values.mean())).clamp(max=1)
    root = (w / w.sum()).sqrt()
    dx, dy = (root * (v - (w * v).sum() / w.sum()) * math.sqrt(len(x)) for v in (x, y))
    sizes = (1 + x.abs(), 1 + y.abs())  # a logarithm's rounding is absolute near 0
    if _vanishes(dx, sizes[0]):
        return math.nan, math.nan
    slope = (dx @ dy) / (dx @ dx)
    return float(1 / (1 + slope)), _cosine(dx, dy, of=sizes)


def haar_null(W: Tensor, C: Tensor, power: float, draws: int, seed: int) -> Tensor:
    """Cosine of N with ``G^α`` when C is rotated at random on the range of W, formed densely.

    Per draw and group, ``G_g = W_gᵀ U_g Q (U_gᵀ C_g U_g) Qᵀ U_gᵀ W_g`` with ``U_g`` an orthonormal basis of
    the range of ``W_g`` and Q Haar-distributed in O(r_g). Gaussians are drawn from one CPU generator,
    draw by draw and group by group.

    Args:
        W: weight ``(groups, out, in)``.
        C: sensitivity ``(groups, out, out)``.
        power: exponent α.
        draws: number of rotations.
        seed: of the generator.

    Returns:
        ``(draws,)`` float64 cosines.
    """
    W, C = W.double().cpu(), C.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    N = W.mT @ W
    values = []
    for _ in range(draws):
        G = torch.zeros_like(N)
        for g in range(len(W)):
            U, _ = _range_basis(W[g])
            Q = haar_orthogonal(U.shape[1], generator)
            rotated = U @ Q @ (U.T @ C[g] @ U) @ Q.T @ U.T
            G[g] = W[g].T @ rotated @ W[g]
        values.append(cosine(N, matrix_power(G, power)))
    return torch.tensor(values, dtype=torch.float64)


def _cosine(a: Tensor, b: Tensor, *, of: tuple[Tensor, Tensor]) -> float:
    """Cosine of two vectors; NaN if one is nothing but rounding of the numbers it was made ``of``."""
    if _vanishes(a, of[0]) or _vanishes(b, of[1]):
        return math.nan
    return float((a / a.norm()) @ (b / b.norm()))


def _vanishes(remainder: Tensor, whole: Tensor) -> bool:
    return bool(remainder.norm() <= ZERO_TOLERANCE * whole.norm())


def _range_basis(w: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors ``(out, r)`` and non-zero singular values ``(r,)`` of ``w`` ``(out, in)``."""
    U, sigma, _ = torch.linalg.svd(w, full_matrices=False)
    keep = sigma > RANK_TOLERANCE * sigma.max()
    return U[:, keep], sigma[keep]


def haar_orthogonal(r: int, generator: torch.Generator) -> Tensor:
    """Haar-distributed ``(r, r)`` orthogonal matrix: QR of a Gaussian, R's diagonal made positive."""
    Q, R = torch.linalg.qr(torch.randn(r, r, generator=generator, dtype=torch.float64))
    return Q * R.diagonal().sign()
