"""The sensitivity seen from the weight: a matrix C̃ (g, r, r), written out, or with few columns.

All forms answer the same questions. ``Y Yᵀ`` never takes an r × r matrix: its non-zero spectrum is that of
the k × k matrix ``YᵀY``, whose eigenvectors q give its own as ``Y q / √λ``. ``B A Bᵀ`` is a matrix of which k
directions are known to be more than rounding. All is float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor

from nfa.ansatz.blockwise import NAN, columns, gram, largest_of_groups, total
from nfa.checks import positive


@dataclass(frozen=True)
class Dense:
    """Symmetric matrices, (g, r, r)."""

    matrix: Tensor

    def diagonal(self) -> Tensor:
        """Diagonals, (g, r)."""
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    def norm(self) -> Tensor:
        """Frobenius norm of all groups together."""
        return self.matrix.norm()

    def traceless_norm(self, keep: Tensor) -> Tensor:
        """Norm of what remains when the multiple of the identity on ``keep`` (g, r) is removed."""
        return torch.hypot(traceless(self.diagonal(), keep).norm(), self._off_diagonal_norm)

    @cached_property
    def _off_diagonal_norm(self) -> Tensor:
        off_diagonal = self.matrix.clone()
        off_diagonal.diagonal(dim1=-2, dim2=-1).zero_()
        return off_diagonal.norm()

    def is_resolved(self, floor: float, keep: Tensor) -> bool:
        """Whether surely no eigenvalue on ``keep`` is below ``floor`` of the largest: no decomposition."""
        return _is_above(self.matrix, floor, keep)

    def resolved(self, floor: float, keep: Tensor) -> "Dense | Spanned":
        """Without the eigenvalues below ``floor`` of the largest, which are rounding; itself without any."""
        if self.is_resolved(floor, keep):
            return self
        values, vectors = torch.linalg.eigh(self.matrix)
        kept = values > floor * values.amax(-1, keepdim=True)
        beyond = ~kept & keep.flip(-1)  # zeros beyond the rank of W are no rounding
        some, k = torch.stack([beyond.sum(), kept.sum(-1).max()]).tolist()
        if not some:
            vars(self)["values"] = values  # not to be found again
            return self
        k = max(k, 1)
        values, vectors, kept = (part[..., -k:] for part in (values, vectors, kept))
        return Spanned(vectors * kept[:, None, :], torch.diag_embed(values * kept), values * kept)

    def between(self, sigma: Tensor) -> "Dense":
        """``diag(σ) A diag(σ)`` for σ (g, r)."""
        return Dense((sigma[:, :, None] * self.matrix).mul_(sigma[:, None, :]))

    def dense(self) -> "Dense":
        """Itself."""
        return self

    @cached_property
    def values(self) -> Tensor:
        """Eigenvalues (g, r), ascending, rounding among them."""
        return torch.linalg.eigvalsh(self.matrix)

    def spectrum(self) -> Tensor:
        """Eigenvalues (g, r), descending; rounding counts as zero."""
        return without_rounding(self.values, self.matrix.shape[1]).flip(-1)

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (g, r), where rounding counts as zero, and eigenvectors as columns (g, r, r)."""
        values, vectors = torch.linalg.eigh(self.matrix)
        return without_rounding(values, self.matrix.shape[1]), vectors


@dataclass(frozen=True)
class LowRank:
    """The matrices ``Y Yᵀ``, (g, r, r), of factors Y (g, r, k)."""

    factor: Tensor

    def diagonal(self) -> Tensor:
        """Diagonals, (g, r)."""
        return self.factor.square().sum(-1)

    def norm(self) -> Tensor:
        """Frobenius norm of all groups together."""
        return self._gram.norm()

    def traceless_norm(self, keep: Tensor) -> Tensor:
        """Norm of what remains when the multiple of the identity on ``keep`` (g, r) is removed.

        The difference of squares is safe while k is below the number of directions kept in each group:
        by its rank alone the matrix is then at least that far from the identity.
        """
        trace, rank = self.factor.square().sum(), keep.sum().clamp_min(1)
        return (self.norm().square() - trace.square() / rank).clamp_min(0).sqrt()

    def is_resolved(self, floor: float, keep: Tensor) -> bool:
        """A factor has no rounding that a sum of products has."""
        return True

    def resolved(self, floor: float, keep: Tensor) -> "LowRank":
        """Itself."""
        return self

    def between(self, sigma: Tensor) -> "LowRank":
        """``diag(σ) A diag(σ)`` for σ (g, r)."""
        return LowRank(sigma[:, :, None] * self.factor)

    def spectrum(self) -> Tensor:
        """The eigenvalues (g, min(r, k)) that need not be zero, descending; rounding counts as zero."""
        values = without_rounding(torch.linalg.eigvalsh(self._gram), self.factor.shape[1])
        return values.flip(-1)[:, : self.factor.shape[1]]

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (g, min(r, k)), where rounding counts as zero, and their eigenvectors as columns.

        The eigenvector of an eigenvalue of zero is zero.
        """
        _, r, k = self.factor.shape
        if k >= r:
            return self.dense().eigen()
        values, vectors = torch.linalg.eigh(self._gram)
        values = without_rounding(values, r)
        return values, (self.factor @ vectors).mul_(inverse_root(values)[:, None, :])

    def dense(self) -> Dense:
        """The same matrices written out."""
        return Dense(self.factor @ self.factor.mT)

    @property
    def inner(self) -> Tensor:
        """``YᵀY``, (g, k, k): of the same spectrum but for zeros, and the same norms."""
        return self._gram

    @cached_property
    def _gram(self) -> Tensor:
        return self.factor.mT @ self.factor


@dataclass(frozen=True)
class Spanned:
    """The matrices ``B A Bᵀ``, (g, r, r): A (g, k, k), and B (g, r, k) with columns orthonormal or zero."""

    basis: Tensor
    matrix: Tensor
    values: Tensor | None = None  # ascending, where the matrix is diagonal

    def diagonal(self) -> Tensor:
        """Diagonals, (g, r)."""
        return self._diagonal

    @cached_property
    def _diagonal(self) -> Tensor:
        if self.values is not None:
            return (self.basis.square() @ self.values[:, :, None]).squeeze(-1)
        return ((self.basis @ self.matrix) * self.basis).sum(-1)

    def norm(self) -> Tensor:
        """Frobenius norm of all groups together."""
        return self.matrix.norm()

    def traceless_norm(self, keep: Tensor) -> Tensor:
        """Norm of what remains when the multiple of the identity on ``keep`` (g, r) is removed.

        As safe as that of `LowRank`, for the same reason.
        """
        trace = self.matrix.diagonal(dim1=-2, dim2=-1).sum()
        return (self.norm().square() - trace.square() / keep.sum().clamp_min(1)).clamp_min(0).sqrt()

    def is_resolved(self, floor: float, keep: Tensor) -> bool:
        """Whether surely no eigenvalue is below ``floor`` of the largest; see `Dense.is_resolved`."""
        return _is_above(self.matrix, floor, self.basis.square().sum(1) > 0)

    def resolved(self, floor: float, keep: Tensor) -> "Spanned":
        """Without the eigenvalues below ``floor`` of the largest, which are rounding."""
        values, vectors = torch.linalg.eigh(self.matrix)
        kept = values > floor * values.amax(-1, keepdim=True)
        return Spanned(
            self.basis @ vectors * kept[:, None, :], torch.diag_embed(values * kept), values * kept
        )

    def between(self, sigma: Tensor) -> "LowRank | Spanned":
        """``diag(σ) B A Bᵀ diag(σ)`` for σ (g, r)."""
        if self.values is not None and self.basis.shape[2] < self.basis.shape[1]:
            roots = self.values.clamp_min(0).sqrt()
            return LowRank(sigma[:, :, None] * self.basis * roots[:, None, :])
        Q, R = torch.linalg.qr(sigma[:, :, None] * self.basis)
        return Spanned(Q, R @ self.matrix @ R.mT)

    def dense(self) -> Dense:
        """The same matrices written out."""
        return Dense(self.basis @ self.matrix @ self.basis.mT)

    def spectrum(self) -> Tensor:
        """The eigenvalues (g, k) that need not be zero, descending; rounding counts as zero."""
        if self.values is not None:
            return without_rounding(self.values, self.matrix.shape[1]).flip(-1)
        return Dense(self.matrix).spectrum()

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (g, k), where rounding counts as zero, and their eigenvectors as columns (g, r, k)."""
        values, vectors = Dense(self.matrix).eigen()
        return values, self.basis @ vectors


Form = Dense | LowRank | Spanned
F = TypeVar("F", Dense, LowRank, Spanned)


@dataclass(frozen=True)
class Frame:
    """The left singular vectors of a weight: g groups of size r, everything zero beyond the rank.

    Attributes:
        sigma2: (g, r) squared singular values of W, descending.
        U: (g, out, r) left singular vectors.
        keep: (g, r) which directions are in the range of W.
    """

    sigma2: Tensor
    U: Tensor
    keep: Tensor

    @classmethod
    def of(cls, W: Tensor, scale: float) -> "Frame":
        """The frame of ``W / scale``, (g, out, in)."""
        _, out, inputs = W.shape
        if out > inputs:  # more outputs than inputs: the range of W matters
            basis, R = torch.linalg.qr(W.double() / scale)
            values, U = torch.linalg.eigh(R @ R.mT)
            U = basis @ U
        else:
            values, U = torch.linalg.eigh(gram(W, scale))
        sigma2, U = values.flip(-1).clamp_min_(0), U.flip(-1)
        keep = sigma2 > max(out, inputs) * torch.finfo(sigma2.dtype).eps * sigma2[:, :1]
        return cls(sigma2 * keep, U.mul_(keep[:, None, :]), keep)

    @cached_property
    def here(self) -> "Frame":
        """On the CPU, but for U: what is said of single directions is found there."""
        sigma2 = self.sigma2.cpu()  # zero beyond the rank
        return Frame(sigma2, self.U, sigma2 > 0)

    def sensitivity(self, C: Tensor, scale: float) -> Dense:
        """``Uᵀ C U / scale`` for C (g, out, out), the symmetric part."""
        found = _turned(self.U, C, scale)
        return Dense(
            found.mul_(self._reaches(found.diagonal(dim1=-2, dim2=-1), largest_of_groups(C) / scale))
        )

    def factor(self, X: Tensor, scale: float | Tensor) -> LowRank:
        """``Uᵀ XXᵀ U / scale²`` for X (g, out, m)."""
        Y = torch.cat([self.U.mT @ block for block in columns(X, scale)], 2)
        size = (largest_of_groups(X) / scale).square()
        return LowRank(Y.mul_(self._reaches(Y.square().sum(-1), size)))

    def parts(self, sums: Sequence[Tensor], factors: bool, like: Form) -> list[Form]:
        """Parts of a sensitivity, on one scale: matrices or factors, in the form of another."""
        sizes = torch.stack([largest_of_groups(part) for part in sums])
        scale = torch.where(sizes.max() > 0, sizes.max(), 1.0)
        if factors and isinstance(like, LowRank):
            return [self.factor(part, scale) for part in sums]
        span = like.basis if isinstance(like, Spanned) else None
        U = self.U if span is None else self.U @ span
        found: list[Form] = []
        for part, size in zip(sums, (sizes / scale) ** (2 if factors else 1), strict=True):
            if factors:
                Y = U.mT @ (part.double() / scale)
                within, diagonal = Y @ Y.mT, Y.square().sum(-1)
            else:
                within = _turned(U, part, scale)
                diagonal = within.diagonal(dim1=-2, dim2=-1)
            some = self._reaches(diagonal, size)
            within *= some
            if span is None:
                found.append(Dense(within))
                continue
            found.append(Spanned(span, within))
            if factors:  # less than a product with all of a matrix
                vars(found[-1])["_diagonal"] = (span @ Y).square().sum(-1) * some[:, :, 0]
        return found

    def _reaches(self, diagonal: Tensor, size: Tensor) -> Tensor:
        """1 for each group where C has anything on the range of W, (g, 1, 1): else it is rounding."""
        floor = self.U.shape[1] * torch.finfo(torch.float64).eps * size
        return (diagonal.amax(-1) > floor).double()[:, None, None]

    def agop(self, C: Form) -> Form:
        """H, the AGOP in the coordinates of W's right singular vectors."""
        return C.between(self.sigma2.sqrt())


def _turned(U: Tensor, C: Tensor, scale: float | Tensor) -> Tensor:
    """``Uᵀ C U / scale``, the symmetric part."""
    found = U.mT @ ((C.double() / scale) @ U)
    return (found + found.mT).div_(2)


def joined(parts: Sequence[Form]) -> Form:
    """The sum of matrices of one form, of one basis too."""
    if are(parts, LowRank):
        return LowRank(torch.cat([part.factor for part in parts], 2))
    if are(parts, Spanned):
        whole = Spanned(parts[0].basis, total(part.matrix for part in parts))
        vars(whole)["_diagonal"] = total(part.diagonal() for part in parts)  # a product less
        return whole
    if are(parts, Dense):
        return Dense(total(part.matrix for part in parts))
    raise TypeError("only matrices of one form are joined")


def are(parts: Sequence[Form], form: type[F]) -> TypeGuard[Sequence[F]]:
    """Whether all are of one form."""
    return all(isinstance(part, form) for part in parts)


def _is_above(matrix: Tensor, floor: float, keep: Tensor) -> bool:
    """Whether (g, r, r), less ``floor`` of each group's norm, is positive definite on ``keep`` (g, r)."""
    norm = matrix.norm(dim=(1, 2), keepdim=True).squeeze(-1)
    shift = torch.where(keep, -floor * norm, norm)
    return not bool(torch.linalg.cholesky_ex(matrix + torch.diag_embed(shift)).info.any())


def traceless(diagonal: Tensor, keep: Tensor) -> Tensor:
    """A diagonal (g, r), zero outside ``keep``, less its mean over ``keep``."""
    return (diagonal - diagonal.sum() / keep.sum().clamp_min(1)) * keep


def inverse_root(values: Tensor) -> Tensor:
    """``1/√values`` of non-negative values, and zero for zero."""
    return torch.where(values > 0, values, torch.inf).rsqrt()


def without_rounding(values: Tensor, size: int) -> Tensor:
    """Eigenvalues (g, k) of size × size matrices, with zero for those no larger than rounding error."""
    floor = size * torch.finfo(values.dtype).eps * values.abs().amax(-1, keepdim=True)
    return torch.where(values > floor, values, 0)


def haar(count: int, size: int, generator: torch.Generator, width: int | None = None) -> Tensor:
    """Haar-distributed orthogonal matrices, or their first columns: (count, size, width), on the CPU."""
    shape = (count, size, size if width is None else width)
    Q, R = torch.linalg.qr(torch.randn(shape, dtype=torch.float64, generator=generator))
    return Q.mul_(R.diagonal(dim1=-2, dim2=-1).sign()[:, None, :])


def powered(values: Tensor, power: float) -> Tensor:
    """Non-negative eigenvalues to a power that must be positive."""
    return values ** positive("power", power)


def power_of(H: Form, power: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues (g, k) and eigenvectors (g, r, k) of ``H^power``."""
    values, vectors = H.eigen()
    return powered(values, power), vectors


def inner(sigma2: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """``⟨diag(sigma2), B⟩`` for the matrix B of these eigenvalues and eigenvectors, groups pooled."""
    return ((sigma2[:, None, :] @ vectors.square()).squeeze(1) * values).sum()


def cosine_of(sigma2: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """Cosine of ``diag(sigma2)`` and the matrix of these eigenvalues and eigenvectors, (); NaN for 0/0."""
    return ratio_of(inner(sigma2, values, vectors), sigma2.norm() * values.norm())


def linear_cosine(sigma2: Tensor, H: Form) -> Tensor:
    """`cosine_of` for the power 1 of H, which needs no eigenvectors."""
    return ratio_of((sigma2 * H.diagonal()).sum(), sigma2.norm() * H.norm())


def ratio_of(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Correlation-like ratios, clipped to [-1, 1]; NaN for 0/0."""
    return torch.where(denominator > 0, (numerator / denominator).clamp(-1, 1), torch.nan)


def ratio(numerator: Tensor, denominator: Tensor) -> float:
    """Correlation-like ratio, clipped to [-1, 1]; NaN for 0/0."""
    value, size = torch.stack([numerator, denominator]).tolist()
    return min(1.0, max(-1.0, value / size)) if size > 0 else NAN
