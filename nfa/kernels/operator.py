"""Products with a kernel matrix that is never held as a whole."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nfa.device import out_of_memory, release
from nfa.errors import NfaError
from nfa.kernels.conv_recursion import Workspace
from nfa.kernels.distances import Pairs, fill, tile_entries
from nfa.kernels.halving import Halving
from nfa.kernels.precision import exact_products
from nfa.kernels.profiles import RadialKernel
from nfa.kernels.spans import spans

if TYPE_CHECKING:
    from nfa.kernels.sharded import ShardedOperator


class KernelOperator:
    """``V -> K V`` for ``K = k(‖x_i - x_j‖)``, one tile of K at a time, each evaluated once for both sides.

    What fits in ``cache_bytes`` is kept from the first product on, so that with room for half of K the
    kernel is evaluated once altogether.

    Args:
        kernel: a radial kernel.
        X: (n, d), in coordinates where the distance is Euclidean (`Metric.transform`).
        block_bytes: size of a tile; None takes what suits the device.
        cache_bytes: room for tiles that are kept.

    Attributes:
        size: n.
        dtype: of X, in which K is evaluated; it is multiplied in float64.
        device: of X.
        most_kept: bytes of all tiles, and more.
        shared: whether other processes call it too.
    """

    shared: ClassVar = False

    def __init__(
        self, kernel: RadialKernel, X: Tensor, block_bytes: float | None = None, *, cache_bytes: float = 0.0
    ):
        self.kernel, self._pairs = kernel, Pairs(X)
        self.size, self.dtype, self.device = len(X), X.dtype, X.device
        self._entries = int(block_bytes / X.element_size()) if block_bytes else 8 * tile_entries(X.device)
        self._entries = max(self._entries, 1)
        self.most_kept = len(X) ** 2 * X.itemsize
        self._room = int(cache_bytes / X.element_size())
        self._kept: dict[tuple[int, int], Tensor] = {}

    @property
    def tile_bytes(self) -> int:
        """What a product holds beside its vectors: the tile, and temporary copies of it."""
        return 4 * min(self._entries, self.size**2) * self.dtype.itemsize

    def with_cache(self, cache_bytes: float) -> "KernelOperator":
        """The same operator with room to keep tiles."""
        block_bytes = self._entries * self.dtype.itemsize
        return KernelOperator(self.kernel, self._pairs.X, block_bytes, cache_bytes=cache_bytes)

    def __call__(self, V: Tensor) -> Tensor:
        """``K V``, (n, c) for V (n, c), in the dtype of V."""
        if V.dim() != 2 or len(V) != self.size:
            raise NfaError(f"the operator multiplies ({self.size}, c) matrices, got shape {tuple(V.shape)}")
        while True:
            try:
                return self._product(V)
            except RuntimeError as error:
                if not out_of_memory(error) or self._entries == 1:
                    raise
            self._kept.clear()
            self._room, self._entries = self._room // 2, max(self._entries // 4, 1)
            release(self.device)

    def _product(self, V: Tensor) -> Tensor:
        W = V.double()
        product = torch.zeros_like(W)
        side = min(max(math.isqrt(self._entries), 1), self.size)
        ranges = list(spans(self.size, side))
        scratch = W.new_empty(side, side, dtype=self.dtype)
        with exact_products():
            for i, rows in enumerate(ranges):
                for j, columns in enumerate(ranges[i:], i):
                    tile = self._tile(i, j, rows, columns, scratch)
                    for part in _strips(tile):
                        strip = tile[part].double()
                        own = slice(rows.start + part.start, rows.start + part.stop)
                        product[own] += strip @ W[columns]
                        if j > i:
                            product[columns] += strip.mT @ W[own]
        return product.to(V.dtype)

    def columns(self, index: Tensor) -> Tensor:
        """``K[:, index]``, (n, p)."""
        return self.kernel.matrix(self._pairs.X, self._pairs.X[index])

    def diagonal(self) -> Tensor:
        """The diagonal of K, (n,)."""
        return self.kernel.value(torch.zeros(self.size, dtype=self.dtype, device=self.device))

    def matrix(self, out: Tensor | None = None) -> Tensor:
        """K itself, (n, n)."""
        return self.kernel.matrix(self._pairs.X, out=out)

    def _tile(self, i: int, j: int, rows: slice, columns: slice, scratch: Tensor) -> Tensor:
        if (i, j) in self._kept:
            return self._kept[i, j]
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        if shape[0] * shape[1] <= self._room:
            tile = self._kept[i, j] = scratch.new_empty(shape)
            self._room -= tile.numel()
        else:
            tile = scratch[: shape[0], : shape[1]]
        return self.kernel.value_(self._pairs.distances(rows, columns, tile))


@dataclass(frozen=True)
class ScaledOperator:
    """``V -> D K D V`` for an operator of K and a diagonal D (n,), with what solvers ask of one."""

    operator: "KernelOperator | ShardedOperator"
    D: Tensor

    @property
    def size(self) -> int:
        """N."""
        return self.operator.size

    @property
    def dtype(self) -> torch.dtype:
        """Of K."""
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        """Of K."""
        return self.operator.device

    @property
    def shared(self) -> bool:
        """Whether all processes call it together."""
        return self.operator.shared

    @property
    def tile_bytes(self) -> int:
        """What a product holds beside its vectors."""
        return self.operator.tile_bytes

    @property
    def most_kept(self) -> int:
        """Bytes that its tiles take at most."""
        return self.operator.most_kept

    def with_cache(self, cache_bytes: float) -> "ScaledOperator":
        """The same operator with room to keep tiles of K."""
        return ScaledOperator(self.operator.with_cache(cache_bytes), self.D)

    def __call__(self, V: Tensor) -> Tensor:
        """``D K D V``, (n, c) in the dtype of V."""
        D = self.D[:, None].to(V)
        return D * self.operator(D * V)

    def columns(self, index: Tensor) -> Tensor:
        """Columns of ``D K D``, (n, p)."""
        K = self.operator.columns(index)
        D = self.D.to(K)
        return D[:, None] * K * D[index]

    def diagonal(self) -> Tensor:
        """The diagonal of ``D K D``, (n,)."""
        K = self.operator.diagonal()
        return K * self.D.to(K).square()

    def matrix(self) -> Tensor:
        """``D K D`` itself, (n, n)."""
        assert isinstance(self.operator, KernelOperator)  # of a shared one no process holds all
        K = self.operator.matrix()
        D = self.D.to(K)
        return K.mul_(D[:, None]).mul_(D)


def kernel_product(kernel: RadialKernel, X: Tensor, Z: Tensor, V: Tensor) -> Tensor:
    """``K(X, Z) V`` (n, c) for V (m, c), a strip of K at a time: the predictions of coefficients V at X.

    X and Z are in coordinates where the distance is Euclidean.
    """
    if V.dim() != 2 or len(V) != len(Z):
        raise NfaError(f"{len(Z)} points need coefficients ({len(Z)}, c), got shape {tuple(V.shape)}")
    step = max(tile_entries(X.device) // len(Z), 64)
    product, scratch = V.new_empty(len(X), V.shape[1]), Workspace(X)

    def work(rows: slice) -> None:
        strip = scratch("strip", rows.stop - rows.start, len(Z))
        product[rows] = wide_product(fill(X[rows], Z, out=strip, then=kernel.value_), V)

    with exact_products():
        Halving(X.device).rows(work, len(X), step)
    return product


def wide_product(K: Tensor, V: Tensor) -> Tensor:
    """``K V`` in the dtype of V, multiplied in float64: a float32 sum over n points loses four digits."""
    W = V.double()
    return torch.cat([(K[rows].double() @ W).to(V.dtype) for rows in _strips(K)])


def _strips(tile: Tensor) -> Iterator[slice]:
    """Ranges of rows to be converted to float64 at a time."""
    return spans(len(tile), max(tile_entries(tile.device) // tile.shape[1], 1))
