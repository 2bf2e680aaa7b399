"""Samples that several processes hold, brought together on each of them in their original order."""

import torch
from torch import Tensor, distributed


def gather_samples(x: Tensor) -> Tensor:
    """Interleave the rows of all ranks: rank r of w holds samples r, r + w, r + 2w, …; (n, …) on every rank.

    Ranks may hold numbers of rows that differ by one, the first ones more.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    world = distributed.get_world_size()
    counts = [torch.zeros((), dtype=torch.int64, device=x.device) for _ in range(world)]
    distributed.all_gather(counts, torch.tensor(len(x), dtype=torch.int64, device=x.device))
    longest = max(int(count) for count in counts)
    padded = x.new_zeros(longest, *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded)
    total = sum(int(count) for count in counts)
    return torch.stack(parts, 1).flatten(0, 1)[:total]
