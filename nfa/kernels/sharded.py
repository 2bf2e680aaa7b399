"""Products with a kernel matrix whose rows are shared out over processes."""

from typing import ClassVar

import torch
from torch import Tensor

from nfa import processes
from nfa.device import out_of_memory, release
from nfa.errors import NfaError
from nfa.kernels.distances import fill, tile_entries
from nfa.kernels.operator import wide_product
from nfa.kernels.precision import exact_products
from nfa.kernels.profiles import RadialKernel
from nfa.kernels.spans import spans


class ShardedOperator:
    """``V -> K V`` for ``K = k(‖x_i - x_j‖)``, of which each process of the default group has some rows.

    Every process has all points and all of V, evaluates its rows of K, and gets the whole product. As many of
    them as fit in ``cache_bytes`` are kept from the first product on, until `forget`: they serve every ridge.

    Args:
        kernel: a radial kernel.
        X: (n, d), in coordinates where the distance is Euclidean; the same on all processes.
        cache_bytes: room for rows that are kept.

    Attributes:
        size: n.
        dtype: of X, in which K is evaluated; it is multiplied in float64.
        device: of X.
        most_kept: bytes of all rows of this process.
        tile_bytes: what a product holds beside its vectors.
        shared: whether all processes call it together.
    """

    shared: ClassVar = True

    def __init__(self, kernel: RadialKernel, X: Tensor, *, cache_bytes: float = 0.0):
        self.kernel, self._X, self._own = kernel, X, X[processes.own_span(len(X))]
        self.size, self.dtype, self.device = len(X), X.dtype, X.device
        self.most_kept = len(self._own) * len(X) * X.itemsize
        self._step = max(8 * tile_entries(X.device) // len(X), 1)
        self.tile_bytes = 4 * min(self._step, len(self._own)) * len(X) * X.itemsize
        self._kept: list[Tensor] = []
        self._room = cache_bytes

    def with_cache(self, cache_bytes: float) -> "ShardedOperator":
        """The operator itself, with room to keep rows, those that it has among them."""
        self._room = cache_bytes - sum(strip.nbytes for strip in self._kept)
        return self

    def forget(self) -> None:
        """Keep no rows, and none to come."""
        self._kept.clear()
        self._room = 0.0

    def __call__(self, V: Tensor) -> Tensor:
        """``K V``, (n, c) for V (n, c), in the dtype of V."""
        if V.dim() != 2 or len(V) != self.size:
            raise NfaError(f"the operator multiplies ({self.size}, c) matrices, got shape {tuple(V.shape)}")
        return processes.gathered(self._product(V), self.size)

    def columns(self, index: Tensor) -> Tensor:
        """``K[:, index]``, (n, p)."""
        return processes.gathered(self.kernel.matrix(self._own, self._X[index]), self.size)

    def diagonal(self) -> Tensor:
        """The diagonal of K, (n,)."""
        return self.kernel.value(torch.zeros(self.size, dtype=self.dtype, device=self.device))

    def _product(self, V: Tensor) -> Tensor:
        """Rows of this process; strips of half as many, and half as many kept, where memory runs out."""
        while True:
            try:
                own = V.new_empty(len(self._own), V.shape[1])
                with exact_products():
                    for index, rows in enumerate(spans(len(self._own), self._step)):
                        own[rows] = wide_product(self._strip(index, rows), V)
                return own
            except RuntimeError as error:
                if not out_of_memory(error) or self._step == 1:
                    raise
            self._kept.clear()
            self._room, self._step = self._room / 2, self._step // 2
            release(self.device)

    def _strip(self, index: int, rows: slice) -> Tensor:
        if index < len(self._kept):
            return self._kept[index]
        with exact_products():
            strip = fill(self._own[rows], self._X, then=self.kernel.value_)
        if index == len(self._kept) and strip.nbytes <= self._room:
            self._kept.append(strip)
            self._room -= strip.nbytes
        return strip
