"""Balanced weights for a chain of linear maps."""

import itertools

import torch
from torch import nn

from nfa.errors import NfaError
from nfa.nets.parameterization import set_weight

_LARGEST, _LEAST = 1.0, 0.4  # singular values of every map


def balanced(net: nn.Module) -> nn.Module:
    """Draw the weights of a deep linear network anew, in place, so that neighbours are balanced.

    ``W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ``, with singular values from 1 to 0.4 that are all distinct, and random
    singular vectors. Gradient flow keeps this balance, so that ``WᵀW`` of map l of L is proportional to the
    power 1/(L − l + 1) of its AGOP at all times (arXiv 2510.15563).

    Args:
        net: an ``nn.Sequential`` of linear maps without bias, with nothing that acts between them.

    Returns:
        The same module.

    Raises:
        NfaError: it is anything else.
    """
    layers = list(net.children()) if isinstance(net, nn.Sequential) else [net]
    for layer in layers:
        is_map = isinstance(layer, nn.Linear) and layer.bias is None
        if not (is_map or isinstance(layer, nn.Flatten | nn.Identity)):
            raise NfaError(
                "balanced weights are of a chain of linear maps without bias, got "
                f"{type(layer).__name__}: give model.activation=linear model.bias=false"
            )
    maps = [layer for layer in layers if isinstance(layer, nn.Linear)]
    sizes = [maps[0].in_features, *(m.out_features for m in maps)]
    rank = min(sizes)
    values = torch.linspace(_LARGEST, _LEAST, rank, dtype=torch.float64)
    bases = [torch.linalg.qr(torch.randn(size, rank, dtype=torch.float64))[0] for size in sizes]
    for layer, (before, after) in zip(maps, itertools.pairwise(bases), strict=True):
        set_weight(layer, ((after * values) @ before.mT).to(layer.weight.dtype))
    return net
