"""Seeded, class-stratified orders: every prefix of one stands for the whole."""

import hashlib

import torch
from torch import Tensor


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
