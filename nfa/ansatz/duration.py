"""How long the statistics of layers take, known before they are computed: a small layer, timed and scaled."""

import time
from collections.abc import Sequence

import torch

from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.wide_nulls import WIDE

_RANK = 128  # of the layer that is timed
_SUMS = 8
_WIDE_SHARE = 0.4  # of that, in wide layers, whose errors are found to first order: 0.35 to 0.4 were seen
_GROWTH = 2.3  # of the time with the rank: cubes in theory, of routines that are the faster the larger it is


class Statistics:
    """The statistics of some layers, in seconds; the layer that tells is timed when that is first asked for.

    Args:
        ranks: (groups, rank) of each layer, the rank being the smaller side of its weight.
        nulls: random rotations of the null, for narrow layers.
    """

    def __init__(self, ranks: Sequence[tuple[int, int]], nulls: int):
        self.ranks, self.nulls = ranks, nulls
        self._seconds: float | None = None

    @property
    def shares(self) -> list[float]:
        """What each layer takes of the whole, in any unit."""
        return [groups * rank**_GROWTH for groups, rank in self.ranks]

    @property
    def seconds(self) -> float:
        """Of all layers together, about."""
        if self._seconds is None:
            others, null = map(min, zip(_timed(), _timed(), strict=True))  # the first call is slower
            self._seconds = sum(
                share / _RANK**_GROWTH * (_WIDE_SHARE * others if wide else others + draws * null)
                for share, (wide, draws) in zip(self.shares, map(self._chance, self.ranks), strict=True)
            )
        return self._seconds

    def _chance(self, layer: tuple[int, int]) -> tuple[bool, int]:
        """Whether a layer's null and errors are found without rotations, and how many it has else."""
        groups, rank = layer
        return groups == 1 and rank > WIDE, draws_for(rank, self.nulls)


def _timed() -> tuple[float, float]:
    """Seconds of all statistics of one layer but the null, and of one draw of the null."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(_RANK, 2 * _RANK, generator=generator, dtype=torch.float64)
    halves = torch.randn(_SUMS, _RANK, _RANK, generator=generator, dtype=torch.float64)
    sums = list((halves @ halves.mT)[:, None])
    start = time.perf_counter()
    pair = FeaturePair(W, sensitivity=sum(sums)[0])
    pair.cosine(0.5), pair.alpha_fit(), pair.pearson(0.5), pair.offdiag(0.5), pair.null_isotropic(0.5)
    pair.precision(sums, [1] * _SUMS, 0.5, halves=True)
    middle = time.perf_counter()
    pair.null_cosines(0.5, 1)
    return middle - start, time.perf_counter() - middle


def draws_for(width: int, nulls: int) -> int:
    """Random rotations worth drawing for a layer whose smaller side is ``width``: a draw costs its cube."""
    fewest = 4 if width <= 1024 else 2
    return nulls if width <= 128 else min(nulls, max(fewest, round(nulls * (128 / width) ** 2)))
