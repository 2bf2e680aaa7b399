"""C of one map as it was measured, in parts that average to it, and the pair that it makes with a weight."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nfa import processes
from nfa.ansatz.blockwise import total
from nfa.ansatz.pair import FeaturePair
from nfa.ansatz.precision import Precision


@dataclass
class Sensitivity:
    """C of one map, as replicates that average to it.

    Attributes:
        sums: ``Σ δδᵀ`` of each replicate that has any samples, (groups, q, q) float64; where `factored`, the
            gradients δ themselves, (groups, q, m).
        counts: samples (times probes) behind each replicate.
        basis: None, or (groups, out, q) with orthonormal columns that span what was asked for, when that
            is smaller than the output; C is then stored as ``basisᵀ C basis``.
        mean_outer: (groups, q, q), what centring removes from C; None when not asked for.
        called: whether the module was called.
        reached: whether any gradient arrived.
        resolution: relative rounding of the gradients.
        unfollowed: why part of the map's use could not be followed; None where all of it was.
        factored: whether the sums are given by gradients.
        rows: the gradients of each replicate (groups, q, m) beside their sums, where they are at hand: what
            tells replicates apart is found from few of them at less cost.
        is_output: whether the map's output is the output of the network, up to one factor: C is a multiple of
            the identity whatever the weights.
    """

    sums: dict[int, Tensor]
    counts: list[int]
    basis: Tensor | None = None
    mean_outer: Tensor | None = None
    called: bool = True
    reached: bool = True
    resolution: float = 0.0
    is_output: bool = False
    factored: bool = False
    unfollowed: str | None = None
    rows: dict[int, Tensor] | None = None

    @cached_property
    def matrix(self) -> Tensor:
        """C as (groups, q, q) float64, centred when that was asked for."""
        C = total(self.dense().values()) / max(sum(self.counts), 1)
        if self.mean_outer is None:
            return C
        centered = C - self.mean_outer
        # A network that is linear from here on has no gradient but the mean: what is left is rounding.
        return centered if float(centered.norm()) > 8 * self.resolution * float(C.norm()) else C * 0

    @property
    def factor(self) -> Tensor:
        """X (groups, q, m) with ``C = X Xᵀ``, where `factored`."""
        return torch.cat(list(self.sums.values()), 2) / math.sqrt(max(sum(self.counts), 1))

    def dense(self) -> dict[int, Tensor]:
        """The sums as (groups, q, q) float64."""
        if not self.factored:
            return self.sums
        return {slot: X.double() @ X.double().mT for slot, X in self.sums.items()}

    def merged(self) -> "Sensitivity":
        """The same C without its replicates."""
        C = self.factor if self.factored else self.matrix
        return Sensitivity({0: C}, [1], self.basis, resolution=self.resolution, factored=self.factored)

    def reduce(self, weight: Tensor) -> Tensor:
        """A weight (groups, out, in) in the coordinates of C, (groups, q, in)."""
        if self.basis is None:
            return weight
        return self.basis.mT @ weight.to(self.basis)

    def at_outputs(self, C: Tensor) -> Tensor:
        """C (groups, q, q) in the coordinates of the map's output, (groups, out, out)."""
        if self.basis is None:
            return C
        basis = self.basis.to(C)
        return basis @ C @ basis.mT

    def pair(self, weight: Tensor) -> FeaturePair:
        """C with the weight (groups, out, in) of the map, in the coordinates in which C was measured."""
        W = self.reduce(weight.to(next(iter(self.sums.values())).device))
        C = self.factor if self.factored else self.matrix
        if len(W) == 1:
            W, C = W[0], C[0]
        eps = torch.finfo(weight.dtype).eps
        if self.factored:
            return FeaturePair(W, factor=C, resolution=eps, noise=self.resolution)
        return FeaturePair(W, C, resolution=eps, noise=self.resolution)

    def precision(
        self,
        pair: FeaturePair,
        power: float,
        *,
        halves: bool = False,
        corrected: bool = False,
        null: Tensor | None = None,
        seed: int = 0,
    ) -> Precision:
        """How well the statistics of its pair are known; a centred C has no replicates that are centred.

        The options are those of `FeaturePair.precision`.
        """
        if self.mean_outer is not None:
            return Precision()
        counts = [self.counts[slot] for slot in self.sums]
        parts, factors = self.sums, self.factored
        if self.rows is not None and not corrected:  # what is corrected hangs on the rounding of sums
            parts, factors = self.rows, True
        return pair.precision(
            list(parts.values()), counts, power, factors=factors,
            halves=halves, corrected=corrected, null=null, seed=seed,
        )  # fmt: skip

    def all_reduce(self) -> None:
        """Add up what all ranks of the default process group have, in place; each rank gets the sum."""
        some = next(iter(self.dense().values()))
        flags = [float(self.called), float(self.reached), float(self.is_output)]
        numbers = torch.tensor([*flags, *self.counts], dtype=torch.float64, device=some.device)
        processes.summed(numbers)
        called, reached, is_output, *counts = numbers.tolist()
        self.called, self.reached = called > 0, reached > 0
        self.is_output = is_output == reached > 0  # on every rank that saw a gradient
        self.counts = [int(count) for count in counts]
        mine, self.sums, self.factored, self.rows = self.dense(), {}, False, None
        for slot, count in enumerate(self.counts):
            if count:  # another rank may have had more batches, and so more replicates
                self.sums[slot] = mine[slot] if slot in mine else torch.zeros_like(some)
                processes.summed(self.sums[slot])
