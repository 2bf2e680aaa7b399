"""Labelled samples in memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.errors import NfaError


@dataclass(frozen=True)
class Split:
    """Samples and their targets, whole, in memory.

    Attributes:
        x: inputs, uint8 images (n, channels, height, width) or floating (n, ...).
        y: int64 class indices (n,), or float32 regression targets (n, outputs).

    Raises:
        NfaError: types, dtypes or shapes are others.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise NfaError(f"expected tensors x and y, got {type(x).__name__} and {type(y).__name__}")
        if len(x) != len(y):
            raise NfaError(f"expected as many targets as inputs, got {len(y)} and {len(x)}")
        if not (x.is_floating_point() or (x.dtype == torch.uint8 and x.ndim == 4)):
            raise NfaError(f"expected uint8 (n, c, h, w) or floating x, got {x.dtype} {tuple(x.shape)}")
        if (y.dtype, y.ndim) not in {(torch.int64, 1), (torch.float32, 2)}:
            raise NfaError(f"expected int64 (n,) or float32 (n, outputs) y, got {y.dtype} {tuple(y.shape)}")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> "Split":
        """Copy the samples at `index`, int64 (m,)."""
        return Split(self.x[index], self.y[index])
