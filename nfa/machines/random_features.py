"""Random features Φ of a deep recursive feature machine: a linear map as it was drawn, and a nonlinearity."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nfa.checks import choice, flag, number, positive, settle, whole
from nfa.errors import NfaError

ACTIVATIONS = ("relu", "laplace")
NORMS = (1, 2)


class ZeroRowsWarning(UserWarning):
    """Points without a direction are among those to be scaled to unit length."""


@dataclass(frozen=True)
class RandomFeatures:
    """What is drawn: ``Φ(x) = relu(R x + b)`` or ``Φ(x) = √(2/D) cos(R x + b)`` with D features.

    ``relu`` is an ``nn.Linear`` as it is initialised, R and b uniform in ``±1/√d``. ``laplace`` has Cauchy
    frequencies and uniform phases, so that ``E Φ(x)·Φ(z) = exp(-gamma ‖x - z‖)`` in the norm that is chosen
    (Rahimi and Recht 2007).

    Args:
        activation: ``relu`` or ``laplace``.
        width: D.
        gamma: of ``laplace``, the inverse of a length.
        norm: of ``laplace``: 1 draws each coordinate of a frequency on its own, 2 draws them jointly.
        bias: whether ``relu`` has a bias.

    Raises:
        NfaError: an option is out of range.
    """

    collapses: ClassVar[bool] = True  # a history tells how far the classes are one point in each layer

    activation: str = "relu"
    width: int = 512
    gamma: float = 0.1
    norm: int = 1
    bias: bool = False

    def __post_init__(self):
        settle(
            self,
            activation=choice("activation", self.activation, ACTIVATIONS),
            width=whole("width", self.width, 1),
            gamma=positive("gamma", self.gamma),
            norm=number("norm", self.norm, lambda norm: norm in NORMS, "1 or 2"),
            bias=flag("bias", self.bias),
        )

    def draw(self, in_features: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """R (D, d) and b (D,), None without a bias, in float64 on the CPU."""

        def drawn(sample: Callable[..., Tensor], *size: int) -> Tensor:
            return sample(*size, dtype=torch.float64, generator=generator)

        D, d = self.width, in_features
        if self.activation == "relu":
            R = (2 * drawn(torch.rand, D, d) - 1) / d**0.5
            return R, (2 * drawn(torch.rand, D) - 1) / d**0.5 if self.bias else None
        R = self.gamma * drawn(torch.randn, D, d) / drawn(torch.randn, D, d if self.norm == 1 else 1).abs()
        return R, 2 * math.pi * drawn(torch.rand, D)

    def shape(self, shape: Sequence[int], patch_size: int = 1) -> tuple[int]:
        """Of what is handed on for points of this shape."""
        return (self.width,)

    def nonlinearity(self) -> nn.Module:
        """The module that comes after the linear map."""
        return nn.ReLU() if self.activation == "relu" else Cosine()


class Cosine(nn.Module):
    """``√(2/D) cos(z)``."""

    def forward(self, z: Tensor) -> Tensor:
        """(n, D) to (n, D)."""
        return z.cos() * (2 / z.shape[-1]) ** 0.5


class UnitRows(nn.Module):
    """``x / ‖x‖``; a row of zeros stays as it is and has the gradient zero."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) to (n, d); the norms are taken in float64."""
        norm = torch.linalg.vector_norm(x.double(), dim=-1, keepdim=True)
        zero = norm == 0
        scale = torch.where(zero, 0.0, 1 / torch.where(zero, 1.0, norm))
        return (x * scale).to(x.dtype)


def check_rows(H: Tensor, layer: int) -> None:
    """Tell of rows without a direction.

    Raises:
        NfaError: there are no others.
    """
    zero = int((H == 0).all(1).sum())
    if not zero:
        return
    advice = "remove them" if layer == 0 else "give a larger width or a bias"
    advice = f"{advice}, or unit_norm=False"
    if zero == len(H):
        raise NfaError(f"layer {layer} cannot scale its inputs to unit length, all are zero: {advice}")
    warnings.warn(
        f"{zero} of {len(H)} inputs of layer {layer} are zero, have no direction and stay zero: {advice}",
        ZeroRowsWarning,
        stacklevel=7,  # the caller of DeepRFM.fit
    )
