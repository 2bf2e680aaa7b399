"""Whether C and WWᵀ have the same eigenvectors, whatever the exponent between their eigenvalues.

``N ∝ G^α`` for some α says two things of W's left singular basis ``u₁ … u_r``: C is diagonal there, and its
diagonal is a power of ``σ²``. The first is tested here alone. With c′ the traceless part of ``c = UᵀCU``,

    D = Σᵢ c′ᵢᵢ² / ‖c′‖²

is 1 where all eigenvectors are shared. For a Haar-rotated C it is ``m = 2/(r+2)`` on average, so that

    basis = (D - m) / (1 - m)

is 0 by chance and needs no exponent. Equal singular values share a block of the basis, in which any basis is
one: the whole block counts as on the diagonal, and a block of size b brings

    2b/(r(r+2)) + b(b-1)/((r+2)(r-1))

to the mean m. The variance under rotation is exact too. A traceless c′ has two invariants of fourth degree,
the square of ``p₂ = ‖c′‖²`` and ``p₄ = ‖c′²‖²``, so that all moments of its entries follow from two of a
uniform direction u, ``E (uᵀc′u)⁴`` and ``E (uᵀc′u)²(uᵀc′²u)``, by ``tr c′ = 0`` and by planes turned by 45°.

Groups of a grouped map are rotated apart: their sums add up, and so do their variances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nfa.ansatz.blockwise import NAN
from nfa.ansatz.forms import Dense, Form, LowRank
from nfa.ansatz.group_sums import Columns, Matrices

_EQUAL = 4.0  # roundings of the largest squared singular value: others that near may be the same


@dataclass(frozen=True)
class Basis:
    """How far C is diagonal in the eigenbasis of WWᵀ, as sums over the groups.

    Attributes:
        above: ``Σ (on - m ‖c′‖²)``, what is on the blocks of the diagonal beyond chance.
        room: ``Σ (1 - m) ‖c′‖²``, what that would be if all were on them.
    """

    above: float = 0.0
    room: float = 0.0

    @property
    def share(self) -> float:
        """`basis`: 1 where all eigenvectors are shared, 0 on average by chance.

        NaN where C or WWᵀ is a multiple of the identity.
        """
        return self.above / self.room if self.room > 0 else NAN


@dataclass(frozen=True)
class Spectrum:
    """What of WWᵀ counts: which of its eigenvalues are equal.

    Attributes:
        keep: (g, r) which directions are in the range of W, the first of each group.
        blocks: for each group the spans of equal eigenvalues.
        noise: relative to ‖C‖: a traceless part that is no larger is none.
    """

    keep: Tensor
    blocks: Sequence[Sequence[tuple[int, int]]]
    noise: float

    @classmethod
    def of(cls, sigma2: Tensor, keep: Tensor, resolution: float, noise: float) -> "Spectrum":
        """That of squared singular values (g, r), descending, of a weight with a relative ``resolution``.

        They are zero beyond its rank, and on the CPU: ``keep`` is where C is.
        """
        ranks = (sigma2 > 0).sum(-1).tolist()
        of_decomposition = sigma2.shape[1] * torch.finfo(sigma2.dtype).eps  # where the weight has more digits
        gap = _EQUAL * max(resolution, of_decomposition)
        blocks = [blocks_of_equals(v[:rank], gap) for v, rank in zip(sigma2, ranks, strict=True)]
        return cls(keep, blocks, noise)

    @property
    def ranks(self) -> list[int]:
        """Directions in each group."""
        return [spans[-1][1] if spans else 0 for spans in self.blocks]

    @cached_property
    def chances(self) -> Tensor:
        """`chance` of each group, and whether its basis says anything: not of one block; (2, g) float64."""
        sizes = [[stop - start for start, stop in spans] for spans in self.blocks]
        chances = [chance(sum(of), of) if len(of) > 1 else 0.0 for of in sizes]
        return torch.tensor([chances, [float(len(of) > 1) for of in sizes]], dtype=torch.float64)

    def levelled(self, diagonals: Tensor) -> Tensor:
        """``uᵢᵀCuᵢ`` (…, g, r) with the mean of its block for each of equal singular values.

        Which vectors belong to equal values is a matter of rounding; the mean is that of any of them.
        """
        levelled = diagonals
        for group, spans in enumerate(self.blocks):
            for start, stop in spans:
                if stop - start > 1:
                    levelled = diagonals.clone() if levelled is diagonals else levelled
                    block = levelled[..., group, start:stop]
                    block.copy_(block.mean(-1, keepdim=True).expand_as(block))
        return levelled


def basis_squares(spectrum: Spectrum, groups: Matrices | Columns) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (R, R): quadratic forms ``‖c′‖²``, `Basis.above` and `Basis.room` of sums of groups."""
    keep, diagonals = spectrum.keep, groups.diagonals
    ranks = keep.sum(-1)
    means = diagonals.sum(-1) / ranks.clamp_min(1)
    squares = groups.traceless_products(means, ranks)
    m, told = spectrum.chances.to(squares).unbind()
    centred = ((diagonals - means[:, :, None]) * keep).transpose(0, 1) * told[:, None, None]
    above = (centred @ centred.mT).sum(0) - ((m * told)[:, None, None] * squares).sum(0)
    for group, spans in enumerate(spectrum.blocks):
        for start, stop in spans if len(spans) > 1 else ():
            if stop - start > 1:
                above = above + _off_diagonal(groups.within(group, start, stop))
    return squares.sum(0), above, (((1 - m) * told)[:, None, None] * squares).sum(0)


def _off_diagonal(blocks: Tensor) -> Tensor:
    """Products of the entries off the diagonals of (R, n, n), (R, R)."""
    rows, columns = torch.ones_like(blocks[0]).triu(1).nonzero(as_tuple=True)
    entries = blocks[:, rows, columns]
    return 2 * entries @ entries.mT


def spread_of(spectrum: Spectrum, powers: Tensor) -> float:
    """The variance of `Basis.above` under rotations of C̃ with ``tr c′²`` and ``tr c′⁴`` (2, g) by group."""
    found = 0.0
    for spans, rank, (square, fourth) in zip(
        spectrum.blocks, spectrum.ranks, powers.mT.tolist(), strict=True
    ):
        if len(spans) > 1:
            found += _variance(rank, [stop - start for start, stop in spans], square, fourth)
    return max(found, 0.0)


def without_noise(whole: Basis, parts: Sequence[Basis]) -> float:
    """`Basis.share` of a C that is known from groups of samples or probes, from products of different groups.

    Noise that is zero on average adds to every square, but not to a product of two groups. `above` and `room`
    are squares of the sum, of which those of its parts are taken off.
    """
    above = whole.above - sum(part.above for part in parts)
    room = whole.room - sum(part.room for part in parts)
    return min(1.0, max(-1.0, above / room)) if room > 0 else NAN


@dataclass(frozen=True)
class Traceless:
    """c′ by its spectrum: that of ``inner`` (g, k, k), and ``beyond`` (g,) times ``-mean`` (g,).

    Where they are known, ``values`` (g, k) are eigenvalues of C̃ that ``inner`` has less the mean.
    """

    inner: Tensor
    mean: Tensor
    beyond: Tensor
    values: Tensor | None = None

    def power(self, exponent: int) -> Tensor:
        """``tr c′²`` or ``tr c′⁴`` of each group, (g,), by products alone where no eigenvalues are known."""
        if self.values is not None and exponent == 4:
            fourth = (self.values - self.mean[:, None]).pow(4).sum(-1)
            return (fourth + self.beyond * self.mean**4).clamp_min(0)
        root = self.inner if exponent == 2 else self.inner @ self.inner
        return (root.square().sum((1, 2)) + self.beyond * self.mean**exponent).clamp_min(0)


def traceless_part(C: Form, keep: Tensor) -> Traceless:
    """Of C̃; a form that is not written out has k × k matrices with its spectrum but for zeros."""
    rank = keep.sum(-1)
    mean = C.diagonal().sum(-1) / rank.clamp_min(1)
    M, values = C.inner if isinstance(C, LowRank) else C.matrix, vars(C).get("values")
    if isinstance(C, Dense) and values is None:
        return Traceless(M - torch.diag_embed(mean[:, None] * keep), mean, torch.zeros_like(mean))
    inner = M - torch.diag_embed(mean[:, None].expand(M.shape[:2]))
    return Traceless(inner, mean, rank - M.shape[1], values)


def blocks_of_equals(values: Tensor, gap: float) -> list[tuple[int, int]]:
    """Spans of equal values among those of one group, (r,) descending."""
    near = (values[:-1] - values[1:] <= gap * values[:1]).tolist()
    starts = [0, *(index + 1 for index, equal in enumerate(near) if not equal)]
    return list(zip(starts, [*starts[1:], len(values)], strict=True)) if len(values) else []


def chance(rank: int, sizes: Sequence[int]) -> float:
    """The mean of ``Σ_B ‖c′_BB‖² / ‖c′‖²`` over all rotations, for blocks of these sizes."""
    r = rank
    return sum(2 * b / (r * (r + 2)) + b * (b - 1) / ((r + 2) * (r - 1)) for b in sizes)


def _variance(r: int, sizes: Sequence[int], p2: float, p4: float) -> float:
    """Of ``Σ_B ‖c′_BB‖²`` over all rotations; exact."""
    m = _Moments.of(r, p2, p4)
    b1, b2, b3, b4 = (sum(b**power for b in sizes) for power in (1, 2, 3, 4))
    pairs, triples, fours = (
        b2 - b1,
        b3 - 3 * b2 + 2 * b1,
        b4 - 6 * b3 + 11 * b2 - 6 * b1,
    )
    crossed = b1 * b1 - b2  # of two different blocks: one index in each, and so on
    one_and_pair = b1 * pairs - (b3 - b2)
    pair_and_pair = pairs * pairs - sum((b * (b - 1)) ** 2 for b in sizes)
    square = b1 * m.iiii + (pairs + crossed) * m.ii_jj
    square += 2 * (2 * pairs * m.ii_ij + (triples + one_and_pair) * m.ii_jk)
    square += 2 * pairs * m.ij_ij + 4 * triples * m.ij_ik + (fours + pair_and_pair) * m.ij_kl
    return square - (chance(r, sizes) * p2) ** 2


@dataclass(frozen=True)
class _Moments:
    """``E c_ij² c_kl²`` of a rotated traceless matrix, by which of the indices are the same."""

    iiii: float
    ii_jj: float
    ii_ij: float
    ii_jk: float
    ij_ij: float
    ij_ik: float
    ij_kl: float

    @classmethod
    def of(cls, r: int, p2: float, p4: float) -> "_Moments":
        iiii = (12 * p2**2 + 48 * p4) / (r * (r + 2) * (r + 4) * (r + 6))
        row = (2 * p2**2 + 8 * p4) / (r * (r + 2) * (r + 4))  # E c_ii² Σ_j c_ij²
        whole = 2 * p2**2 / (r * (r + 2))  # E c_ii² ‖c‖²
        ii_ij = (row - iiii) / (r - 1)
        ii_jj = (2 * whole + 3 * iiii - 4 * row) / ((r - 1) * (r + 1))
        ii_jk = (whole - iiii - (r - 1) * (ii_jj + 2 * ii_ij)) / ((r - 1) * (r - 2)) if r > 2 else 0.0
        ij_ij = iiii / 8 + iiii / (2 * (r - 1)) + 3 * ii_jj / 8
        pair = p2**2 / ((r + 2) * (r - 1))  # E c_ij² ‖c‖²
        rest = pair - 2 * ii_ij - (r - 2) * ii_jk - 2 * ij_ij - 4 * (r - 2) * ij_ij / 3
        ij_kl = rest / ((r - 2) * (r - 3)) if r > 3 else 0.0
        return cls(iiii, ii_jj, ii_ij, ii_jk, ij_ij, ij_ij / 3, ij_kl)
