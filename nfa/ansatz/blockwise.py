"""Passes over a large weight in float64, a block of columns at a time: no copy of all of it is held."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.checks import told
from nfa.errors import NfaError

NAN = math.nan
_COLUMNS = 1024  # columns in float64 at a time
_ROWS = 512  # rows of a symmetric product at a time: below the diagonal half of it is enough


def largest(A: Tensor) -> float:
    """Largest absolute entry; NaN or infinite where an entry is."""
    return float(torch.linalg.vector_norm(A.detach(), math.inf))


def largest_of_groups(A: Tensor) -> Tensor:
    """Largest absolute entry of each group of (g, ·, ·), (g,) float64."""
    return torch.linalg.vector_norm(A, math.inf, dim=(1, 2)).double()


def columns(A: Tensor, scale: float | Tensor = 1.0) -> Iterator[Tensor]:
    """``A / scale`` (g, out, in) in float64, in blocks of columns."""
    return (block.double() / scale for block in A.split(_COLUMNS, 2))


def gram(A: Tensor, scale: float = 1.0) -> Tensor:
    """``A Aᵀ / scale²``, (g, out, out) float64."""
    out = A.shape[1]
    strips = [slice(start, min(start + _ROWS, out)) for start in range(0, out, _ROWS)]
    S = torch.zeros(len(A), out, out, dtype=torch.float64, device=A.device)
    for block in columns(A, scale):
        for rows in strips:
            S[:, rows, : rows.stop] += block[:, rows] @ block[:, : rows.stop].mT
    for rows in strips:
        S[:, : rows.start, rows] = S[:, rows, : rows.start].mT
    return S


def smaller_gram(A: Tensor, scale: float = 1.0) -> Tensor:
    """``A Aᵀ`` or ``AᵀA``, whichever is smaller: their norms and their non-zero spectra are the same."""
    return gram(A if A.shape[1] <= A.shape[2] else A.mT, scale)


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of one tensor or more, of one shape."""
    return functools.reduce(torch.add, parts)


def pooled(A: Tensor, max_size: int | None) -> Tensor:
    """Columns of (g, out, in) averaged in at most ``max_size`` blocks; float64."""
    if max_size is None or A.shape[2] <= max_size:
        return A.double()
    parts = A.split(_ROWS, 1)
    return torch.cat([torch.nn.functional.adaptive_avg_pool1d(rows.double(), max_size) for rows in parts], 1)


@dataclass
class EntrySums:
    """Sums over the entries of two symmetric matrices N and G, and the parts that lie on the diagonals.

    Attributes:
        count: number of entries.
        n: sum of the entries of N; likewise ``g``.
        nn: sum of the squared entries of N; likewise ``gg``, and ``ng`` for the products.
        on_diagonal: the parts of n, g, nn, gg and ng that lie on the diagonals.
    """

    count: int
    n: float
    g: float
    nn: float
    gg: float
    ng: float
    on_diagonal: tuple[float, ...]

    def everywhere(self) -> tuple[float, ...]:
        """n, g, nn, gg, ng."""
        return self.n, self.g, self.nn, self.gg, self.ng

    def off_diagonal(self) -> tuple[float, ...]:
        """The parts of n, g, nn, gg, ng off the diagonals."""
        return tuple(total - on for total, on in zip(self.everywhere(), self.on_diagonal, strict=True))


def feature_entry_sums(
    W: Tensor, scale: float, lift: Tensor, values: Tensor, inner: Tensor, nn: Tensor
) -> EntrySums:
    """Sums over the entries of ``N = WᵀW`` and ``G = L diag(values) Lᵀ`` with ``L = Wᵀ lift``.

    Args:
        W: (g, out, in), divided by ``scale`` first.
        scale: see ``W``.
        lift: (g, out, k); the columns of L are orthonormal.
        values: (g, k) eigenvalues of G.
        inner: ``⟨N, G⟩``.
        nn: ``‖N‖²``.
    """
    row_sum, on_diagonal = _diagonal_sums(
        W, scale, lambda block: ((block.mT @ lift).square() @ values[:, :, None]).squeeze(-1)
    )
    g = (values * (lift.mT @ row_sum[:, :, None]).squeeze(-1).square()).sum()
    return _sums(W, row_sum, on_diagonal, g, nn, values.square().sum(), inner)


def linear_entry_sums(
    W: Tensor, scale: float, C: Tensor, *, inner: Tensor, nn: Tensor, gg: Tensor
) -> EntrySums:
    """As `feature_entry_sums`, of ``N = WᵀW`` and ``G = WᵀCW`` for C (g, out, out) and ``gg = ‖G‖²``."""
    row_sum, on_diagonal = _diagonal_sums(W, scale, lambda block: (block * (C @ block)).sum(1))
    g = (row_sum * (C @ row_sum[:, :, None]).squeeze(-1)).sum()
    return _sums(W, row_sum, on_diagonal, g, nn, gg, inner)


def _diagonal_sums(W: Tensor, scale: float, of_block: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """``W 1`` (g, out), and sums over the diagonals n, g of n, g, n², g² and ng; g from each block of W."""
    row_sum = W.new_zeros(W.shape[:2], dtype=torch.float64)
    on_diagonal = row_sum.new_zeros(5)
    for block in columns(W, scale):
        row_sum += block.sum(-1)
        n, g = block.square().sum(1), of_block(block)
        on_diagonal += torch.stack([n.sum(), g.sum(), (n * n).sum(), (g * g).sum(), (n * g).sum()])
    return row_sum, on_diagonal


def _sums(
    W: Tensor, row_sum: Tensor, on_diagonal: Tensor, g: Tensor, nn: Tensor, gg: Tensor, ng: Tensor
) -> EntrySums:
    whole = torch.stack([row_sum.square().sum(), g, nn, gg, ng])
    everywhere, on = torch.stack([whole, on_diagonal]).tolist()  # at once: each move from a device waits
    sums = dict(zip(("n", "g", "nn", "gg", "ng"), everywhere, strict=True))
    return EntrySums(W.shape[0] * W.shape[2] ** 2, **sums, on_diagonal=tuple(on))


def pearson(part: tuple[float, ...], whole: tuple[float, ...], count: int) -> float:
    """Pearson correlation over the ``count`` entries whose n, g, nn, gg, ng are ``part``.

    ``part`` may be a difference of sums of the size of ``whole``: a variance below 1e-10 of that size
    has lost its digits, and the correlation is NaN.
    """
    if count < 2:
        return NAN
    n, g, nn, gg, ng = part
    var_n, var_g = nn - n * n / count, gg - g * g / count
    if var_n <= 1e-10 * whole[2] or var_g <= 1e-10 * whole[3]:
        return NAN
    return min(1.0, max(-1.0, (ng - n * g / count) / math.sqrt(var_n * var_g)))


def blocks(matrix: Tensor, what: str) -> tuple[Tensor, float]:
    """A matrix as (groups, ·, ·), and the scale that brings its largest entry to one.

    Raises:
        NfaError: no such matrix, or entries that are not finite.
    """
    return blocks_of((matrix, what))[0]


def blocks_of(*matrices: tuple[Tensor, str]) -> list[tuple[Tensor, float]]:
    """`blocks` of several, each with what it is, whose scales are moved from a device at once."""
    for matrix, what in matrices:
        real = isinstance(matrix, Tensor) and matrix.is_floating_point() and matrix.layout == torch.strided
        if not real or matrix.dim() not in (2, 3) or matrix.numel() == 0 or matrix.is_meta:
            raise NfaError(
                f"{what} must be a non-empty real (out, in) or (groups, out, in) tensor, got {told(matrix)}"
            )
    sizes = [torch.linalg.vector_norm(matrix.detach(), math.inf).double() for matrix, _ in matrices]
    scales = torch.stack(sizes).tolist() if len({size.device for size in sizes}) == 1 else map(float, sizes)
    found = []
    for (matrix, what), scale in zip(matrices, scales, strict=True):
        if not math.isfinite(scale):
            raise NfaError(f"{what} has entries that are not finite")
        found.append((matrix.detach() if matrix.dim() == 3 else matrix.detach()[None], or_one(scale)))
    return found


def check_shape(what: str, blocks: Tensor, expected: tuple[int, ...], W: Tensor) -> None:
    """Refuse what does not belong to a weight."""
    if blocks.shape != expected:
        raise NfaError(
            f"a weight of shape {tuple(W.shape)} needs a {what} of shape {expected}, "
            f"got {tuple(blocks.shape)}"
        )


def or_one(scale: float) -> float:
    """A scale, or 1 where that is zero."""
    return scale if scale > 0 else 1.0
