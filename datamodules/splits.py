"""Labelled samples in memory, and seeded class-stratified orders to cut them by."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.errors import NfaError


@dataclass(frozen=True)
class Split:
    """Samples and their targets, whole, in memory.

    Attributes:
        x: inputs, uint8 images (n, channels, height, width) or floating (n, ...).
        y: int64 class indices (n,), or float32 regression targets (n, outputs).

    Raises:
        NfaError: types, dtypes or shapes are others.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise NfaError(f"expected tensors x and y, got {type(x).__name__} and {type(y).__name__}")
        if len(x) != len(y):
            raise NfaError(f"expected as many targets as inputs, got {len(y)} and {len(x)}")
        if not (x.is_floating_point() or (x.dtype == torch.uint8 and x.ndim == 4)):
            raise NfaError(f"expected uint8 (n, c, h, w) or floating x, got {x.dtype} {tuple(x.shape)}")
        if (y.dtype, y.ndim) not in {(torch.int64, 1), (torch.float32, 2)}:
            raise NfaError(f"expected int64 (n,) or float32 (n, outputs) y, got {y.dtype} {tuple(y.shape)}")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> "Split":
        """Copy the samples at `index`, int64 (m,)."""
        return Split(self.x[index], self.y[index])


def generator(*key: int | str) -> torch.Generator:
    """Make a CPU generator that is a pure function of `key`; related keys give unrelated streams."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def stratified_order(y: Tensor, rng: torch.Generator) -> Tensor:
    """Draw an order whose every prefix holds the classes in their overall proportions, up to rounding.

    The r-th of the n_c samples of a class (r = 0, 1, …, at random) is placed at quantile (r + 1/2) / n_c.

    Args:
        y: int64 classes (n,); for float targets (n, outputs) the order is a plain permutation.
        rng: source of the randomness.

    Returns:
        int64 indices (n,).
    """
    order = torch.randperm(len(y), generator=rng)
    if y.is_floating_point():
        return order
    labels, by_class = y[order].sort(stable=True)
    counts = y.bincount()
    first = counts.cumsum(0) - counts
    quantile = (torch.arange(len(y)) - first[labels] + 0.5) / counts[labels]
    # classes of one size share their quantiles: ties are broken at random, not by the number of the class
    ties = torch.randperm(len(y), generator=rng)
    return order[by_class[ties[quantile[ties].argsort(stable=True)]]]
