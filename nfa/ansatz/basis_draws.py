"""What chance gives where few directions make its shape matter: rotations drawn, and ranks of single rows.

The share of the eigenbasis (`nfa.ansatz.basis`) has an exact mean and variance under rotation, but its
distribution is skew where the range of W has few directions. There rotations are drawn, and the share is read
against their percentiles.

A group of one direction has no basis, and the alignment of such groups is Pearson's correlation of ``‖w_g‖²``
with ``c_g``, which the few largest decide. Their ranks say whether one grows with the other at all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nfa.ansatz.basis import Spectrum, chance
from nfa.ansatz.best_exponent import SMALL
from nfa.ansatz.blockwise import NAN
from nfa.ansatz.forms import Frame, haar, ratio
from nfa.ansatz.told import Told

_ENTRIES = 2**22  # of rotations that are held at a time
_FEWEST = 3  # groups, of which ranks tell anything


def drawn_shares(spectrum: Spectrum, C: Told, draws: int, seed: int) -> Tensor:
    """`Basis.share` of ``draws`` sensitivities with the spectrum of C, rotated at random in each group.

    Args:
        spectrum: of the weight.
        C: the sensitivity in its coordinates.
        draws: how many.
        seed: of the rotations.

    Returns:
        (draws,) float64; none where the share is undefined, or the range of W has `SMALL` directions or more.
    """
    ranks = spectrum.ranks
    if max(ranks) >= SMALL or draws < 1 or not C.basis.room > 0:
        return torch.zeros(0, dtype=torch.float64)
    rng, values = torch.Generator().manual_seed(seed), C.spectrum()
    above = torch.zeros(draws, dtype=torch.float64)
    for group, (rank, square) in enumerate(zip(ranks, C.powers[0].tolist(), strict=True)):
        sizes = [stop - start for start, stop in spectrum.blocks[group]]
        if len(sizes) < 2:
            continue  # one direction, or all are equal: any basis is one
        on = _drawn_on_blocks(values[group], rank, sizes, draws, rng)
        above += on - chance(rank, sizes) * square
    return above / C.basis.room


def _drawn_on_blocks(
    values: Tensor, rank: int, sizes: Sequence[int], draws: int, rng: torch.Generator
) -> Tensor:
    """``Σ_B ‖c′_BB‖²`` of c′ with these eigenvalues (k,), less their mean, in random bases, (draws,)."""
    spectrum = torch.zeros(rank, dtype=torch.float64)
    spectrum[: min(rank, len(values))] = values[:rank]
    spectrum -= spectrum.mean()
    on = torch.block_diag(*[torch.ones(size, size, dtype=torch.float64) for size in sizes])
    at_once, found = max(1, _ENTRIES // rank**2), []
    for start in range(0, draws, at_once):
        Q = haar(min(at_once, draws - start), rank, rng)
        if max(sizes) == 1:
            found.append((Q.square() @ spectrum).square().sum(-1))
        else:
            found.append((((Q * spectrum) @ Q.mT).square() * on).sum((1, 2)))
    return torch.cat(found)


def percentile(value: float, null: Tensor) -> float:
    """Per cent of the draws that a value exceeds, half of those that it equals; NaN without any draw."""
    if not len(null) or value != value:
        return NAN
    return 100 * float((null < value).double().mean() + (null == value).double().mean() / 2)


def rank_correlation(frame: Frame, C: Told) -> float:
    """Spearman's correlation of ``‖w_g‖²`` with ``c_g`` over groups of one direction; NaN for any others."""
    if int(frame.keep.sum(-1).max()) > 1 or int(frame.keep.sum()) < _FEWEST:
        return NAN
    x, y = (_ranks(v[frame.keep]) for v in (frame.sigma2, C.diagonal()))
    return ratio(x @ y, x.norm() * y.norm())


def _ranks(values: Tensor) -> Tensor:
    """Ranks less their mean, equal values sharing theirs."""
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts.double() - 1) / 2)[places]
    return ranks - ranks.mean()
