"""The parameterisation of neural tangent kernels: ``f = W x / √fan_in`` with weights of variance 1."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nfa.layers.maps import map_kind, weight_blocks


class Scaled(nn.Module):
    """A weight as a fixed factor times what is trained."""

    proportional = True

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, trained: Tensor) -> Tensor:
        """The weight of the map."""
        return self.factor * trained

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is trained, for a weight of the map."""
        return weight / self.factor


def ntk(net: nn.Module) -> nn.Module:
    """Parameterise all linear maps of a network anew, in place (arXiv 1806.07572).

    Of a weight (out, fan_in), for a convolution fan_in is the length of a patch, ``V ~ N(0, 1)`` is drawn and
    trained, and ``V / √fan_in`` is the weight. Biases start at 0 and are trained as they are. So the step of
    a layer does not grow with its width, nor does the tangent kernel.

    Args:
        net: any module; what is no linear map stays as it is.

    Returns:
        The same module.
    """
    for module in list(net.modules()):
        if map_kind(module) is None:
            continue
        fan_in = weight_blocks(module).shape[-1]
        parametrize.register_parametrization(module, "weight", Scaled(1 / math.sqrt(fan_in)))
        with torch.no_grad():
            _trained(module).normal_()
            if isinstance(module.bias, Tensor):
                module.bias.zero_()
    return net


def scale_weights(network: nn.Module, factor: float) -> None:
    """Multiply the weights of all linear maps by a factor, in place."""
    if factor == 1.0:
        return
    with torch.no_grad():
        for module in network.modules():
            if map_kind(module) is None or not isinstance(module.weight, Tensor):
                continue
            _trained(module).mul_(factor)


def set_weight(module: nn.Module, weight: Tensor) -> None:
    """Give a map a weight, however it is kept."""
    with torch.no_grad():
        if parametrize.is_parametrized(module, "weight"):
            module.weight = weight
        else:
            _trained(module).copy_(weight)


def _trained(module: nn.Module) -> Tensor:
    """What is trained of the weight of a map."""
    if parametrize.is_parametrized(module, "weight"):
        return module.get_parameter("parametrizations.weight.original")
    weight = module.weight
    assert isinstance(weight, Tensor)  # of every map
    return weight
