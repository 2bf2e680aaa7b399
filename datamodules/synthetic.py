"""Synthetic tasks whose relevant directions are known: the first few of `dim` coordinates."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.base import TensorDataModule
from datamodules.images import check_room
from datamodules.splits import Split
from lab.options import DATA, SYNTHETIC, check_all
from nfa.errors import NfaError
from nfa.inputs.stratify import generator


class Synthetic(TensorDataModule):
    """Samples drawn as a pure function of the seed. A subclass says how inputs and targets are made.

    Noise is in the training targets only (validation included): test metrics are about the function itself.

    Args:
        n: number of training samples drawn, validation included.
        n_test: number of test samples drawn.
        dim: length of x.
        noise: of the training targets, in the unit that the subclass says.
        normalize: see `TensorDataModule`; nothing to do by default, inputs have mean 0 and variance 1.
        base: other options of `TensorDataModule`.

    Raises:
        NfaError: an option is out of range.
    """

    key: str  # of the random streams

    def __init__(
        self, n: int, n_test: int, dim: int, noise: float = 0.0, *, normalize: str = "none", **base: Any
    ) -> None:
        super().__init__(n_test=n_test, normalize=normalize, **base)
        self.check(n=n, n_test=n_test, dim=dim, noise=noise)
        check_room(max(n, n_test), dim, "data.n, data.n_test or data.dim")
        self.n, self.dim, self.noise = n, dim, noise

    def check(self, **options: Any) -> None:
        """Refuse an option of this class that is of another type or out of range."""
        check_all("data", DATA.get(type(self).__name__, SYNTHETIC), options)

    @abstractmethod
    def function(self, x: Tensor) -> Tensor:
        """Noiseless values float32 (n, 1) of inputs x float32 (n, dim)."""

    def load(self) -> tuple[Split, Split]:
        """Draw x float32 (n, dim), and y as in `Split`."""
        return self._draw(self.n, "train", self.noise), self._draw(self.n_test, "test", 0.0)

    def _draw(self, n: int, part: str, noise: float) -> Split:
        x = self.inputs(n, generator(self.seed, f"{self.key} {part}"))
        y = self.function(x)
        return Split(x, self.disturb(y, noise, generator(self.seed, f"{self.key} {part} noise")))

    def inputs(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw uniform bits, -1 or 1: float32 (n, dim)."""
        return 2.0 * torch.randint(0, 2, (n, self.dim), generator=rng) - 1

    def disturb(self, y: Tensor, noise: float, rng: torch.Generator) -> Tensor:
        """Add Gaussian noise of standard deviation `noise` to y (n, 1)."""
        return y + noise * torch.randn(y.shape, generator=rng) if noise else y


class Polynomial(Synthetic):
    """A polynomial of the inputs, whose gradients are known."""

    @abstractmethod
    def true_agop(self) -> Tensor:
        """``E ∂f ∂fᵀ`` float64 (dim, dim) over the inputs, of the function without noise."""

    def feature_statistics(self, M: Tensor) -> dict[str, float]:
        """Of a feature matrix (dim, dim): cosine with the true AGOP, and share of the trace on the support.

        NaN where it is 0.
        """
        M, G = M.double().cpu(), self.true_agop()
        trace, norm = float(M.trace()), float(M.norm() * G.norm())
        on_support = float(M.diagonal()[G.diagonal() > 0].sum())
        return {
            "true_agop": float((M * G).sum()) / norm if norm else math.nan,
            "support": on_support / trace if trace else math.nan,
        }


class LowRank(Polynomial):
    """Regression of ``y = x_1 x_2`` on ``x ~ N(0, I)``: two of `dim` directions matter.

    As drawn in the paper on recursive feature machines (arXiv 2212.13881) with the defaults and
    ``val_fraction=0``: 2000 training samples in 100 dimensions.

    Args:
        n: see `Synthetic`, also for the other arguments; `noise` is a standard deviation.
        n_test: number of test samples.
        dim: length of x, at least 2.
        noise: standard deviation.
        base: other options.
    """

    key = "low rank"

    def __init__(
        self, n: int = 2000, n_test: int = 2000, dim: int = 100, noise: float = 0.0, **base: Any
    ) -> None:
        super().__init__(n, n_test, dim, noise, **base)

    def inputs(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw standard normal x (n, dim)."""
        return torch.randn(n, self.dim, generator=rng)

    def function(self, x: Tensor) -> Tensor:
        """``x_1 x_2``."""
        return x[:, :1] * x[:, 1:2]

    def true_agop(self) -> Tensor:
        """The gradient is ``(x_2, x_1)``."""
        return _diagonal([1.0, 1.0], self.dim)


class Bits(Polynomial):
    """A function of the first `k` of `dim` uniform bits, -1 or 1.

    Args:
        n: see `Synthetic`, also for the other arguments.
        n_test: number of test samples.
        dim: number of bits.
        k: how many of them, the first ones, matter.
        noise: of the training targets.
        base: other options.
    """

    def __init__(
        self,
        n: int = 5000,
        n_test: int = 2000,
        dim: int = 30,
        k: int = 3,
        noise: float = 0.0,
        **base: Any,
    ) -> None:
        super().__init__(n, n_test, dim, noise, **base)
        self.check(k=k)
        if k > dim:
            raise NfaError(f"expected data.k of at most data.dim={dim}, got {k}")
        self.k = k


class SparseParity(Bits):
    """The parity ``x_1 x_2 … x_k`` of `k` of `dim` uniform bits, -1 or 1 (arXiv 2207.08799).

    Any k - 1 of the relevant bits tell nothing about the target.

    Args:
        n: see `Synthetic`, also for the other arguments.
        n_test: number of test samples.
        dim: number of bits.
        k: how many of them, the first ones, matter.
        noise: probability that a training target is flipped, in [0, 0.5].
        task: ``classification`` (classes -1 and 1) or ``regression`` (the number -1 or 1).
        base: other options.
    """

    key = "sparse parity"

    def __init__(
        self,
        n: int = 5000,
        n_test: int = 2000,
        dim: int = 30,
        k: int = 3,
        noise: float = 0.0,
        task: str = "classification",
        **base: Any,
    ) -> None:
        super().__init__(n, n_test, dim, k, noise, **base)
        self.check(task=task)
        self._classes = task == "classification"

    def function(self, x: Tensor) -> Tensor:
        """``x_1 … x_k``."""
        return x[:, : self.k].prod(1, keepdim=True)

    def true_agop(self) -> Tensor:
        """Of the polynomial: each derivative is the product of the other bits."""
        return _diagonal([1.0] * self.k, self.dim)

    def disturb(self, y: Tensor, noise: float, rng: torch.Generator) -> Tensor:
        """Flip values y (n, 1) with probability `noise`; make them classes int64 (n,) if wanted."""
        y = torch.where(torch.rand(y.shape, generator=rng) < noise, -y, y)
        return (y[:, 0] > 0).long() if self._classes else y

    def load(self) -> tuple[Split, Split]:
        """Draw, and name the classes."""
        self.class_names = ("-1", "1") if self._classes else ()
        return super().load()


class Staircase(Bits):
    """Regression of ``y = x_1 + x_1 x_2 + … + x_1 x_2 … x_k`` on uniform bits, -1 or 1 (arXiv 2108.10573).

    Each term is learned with the help of the one before it, unlike a parity of k bits alone.

    Args:
        n: see `Synthetic`, also for the other arguments.
        n_test: number of test samples.
        dim: number of bits.
        k: number of terms, and of bits that matter.
        noise: standard deviation.
        base: other options.
    """

    key = "staircase"

    def function(self, x: Tensor) -> Tensor:
        """The sum of the first k products."""
        return x[:, : self.k].cumprod(1).sum(1, keepdim=True)

    def true_agop(self) -> Tensor:
        """Of the polynomial: bit i is in k - i + 1 products, without which no two of them are equal."""
        return _diagonal([float(self.k - i) for i in range(self.k)], self.dim)


def _diagonal(first: list[float], dim: int) -> Tensor:
    """A diagonal matrix float64 (dim, dim) that begins with these numbers, and is 0 behind them."""
    return functional.pad(torch.tensor(first, dtype=torch.float64), (0, dim - len(first))).diag()
