"""Sums of outer products ``Σ δδᵀ`` of one map, from gradients as they pass by."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.maps import LinearMap

_ROWS_WORTH_A_PRODUCT = 256
_SAFE_RANGE = (1e-15, 1e15)  # squares of float32 gradients in here neither vanish nor overflow


@dataclass
class Sensitivity:
    """C of one map, as R replicates that average to it.

    Attributes:
        sums: (R, groups, q, q) float64, ``Σ δδᵀ`` of each replicate.
        counts: samples (times probes) behind each replicate, length R.
        basis: None, or (groups, out, q) with orthonormal columns that span what was asked for, when that
            is smaller than the output; C is then stored as ``basisᵀ C basis``.
        mean_outer: (groups, q, q), what centring removes from C; None when not asked for.
        reached: whether any gradient arrived.
    """

    sums: Tensor
    counts: list[int]
    basis: Tensor | None = None
    mean_outer: Tensor | None = None
    reached: bool = True

    @property
    def matrix(self) -> Tensor:
        """C as (groups, q, q) float64, centred when that was asked for."""
        C = self.sums.sum(0) / max(sum(self.counts), 1)
        return C if self.mean_outer is None else C - self.mean_outer

    @property
    def replicates(self) -> Tensor:
        """Independent estimates of C, (R', groups, q, q), R' the number of replicates with samples."""
        used = [r for r, count in enumerate(self.counts) if count]
        return torch.stack([self.sums[r] / self.counts[r] for r in used])

    def reduce(self, weight: Tensor) -> Tensor:
        """A weight (groups, out, in) in the coordinates of C, (groups, q, in) float64."""
        W = weight.double().to(self.sums.device)
        return W if self.basis is None else self.basis.to(W).mT @ W


class Accumulator:
    """Running ``Σ δδᵀ`` of one map: products in the net's dtype, sums in float64."""

    def __init__(
        self, lmap: LinearMap, basis: Tensor | None, replicates: int, centered: bool, device: torch.device
    ):
        self.kind, self.groups, self.out_features = lmap.kind, lmap.groups, lmap.out_features
        self.basis = None if basis is None else basis.to(device)
        width = lmap.out_features // self.groups if basis is None else basis.shape[2]
        limit = replicates if width <= 512 else min(replicates, 4 if width <= 2048 else 2)
        self.sums = torch.zeros(limit, self.groups, width, width, dtype=torch.float64, device=device)
        self.counts = [0] * limit
        self.pending: dict[int, list[Tensor]] = {}
        self.line_sums: dict[int, Tensor] | None = {} if centered else None
        self.row_count = 0  # samples × positions × calls
        self.called = self.reached = False
        self.wide = False  # products in float64 because float32 squares would leave the range of float32
        self.fresh = True  # the range of this batch's gradients is not known yet
        self.targets: list[int] = []

    def note_call(self, z: Tensor) -> None:
        """The module was called and returned z."""
        self.called = True
        self.row_count += z.numel() // self.out_features

    def start_batch(self, samples: int, replicates: list[int]) -> None:
        """Announce a batch and the replicates it adds to, one for all outputs or one a probe."""
        self.targets = [replicate % len(self.counts) for replicate in replicates]
        self.fresh = True
        for slot in self.targets:
            self.counts[slot] += samples

    def add(self, delta: Tensor, lines: list[int]) -> None:
        """Add the gradients (m, batch, …) of the m outputs or probes ``lines``."""
        self.reached = True
        rows = self._rows(delta)
        if self.line_sums is not None:
            self._add_means(rows, lines)
        slots = self.targets if len(self.targets) == 1 else [self.targets[line] for line in lines]
        if len(set(slots)) == 1:
            self._add_rows(rows.flatten(0, 1), slots[0])
        else:
            for slot, part in zip(slots, rows, strict=True):
                self._add_rows(part, slot)

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
            rows = self.basis.mT.to(rows.dtype) @ rows
        return rows

    def _in_safe_dtype(self, rows: Tensor) -> Tensor:
        if self.fresh and rows.dtype == torch.float32:
            largest = float(rows.abs().amax())
            self.wide = not _SAFE_RANGE[0] < largest < _SAFE_RANGE[1]
            self.fresh = largest == 0
        return rows.double() if self.wide else rows

    def _add_means(self, rows: Tensor, lines: list[int]) -> None:
        for line, part in zip(lines, rows, strict=True):
            total = part.sum((0, 3), dtype=torch.float64)
            self.line_sums[line] = self.line_sums[line] + total if line in self.line_sums else total

    def _add_rows(self, rows: Tensor, slot: int) -> None:
        """Add (B, groups, q, P): one product an image where positions are many, else one for all."""
        B, groups, q, P = rows.shape
        if q == 1:
            self.sums[slot] += rows.double().square().sum((0, 3))[:, :, None]
        elif P >= max(q, _ROWS_WORTH_A_PRODUCT):
            self.sums[slot] += (rows @ rows.mT).sum(0, dtype=torch.float64)
        else:
            queue = self.pending.setdefault(slot, [])
            queue.append(rows.permute(1, 2, 0, 3).reshape(groups, q, B * P))
            if sum(part.shape[2] for part in queue) >= max(q, _ROWS_WORTH_A_PRODUCT):
                self._flush(slot)

    def _flush(self, slot: int) -> None:
        parts = self.pending.pop(slot, [])
        if parts:
            dtype = max((p.dtype for p in parts), key=lambda d: torch.finfo(d).bits)
            X = parts[0] if len(parts) == 1 else torch.cat([p.to(dtype) for p in parts], 2)
            self.sums[slot] += (X @ X.mT).double()

    def result(self, samples: int) -> Sensitivity:
        """The sensitivity over all ``samples`` seen."""
        for slot in list(self.pending):
            self._flush(slot)
        mean_outer = None
        if self.line_sums is not None:
            mean_outer = torch.zeros_like(self.sums[0])
            for total in self.line_sums.values():
                mean_outer += total[:, :, None] * total[:, None, :] / (self.row_count * samples)
        return Sensitivity(self.sums, self.counts, self.basis, mean_outer, self.reached)
