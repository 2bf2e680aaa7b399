"""Synthetic tasks whose relevant directions are known."""

from typing import Any

import torch

from datamodules.base import TensorDataModule
from datamodules.checks import check_count
from datamodules.splits import Split
from nfa.errors import NfaError
from nfa.inputs.stratify import generator


class LowRank(TensorDataModule):
    """Regression of ``y = x_1 x_2`` on ``x ~ N(0, I)``: two of `dim` directions matter.

    Args:
        n: number of training samples drawn, validation included.
        n_test: number of test samples drawn.
        dim: length of x.
        normalize: see `TensorDataModule`; nothing to do by default, x is standard normal.
        base: other options of `TensorDataModule`.

    Raises:
        NfaError: an option is out of range.
    """

    def __init__(
        self, n: int = 2000, n_test: int = 2000, dim: int = 100, *, normalize: str = "none", **base: Any
    ) -> None:
        super().__init__(n_test=n_test, normalize=normalize, **base)
        check_count("data.n", n)
        if dim < 2:
            raise NfaError(f"expected data.dim of at least 2, for y = x_1 x_2, got {dim}")
        self.n, self.dim = n, dim

    def load(self) -> tuple[Split, Split]:
        """Draw x float32 (n, dim) and y float32 (n, 1), as a pure function of the seed."""
        return self._draw(self.n, "low rank train"), self._draw(self.n_test, "low rank test")

    def _draw(self, n: int, key: str) -> Split:
        x = torch.randn(n, self.dim, generator=generator(self.seed, key))
        return Split(x, x[:, :1] * x[:, 1:2])
