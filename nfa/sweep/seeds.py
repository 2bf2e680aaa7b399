"""What backwards start from: where, how many of them there are, and with which gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Start:
    """Where the backwards of a piece start, how many there are, and with what.

    Attributes:
        root: the outputs (samples, k), or the inputs of the head.
        total: backwards, one for each output, probe or direction of the head.
        seeds: gradients (lines, *shape of the root) for some of them, by their numbers.
        at_outputs: whether the root are the outputs.
    """

    root: Tensor
    total: int
    seeds: Callable[[list[int]], Tensor]
    at_outputs: bool


def one_hot(out: Tensor, lines: list[int]) -> Tensor:
    """One output a line: (lines, samples, outputs)."""
    seeds = out.new_zeros(len(lines), *out.shape)
    for position, line in enumerate(lines):
        seeds[position, :, line] = 1
    return seeds


def signs(out: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random ±1 combinations of the outputs (count, samples, outputs), another for each sample."""
    bits = torch.randint(0, 2, (count, *out.shape), generator=generator, dtype=torch.int8)
    return bits.to(out.device, out.dtype).mul_(2).sub_(1)


def laid_out(seeds: Tensor, raw: Tensor) -> Tensor:
    """Seeds (lines, samples, outputs) in the order in which the outputs lie in memory, (lines, ...).

    Outputs with another axis turned to the front are those of a layer all the same.
    """
    if raw.is_contiguous() or seeds[0].numel() != raw.numel():
        return seeds
    order = sorted(range(raw.dim()), key=raw.stride().__getitem__, reverse=True)
    return seeds.reshape(-1, *raw.shape).permute(0, *(axis + 1 for axis in order))
