"""Image pairs shared out over the processes of the default group; each of them gets the whole result."""

from collections.abc import Callable

import torch
from torch import Tensor, distributed

from nfa import processes
from nfa.kernels.conv import ConvKernel
from nfa.kernels.spans import spans

_BLOCKS = 8  # of images for each process: small enough to share evenly


def shared_matrix(
    kernel: ConvKernel,
    X: Tensor,
    transform: Tensor | None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """`ConvKernel.matrix` (n, n) of images X (n, c, h, w), which are the same on all processes."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    ranges = list(spans(len(X), max(-(-len(X) // (_BLOCKS * world)), 1)))
    pairs = [(rows, columns) for i, rows in enumerate(ranges) for columns in ranges[i:]][rank::world]
    K = X.new_zeros(len(X), len(X))
    for done, (rows, columns) in enumerate(pairs, 1):
        if rows == columns:
            K[rows, rows] = kernel.matrix(X[rows], transform=transform)
        else:
            block = kernel.matrix(X[rows], X[columns], transform)
            K[rows, columns], K[columns, rows] = block, block.mT
        if progress is not None:
            progress(done, len(pairs))
    return processes.summed(K)


def shared_mean(of: Callable[[Tensor], Tensor], points: Tensor, like: Tensor) -> Tensor:
    """Mean over points of what ``of`` gives as the mean over some of them, (D, D) float64.

    Args:
        of: from indices (m,) to the mean over these points; not called where a process has none.
        points: indices (m,), the same on all processes.
        like: (D, D), a tensor of the shape and on the device of the result.
    """
    mine = points[distributed.get_rank() :: distributed.get_world_size()]
    total = torch.zeros_like(like, dtype=torch.float64)
    if len(mine):
        total += of(mine) * len(mine)
    return processes.summed(total) / len(points)
