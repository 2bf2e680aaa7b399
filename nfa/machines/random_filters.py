"""Random filters of a deep convolutional machine: a convolution as it was drawn, and what comes after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from nfa.checks import choice, settle, whole
from nfa.kernels.conv import PADDINGS

ACTIVATIONS = ("none", "relu")


@dataclass(frozen=True)
class ConvFeatures:
    """What a layer hands on: ``pool(φ(A T u))`` for every patch u, with A (width, D) standard normal.

    The filters ``A T`` are random with the covariance M. As T has Frobenius norm 1, M is divided by its
    trace already; no scale of the filters changes a prediction.

    Args:
        width: number of filters.
        activation: φ, ``none``, as published, or ``relu``.
        padding: ``none``, or ``zero`` for ``patch_size // 2`` zeros on each side.
        stride: of the convolution.
        pool: side of the squares whose mean is handed on.

    Raises:
        NfaError: an option is out of range.
    """

    collapses: ClassVar[bool] = False

    width: int = 64
    activation: str = "none"
    padding: str = "none"
    stride: int = 1
    pool: int = 1

    def __post_init__(self):
        for name, known in (("activation", ACTIVATIONS), ("padding", PADDINGS)):
            settle(self, **{name: choice(name, getattr(self, name), known)})
        for name in ("width", "stride", "pool"):
            settle(self, **{name: whole(name, getattr(self, name), 1)})

    def filters(self, D: int, generator: torch.Generator) -> Tensor:
        """A (width, D), in float64 on the CPU."""
        return torch.randn(self.width, D, generator=generator, dtype=torch.float64)

    def border(self, patch_size: int) -> int:
        """Zeros on each side."""
        return patch_size // 2 if self.padding == "zero" else 0

    def shape(self, shape: Sequence[int], patch_size: int) -> tuple[int, int, int]:
        """(c, h, w) of what is handed on for images (c, h, w); a size below 1 where nothing is left."""
        border = 2 * self.border(patch_size)
        h, w = (((side + border - patch_size) // self.stride + 1) // self.pool for side in shape[1:])
        return self.width, h, w

    def finished(self, z: Tensor) -> Tensor:
        """``pool(φ(z))``."""
        z = F.relu(z) if self.activation == "relu" else z
        return z if self.pool == 1 else F.avg_pool2d(z, self.pool)
