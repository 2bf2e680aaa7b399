"""Labelled samples in memory, and seeded ways to cut them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.inputs.stratify import stratified_order


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
        if x.ndim < 2 or 0 in x.shape[1:] or y.ndim < 1:
            raise NfaError(f"expected x (n, …) and y (n, …) of one value or more, got {_shapes(x, y)}")
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


def _shapes(x: Tensor, y: Tensor) -> str:
    return f"{tuple(x.shape)} and {tuple(y.shape)}"


def cut(y: Tensor, fraction: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Set a stratified part of samples with targets `y` aside: at least one, unless `fraction` is 0.

    Returns:
        int64 indices of the rest, and of the part.
    """
    order = stratified_order(y, rng)
    n = max(1, round(fraction * len(y))) if fraction else 0
    return order[n:], order[:n]


def cut_fold(y: Tensor, folds: int, fold: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Set one of `folds` parts of samples with targets `y` aside.

    Over all of `fold` = 0, …, folds - 1 and the same `rng`, every sample is in exactly one part; sizes of the
    parts, and of each class in them, differ by at most one.

    Returns:
        int64 indices of the rest, and of the part.
    """
    order = torch.randperm(len(y), generator=rng)
    if not y.is_floating_point():
        order = order[y[order].argsort(stable=True)]
    part = torch.arange(len(y)) % folds == fold
    return order[~part].sort().values, order[part].sort().values
