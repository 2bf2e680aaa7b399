"""Fully connected networks."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from nfa.errors import NfaError
from nfa.nets.activations import activation_layer


class MLP(nn.Sequential):
    """``depth`` hidden layers of equal width, then a linear output layer.

    Args:
        input_shape: shape of one input; flattened first.
        num_outputs: outputs.
        depth: hidden layers, at least 1.
        width: units of each hidden layer.
        activation: see `nfa.nets.activations.ACTIVATIONS`.
        bias: whether the linear layers have a bias (the networks of arXiv 2212.13881 have none).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        depth: int = 3,
        width: int = 256,
        activation: str = "relu",
        bias: bool = True,
    ):
        if depth < 1 or width < 1:
            raise NfaError(f"an MLP needs depth and width of at least 1, got {depth} and {width}")
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = math.prod(input_shape)
        for i in range(1, depth + 1):
            layers[f"hidden{i}"] = nn.Linear(inputs, width, bias=bias)
            layers[f"activation{i}"] = activation_layer(activation)
            inputs = width
        layers["output"] = nn.Linear(inputs, num_outputs, bias=bias)
        super().__init__(layers)
