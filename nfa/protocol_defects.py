"""Networks as the code of two papers differentiates them, where that is not what the paper says."""

import copy
from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nfa.errors import NfaError
from nfa.layers.maps import LinearMap


def overwritten(model: nn.Module, entry: LinearMap, weight: Tensor) -> nn.Module:
    """D1: a copy of a network in which one layer has another weight (groups, out, in)."""
    twin = copy.deepcopy(model)
    own = twin.get_submodule(_whole(entry)).get_parameter("weight")
    own.data = weight.reshape(own.shape).to(own)
    return twin


def without_bias(model: nn.Module, entry: LinearMap) -> nn.Module:
    """C1: a copy of a network in which one layer has no bias."""
    twin = copy.deepcopy(model)
    bias = getattr(twin.get_submodule(_whole(entry)), "bias", None)
    if bias is not None:
        bias.data.zero_()
    return twin


def _whole(entry: LinearMap) -> str:
    if entry.rows is not None or entry.parameter != "weight":
        raise NfaError(f"{entry.name} is a part of a weight, of which D1 and C1 say nothing: choose layers")
    return entry.name


def stack_from(
    model: nn.Module, name: str, inputs: Iterable[Tensor], *, one_further: bool, relu: bool
) -> tuple[nn.Module, list[Tensor]] | None:
    """D2 and D3: the rest of a stack from one layer on, and the activations that it is given.

    Args:
        model: an `nn.Sequential` of linear layers and activations.
        name: of the layer.
        inputs: batches of the stack's own inputs.
        one_further: give it, unless it is the first, what follows it in the place of what is before it.
        relu: compute these with ReLU in the place of the stack's activations.

    Returns:
        The rest and its inputs; None where what is given does not fit the layer.

    Raises:
        NfaError: the network is no such stack.
    """
    children = list(model.named_children())
    names = [child for child, _ in children]
    if not isinstance(model, nn.Sequential) or name not in names:
        raise NfaError(
            "D2 and D3 are of an nn.Sequential of linear layers and activations, which this is not"
        )
    linear = [i for i, (_, child) in enumerate(children) if isinstance(child, nn.Linear)]
    at = names.index(name)
    stop = at
    if one_further and at != linear[0]:
        stop = next((i for i in linear if i > at), len(children))
    weight, rest = children[at][1].get_parameter("weight"), nn.Sequential(OrderedDict(children[at:]))
    given = [_passed([child for _, child in children[:stop]], x.to(weight), relu) for x in inputs]
    return (rest, given) if given[0].shape[-1] == weight.shape[-1] else None


@torch.no_grad()
def _passed(children: list[nn.Module], x: Tensor, relu: bool) -> Tensor:
    for child in children:
        kept = isinstance(child, nn.Linear | nn.Flatten) or not relu
        x = child(x) if kept else x.relu()
    return x
