"""Sums of outer products ``Σ δδᵀ`` of one map, from gradients as they pass by."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from nfa.ansatz.blockwise import total
from nfa.ansatz.sensitivity import Sensitivity
from nfa.layers.maps import LinearMap

_ROWS_WORTH_A_PRODUCT = 256
_WIDE = 1024  # above it, gradients are kept as rows while they are few: their Gram matrix is smaller than C
_PRODUCTS_WORTH_A_FLUSH = 16  # so few single-precision additions keep seven digits
_SAME = 1e-6
_SAFE_RANGE = (1e-15, 1e15)  # squares of float32 gradients in here neither vanish nor overflow


class OuterSum:
    """One running ``Σ δδᵀ`` (groups, q, q): products in the net's dtype, the sum in float64.

    Args:
        groups: independent blocks.
        size: q, the length of δ in a group.
        device: where δ comes from.
    """

    def __init__(self, groups: int, size: int, device: torch.device):
        self.groups, self.size, self.device = groups, size, device
        self._total: Tensor | None = None
        self._recent: Tensor | None = None
        self._products = 0
        self._queue: list[Tensor] = []
        self._queued = 0

    def prepare(self, rows: Tensor) -> Callable[[], None]:
        """What adds (B, groups, q, P), by the fastest product for the device, dtype and number of positions.

        All memory is taken here; where that fails, nothing has changed.
        """
        B, groups, q, P = rows.shape
        if q == 1:
            return self._addition_of(rows.double().square().sum((0, 3))[:, :, None])
        if P > 1 and rows.device.type == "cpu" and rows.dtype == torch.float32:
            # This sum is the weight gradient of a 1 × 1 convolution, and oneDNN's kernel for it is fastest.
            images = rows.reshape(B, groups * q, P, 1)
            product = conv2d_weight(images, (groups * q, q, 1, 1), images, groups=groups)
            return self._addition_of(product.reshape(groups, q, q))
        if P >= max(q, _ROWS_WORTH_A_PRODUCT):
            return self._addition_of((rows @ rows.mT).sum(0))
        kept = rows.permute(1, 2, 0, 3).reshape(groups, q, B * P)
        if self._queued + B * P < max(q, _ROWS_WORTH_A_PRODUCT):
            return lambda: self._keep(kept)
        return self._addition_of(self._product_of([*self._queue, kept]), empties_queue=True)

    @property
    def total(self) -> Tensor:
        """The sum so far but for what waits, (groups, q, q) float64."""
        if self._total is None:
            shape = self.groups, self.size, self.size
            self._total = torch.zeros(shape, dtype=torch.float64, device=self.device)
        return self._total

    def flush(self) -> Tensor:
        """The sum (groups, q, q) float64 of all that was added."""
        if self._queue:
            self._addition_of(self._product_of(self._queue), empties_queue=True)()
        if self._recent is not None:
            self.total.add_(self._recent)
            self._recent, self._products = None, 0
        return self.total

    @property
    def waiting(self) -> int | None:
        """Rows that were added, if nothing but kept rows makes up the sum; None else."""
        pure = self._total is None and self._recent is None
        return self._queued if pure else None

    def rows(self) -> Tensor:
        """All that was added as rows (groups, q, m), where `waiting` is not None."""
        X = (
            self._joined(self._queue)
            if self._queue
            else torch.zeros(self.groups, self.size, 0, device=self.device)
        )
        self._queue = [X]
        return X

    def _keep(self, rows: Tensor) -> None:
        self._queue.append(rows)
        self._queued += rows.shape[2]

    def _product_of(self, parts: list[Tensor]) -> Tensor:
        X = self._joined(parts)
        return X @ X.mT

    @staticmethod
    def _joined(parts: list[Tensor]) -> Tensor:
        dtype = max((part.dtype for part in parts), key=lambda d: torch.finfo(d).bits)
        return parts[0] if len(parts) == 1 else torch.cat([part.to(dtype) for part in parts], 2)

    def _addition_of(self, product: Tensor, *, empties_queue: bool = False) -> Callable[[], None]:
        total = self.total  # made now, if it is the first

        def commit() -> None:
            if empties_queue:
                self._queue, self._queued = [], 0
            if product.dtype == torch.float64:
                total.add_(product)
            elif self._recent is None:
                self._recent, self._products = product, 1
            else:
                self._recent.add_(product)
                self._products += 1
                if self._products >= _PRODUCTS_WORTH_A_FLUSH:
                    total.add_(self._recent)
                    self._recent, self._products = None, 0

        return commit


class Accumulator:
    """The sums of one map: its gradients cut into rows, replicates told apart, means kept for centring."""

    def __init__(
        self, lmap: LinearMap, basis: Tensor | None, replicates: int, centered: bool, device: torch.device
    ):
        self.name, self.kind = lmap.name, lmap.kind
        self.groups, self.out_features = lmap.groups, lmap.out_features
        self.basis = None if basis is None else basis.to(device)
        self.device = device
        self.size = lmap.out_features // self.groups if basis is None else basis.shape[2]
        limit = replicates if self.size <= 512 else min(replicates, 4 if self.size <= 2048 else 2)
        self.sums: dict[int, OuterSum] = {}
        self.counts = [0] * limit
        self.line_sums: dict[int, Tensor] | None = {} if centered else None
        self.row_count = 0  # samples × positions × calls
        self.unfollowed: str | None = None
        self.called = self.reached = False
        self.resolution = 0.0
        self.wide = False  # products in float64 because float32 squares would leave the range of float32
        self.fresh = True  # the range of these samples' gradients is not known yet
        self.slots: list[int] = []  # the replicates that the samples under way add to
        self.is_output: bool | None = None  # the gradient is what each backward starts from, so far
        self.factor: float | None = None

    def note_call(self, z: Tensor) -> int:
        """The map was applied to so many vectors, and z came out (of it, or of what it is rows of)."""
        self.called = True
        features = self.out_features if self.kind == "flat" else z.shape[channel_axis(self.kind, z)]
        return z.numel() // features

    def start(self, samples: int, rows: int, replicates: list[int], weight: int) -> None:
        """Announce samples, the vectors in them, and the replicates they add to: one, or one a probe.

        Each replicate gets ``weight`` gradients a sample that are estimates of all outputs: its probes.
        """
        self.row_count += rows
        self.slots = [replicate % len(self.counts) for replicate in replicates]
        self.fresh = True
        for slot in self.slots:
            self.counts[slot] += samples * weight
            if slot not in self.sums:
                self.sums[slot] = OuterSum(self.groups, self.size, self.device)

    def add(self, delta: Tensor, lines: list[int]) -> None:
        """Add the gradients (m, batch, …) of the m outputs or probes ``lines``; there may be no vector."""
        if not delta.numel():  # an expert that no sample of this batch came to
            return
        rows = self._rows(delta)
        slots = self.slots if len(self.slots) == 1 else [self.slots[line] for line in lines]
        if len(set(slots)) == 1:
            additions = [self.sums[slots[0]].prepare(rows.flatten(0, 1))]
            means = self._means(rows, lines)
        else:
            by_slot = {slot: [i for i, s in enumerate(slots) if s == slot] for slot in set(slots)}
            additions = [self.sums[slot].prepare(rows[i].flatten(0, 1)) for slot, i in by_slot.items()]
            means = {}
        # Memory may run out above, and the same gradients come again then; from here on it cannot.
        for add in additions:
            add()
        if self.line_sums is not None:
            self.line_sums |= means
        self.reached = True
        self.resolution = torch.finfo(delta.dtype).eps

    def compare(self, delta: Tensor, seeds: Tensor | None) -> None:
        """See whether gradients are what their backward starts from, up to one factor for all backwards."""
        if self.is_output is not False:
            self.is_output = seeds is not None and self._is_multiple(delta, seeds)

    def leave_out(self, why: str) -> None:
        """Some use of the map cannot be followed: what is seen of it is not all."""
        self.unfollowed = why

    def add_identity(self, rows: int) -> None:
        """Add ``rows`` times the identity: what all outputs bring where the map's output is theirs."""
        self.reached = self.is_output = True
        self.sums[self.slots[0]].total.diagonal(dim1=-2, dim2=-1).add_(rows)

    def drop(self, replicate: int) -> None:
        """Forget a replicate, in which something is incomplete."""
        slot = replicate % len(self.counts)
        self.sums.pop(slot, None)
        self.counts[slot] = 0

    def result(self, samples: int) -> Sensitivity:
        """The sensitivity over all ``samples`` seen; may be asked for again as more come."""
        slots = sorted(self.sums)
        factored, rows = self._few_rows(), None
        if self.size >= _ROWS_WORTH_A_PRODUCT and all(
            outer.waiting is not None for outer in self.sums.values()
        ):
            rows = {slot: self.sums[slot].rows() for slot in slots}
        sums = rows if factored and rows else {slot: self.sums[slot].flush() for slot in slots}
        if not sums:  # no batch came: an empty sum, for other ranks to add to
            sums[0] = OuterSum(self.groups, self.size, self.device).total
        mean_outer = None
        if self.line_sums:
            scale = self.row_count * samples
            mean_outer = total(m[:, :, None] * m[:, None, :] for m in self.line_sums.values()) / scale
        counts = list(self.counts)
        return Sensitivity(
            sums, counts, self.basis, mean_outer, self.called, self.reached, self.resolution,
            bool(self.is_output), factored, self.unfollowed, None if factored else rows,
        )  # fmt: skip

    def _is_multiple(self, delta: Tensor, seeds: Tensor) -> bool:
        if delta.numel() != seeds.numel():
            return False
        g, s = delta.reshape(-1), seeds.reshape(-1).to(delta.dtype)
        if self.factor is None:
            self.factor = float(g @ s / (s @ s))
        error = float(torch.linalg.vector_norm(g - self.factor * s))
        return self.factor != 0 and error <= _SAME * abs(self.factor) * float(torch.linalg.vector_norm(s))

    def _few_rows(self) -> bool:
        """Whether C is of low rank and all its rows are still there."""
        if self.size <= _WIDE or self.line_sums is not None or not self.sums:
            return False
        waiting = [outer.waiting for outer in self.sums.values()]
        known = [rows for rows in waiting if rows is not None]
        return len(known) == len(waiting) and 0 < sum(known) <= self.size // 2

    def _rows(self, delta: Tensor) -> Tensor:
        """(m, batch, …) gradients as (m, B, groups, q, P): P positions of B samples, in the basis."""
        m = delta.shape[0]
        if self.kind == "linear":
            rows = delta.reshape(m, -1, 1, delta.shape[-1], 1)
        elif self.kind == "flat":
            rows = delta.reshape(m, delta.shape[1], 1, -1, 1)
        else:
            spatial = int(self.kind[4])
            if delta.dim() == spatial + 2:  # an image without a batch dimension
                delta = delta[:, None]
            rows = delta.reshape(m, delta.shape[1], self.groups, delta.shape[2] // self.groups, -1)
        rows = self._in_safe_dtype(rows)
        if self.basis is not None:
            basis = self.basis.to(rows.dtype)
            if rows.shape[-1] == 1:  # one product for all rows, not one a row
                return torch.einsum("mbgo,goq->mbgq", rows[..., 0], basis)[..., None]
            rows = basis.mT @ rows
        return rows

    def _in_safe_dtype(self, rows: Tensor) -> Tensor:
        if rows.dtype in (torch.float16, torch.bfloat16):  # of a forward in mixed precision
            rows = rows.float()
        if self.fresh and rows.dtype == torch.float32:
            largest = float(torch.linalg.vector_norm(rows, torch.inf))
            self.wide = not _SAFE_RANGE[0] < largest < _SAFE_RANGE[1]
            self.fresh = largest == 0
        return rows.double() if self.wide else rows

    def _means(self, rows: Tensor, lines: list[int]) -> dict[int, Tensor]:
        """New sums of the gradients of these lines, where centring asks for them."""
        if self.line_sums is None:
            return {}
        totals = {line: part.sum((0, 3), dtype=torch.float64) for line, part in zip(lines, rows, strict=True)}
        return {line: self.line_sums[line] + t if line in self.line_sums else t for line, t in totals.items()}


def channel_axis(kind: str, z: Tensor) -> int:
    """The axis of a map's output, or of a gradient there, that its rows make up; negative."""
    return -1 if kind in ("linear", "flat") else -1 - int(kind[4])
