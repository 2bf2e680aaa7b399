"""Two clusters of points with the numbers -1 and 1 as targets: the toy of catapults and quadratic models."""

from typing import Any

import torch
from torch import Tensor

from datamodules.splits import Split
from datamodules.synthetic import Synthetic
from nfa.inputs.stratify import generator


class TwoClusters(Synthetic):
    """Points ``N(±distance e₁, I)`` in turn, whose target is the sign of their cluster (arXiv 2205.11787).

    In one dimension, the default, the tangent kernel of two layers of ReLU without bias has two directions,
    one a cluster, so that what a rate does to each of them can be followed.

    Args:
        n: see `Synthetic`, also for the other arguments.
        n_test: number of test points.
        dim: length of x.
        noise: standard deviation.
        distance: of the centres from 0.
        base: other options.
    """

    key = "two clusters"

    def __init__(
        self,
        n: int = 128,
        n_test: int = 1000,
        dim: int = 1,
        noise: float = 0.0,
        distance: float = 2.0,
        **base: Any,
    ) -> None:
        super().__init__(n, n_test, dim, noise, **base)
        self.check(distance=distance)
        self.distance = distance

    def function(self, x: Tensor) -> Tensor:
        """The likelier sign."""
        return torch.where(x[:, :1] < 0, -1.0, 1.0)

    def _draw(self, n: int, part: str, noise: float) -> Split:
        rng = generator(self.seed, f"{self.key} {part}")
        sign = 1.0 - 2 * (torch.arange(n) % 2)
        x = torch.randn(n, self.dim, generator=rng)
        x[:, 0] += self.distance * sign
        noisy = self.disturb(sign[:, None], noise, generator(self.seed, f"{self.key} {part} noise"))
        return Split(x, noisy)
