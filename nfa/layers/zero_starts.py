"""Weights that a network starts with at zero, so that no gradient passes them before the first step.

Many networks begin each residual branch with a last scale or weight of zero. Such a start has nothing to
measure below these; small random values in their places show the same architecture at a start that has.
"""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

SCALE = 0.1  # standard deviation; scales of normalisations are 1 elsewhere
_ADDED = ("bias", "beta", "shift", "token", "pos", "embed")  # what is added: a gradient passes by it


def zero_starts(model: nn.Module) -> dict[str, Tensor]:
    """Scales and weights that are zero throughout, by name; what is added (biases, tokens) is none."""
    return {
        name: p
        for name, p in model.named_parameters()
        if not is_lazy(p) and p.is_floating_point() and p.numel() and not bool(p.any())
        and not any(word in name.rpartition(".")[2].lower() for word in _ADDED)
    }  # fmt: skip


def fill_zero_starts(model: nn.Module, seed: int) -> list[str]:
    """Draw what starts at zero from N(0, `SCALE`²), in place; returns the names."""
    generator = torch.Generator().manual_seed(seed)
    found = zero_starts(model)
    with torch.no_grad():
        for p in found.values():
            p.copy_(SCALE * torch.randn(p.shape, generator=generator))
    return list(found)
