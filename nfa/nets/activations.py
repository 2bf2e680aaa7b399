"""Elementwise nonlinearities by name."""

import torch
from torch import Tensor, nn

from nfa.checks import choice


class Quadratic(nn.Module):
    """``z²``, the activation of the modular-arithmetic networks of arXiv 2407.20199."""

    def forward(self, z: Tensor) -> Tensor:
        """Square each entry."""
        return torch.square(z)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "quadratic": Quadratic,
    "linear": nn.Identity,
}


def activation_layer(name: str) -> nn.Module:
    """Build an activation by name; NfaError for an unknown one."""
    choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()
