"""The recursion of the convolutional kernels on tiles of pairs, some rows of positions at a time.

With ``X = kxx``, ``Z = kzz``, ``S² = XZ`` a ReLU (Cho and Saul 2009; Arora et al., arXiv 1904.11955) takes a
pair (k, θ) at one position to

    t = √(S² - k²),   a = π - acos(k/S) = atan2(t, -k),   π k' = a k + t,   π (k' + θ') = π k' + a θ,

which needs neither a division nor a clipped correlation, and is 0 where a patch vanishes. A convolution sums
k' and k' + θ' over windows: these are the next k and θ. The factors π stay in the numbers until the end.

Tensors are laid out (rows, columns, pairs), so that a window is a sum of contiguous slices, and only the
rows that a window still needs are kept.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from nfa.errors import NfaError
from nfa.kernels.conv_workers import run_tasks


@dataclass(frozen=True)
class ConvShape:
    """The sizes that the recursion needs to know.

    Attributes:
        patch_size: side of every window.
        depth: convolutions.
        stride: of the first.
        border: zeros on each side of the image.
        ntk: whether θ is carried beside k.
        shifts: pairs of positions (p, p + shift) that meet: (0, 0) alone, or all of them under pooling.
        maps: (height, width) of the map before each ReLU.
    """

    patch_size: int
    depth: int
    stride: int
    border: int
    ntk: bool
    shifts: tuple[tuple[int, int], ...]
    maps: tuple[tuple[int, int], ...]

    @property
    def growth(self) -> float:
        """By how much the numbers grow from the first map to the last."""
        return (math.pi * self.patch_size**2) ** (self.depth - 1)

    @property
    def divisor(self) -> float:
        """What a sum over the last maps is divided by: factors π, and pairs of positions."""
        h, w = self.maps[-1]
        return math.pi**self.depth * (h * w if len(self.shifts) == 1 else (h * w) ** 2)

    def regions(self, shift: tuple[int, int]) -> tuple["Region", "Region"]:
        """The positions of the first map that have a partner at this shift, and the partners."""
        (h, w), (dy, dx) = self.maps[0], shift
        size = h - abs(dy), w - abs(dx)
        return Region(max(0, -dy), max(0, -dx), *size), Region(max(0, dy), max(0, dx), *size)


@dataclass(frozen=True)
class Region:
    """A rectangle of positions of the first map; those of a later map begin at the same place."""

    top: int
    left: int
    height: int
    width: int

    def of(self, maps: Tensor, layer_rows: slice, width: int) -> Tensor:
        """Some rows of the region, and so many columns, of maps (h, w, …)."""
        rows = slice(self.top + layer_rows.start, self.top + layer_rows.stop)
        return maps[rows, self.left : self.left + width]


@dataclass(frozen=True)
class PatchMaps:
    """Images as patches, scaled so that no number of the recursion leaves the range of its dtype.

    Attributes:
        patches: (h, w, k, n), transformed and scaled.
        norms: kxx of each layer with its factors π, (h, w, n) each.
        scale: (n,); the kernel of the images is that of the patches times the scales of both.
    """

    patches: Tensor
    norms: tuple[Tensor, ...]
    scale: Tensor

    @classmethod
    def of(cls, X: Tensor, shape: ConvShape, transform: Tensor | None, threads: int = 1) -> "PatchMaps":
        """Of images (n, c, H, W), in their dtype, without gradients."""
        X, T = X.detach(), transform
        largest = X.abs().amax((1, 2, 3))
        largest = torch.where(largest > torch.finfo(X.dtype).tiny, largest, 1.0)
        length = 1.0 if T is None else float(torch.linalg.vector_norm(T)) or 1.0
        limit = torch.finfo(X.dtype).max ** 0.6
        if shape.growth > limit:
            raise NfaError(
                f"windows of {shape.patch_size} through {shape.depth} layers leave the range of {X.dtype}: "
                f"choose a smaller depth{'' if X.dtype == torch.float64 else ' or float64'}"
            )
        down = (X[0].shape[0] * shape.patch_size**2 * shape.growth**0.5) ** -0.5
        windows = patch_windows(X * (down / largest)[:, None, None, None], shape)
        h, w, *sides, n = windows.shape
        U = X.new_empty(h, w, math.prod(sides) if T is None else len(T), n)
        norms, short = [X.new_empty(h, w, n)], None if T is None else T / length

        def fill(row: int) -> None:
            inputs = windows[row]
            if short is None:
                U[row].view(inputs.shape).copy_(inputs)
            else:
                U[row] = short @ inputs.flatten(1, 3)
            torch.sum(U[row].square(), 1, out=norms[0][row])

        run_tasks(range(h), lambda: fill, threads)
        for _ in range(shape.depth - 1):
            norms.append(window_sums(norms[-1], shape.patch_size).mul_(math.pi))
        return cls(U, tuple(norms), largest * (length / down))

    def self_sums(self, shape: ConvShape) -> Tensor:
        """Sums over positions of every image with itself, (n,): ρ = 1 everywhere, to all digits."""
        if not shape.ntk:
            return self.norms[-1].sum((0, 1)) * math.pi
        E = self.norms[0]
        for layer, norms in enumerate(self.norms):
            E = E if layer == 0 else window_sums(E, shape.patch_size)
            E = (E + norms).mul_(math.pi)
        return E.sum((0, 1))


def patch_windows(X: Tensor, shape: ConvShape) -> Tensor:
    """Patches of images (n, c, H, W) as a view (h, w, c, row, column, n) of their pixels."""
    if shape.border:
        X = pad(X, [shape.border] * 4)
    size, stride = shape.patch_size, shape.stride
    X = X.permute(2, 3, 1, 0).contiguous()  # every value of a patch is then a run over the images
    return X.unfold(0, size, stride).unfold(1, size, stride).permute(0, 1, 2, 4, 5, 3)


class Workspace:
    """Buffers by name that live from one tile to the next."""

    def __init__(self, like: Tensor):
        self._like = like
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """A contiguous tensor of this shape, with whatever was left in it."""
        count = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count:
            buffer = self._buffers[name] = self._like.new_empty(count)
        return buffer[:count].view(shape)


class PairSums:
    """Sums over the positions of the head for tiles of pairs.

    Args:
        shape: of the network.
        like: gives the dtype and device.
        entries: numbers of a block of rows.
    """

    def __init__(self, shape: ConvShape, like: Tensor, entries: int):
        self.shape, self._entries = shape, entries
        self._buffer = Workspace(like)

    def __call__(
        self, x: PatchMaps, i: slice, z: PatchMaps, j: slice, selves: Tensor | None = None
    ) -> Tensor:
        """Sums for images i of x and j of z, (len(i), len(j)), over all shifts; scales left out.

        Args:
            x: images on one side.
            i: a range of them.
            z: images on the other.
            j: a range of them.
            selves: for the same images on both sides, their `PatchMaps.self_sums`.
        """
        total = x.patches.new_zeros(i.stop - i.start, j.stop - j.start)
        for shift in self.shape.shifts:
            sums = _Stream(self, x, i, z, j, shift).total().view_as(total)
            if selves is not None and shift == (0, 0):
                sums.diagonal().copy_(selves)
            total += sums
        return total

    @staticmethod
    def rows(width: int, pairs: int, entries: int) -> int:
        """Rows of positions of a block of so many entries."""
        return max(entries // (width * pairs), 1)

    @classmethod
    def numbers(cls, shape: ConvShape, pairs: int, entries: int) -> int:
        """Numbers that are held beside the images for tiles of so many pairs."""
        (h, w), parts = shape.maps[0], 2 if shape.ntk else 1
        rows = min(cls.rows(w, pairs, entries), h)
        kept = min(shape.patch_size - 1 + _Rows.BLOCKS * rows, h) + rows
        sums = parts * max(shape.patch_size.bit_length() - 1, 1) * max(rows, min(kept, 2 * rows))
        return pairs * w * (3 * rows + parts * rows + sums + (shape.depth - 1) * parts * kept)


class _Stream:
    """One tile at one shift: blocks of rows go through the layers as soon as their windows are complete."""

    def __init__(
        self, owner: PairSums, x: PatchMaps, i: slice, z: PatchMaps, j: slice, shift: tuple[int, int]
    ):
        self.shape, self.buffer = owner.shape, owner._buffer
        self.x, self.i, self.z, self.j = x, i, z, j
        self.at, self.partner = self.shape.regions(shift)
        self.pairs = (i.stop - i.start) * (j.stop - j.start)
        self.step = owner.rows(self.at.width, self.pairs, owner._entries)
        self.sums = x.patches.new_zeros(self.pairs)
        self.seen = [0] * self.shape.depth  # rows of each layer that went through its ReLU
        self.kept = [_Rows(self, layer) for layer in range(self.shape.depth - 1)]

    def total(self) -> Tensor:
        """(pairs,)."""
        for start in range(0, self.at.height, self.step):
            rows = slice(start, min(start + self.step, self.at.height))
            u = self.at.of(self.x.patches, rows, self.at.width)[..., self.i].flatten(0, 1)
            v = self.partner.of(self.z.patches, rows, self.at.width)[..., self.j].flatten(0, 1)
            K = self.buffer("k", len(u), u.shape[2], v.shape[2])
            torch.bmm(u.mT, v, out=K)
            K = K.view(-1, self.at.width, self.pairs)
            self._layer(0, K, K if self.shape.ntk else None)
        return self.sums

    def _layer(self, layer: int, K: Tensor, E: Tensor | None) -> None:
        """Take rows (rows, columns, pairs) of k and θ through the ReLU, and what is complete further."""
        t, a = self._angles(layer, K)
        self.seen[layer] += len(K)
        if layer == self.shape.depth - 1:
            if E is not None:
                K = torch.add(K, E, out=self.buffer("sum", *K.shape))
            self.sums += t.addcmul_(a, K).flatten(0, 1).sum(0)
            return
        Y = self.buffer("relu", 1 if E is None else 2, *K.shape)
        torch.addcmul(t, a, K, out=Y[0])
        if E is not None:
            torch.addcmul(Y[0], a, E, out=Y[1])
        below = self.kept[layer].push(Y)
        if below.shape[1]:
            self._layer(layer + 1, below[0], None if E is None else below[1])

    def _angles(self, layer: int, K: Tensor) -> tuple[Tensor, Tensor]:
        rows, width = slice(self.seen[layer], self.seen[layer] + len(K)), K.shape[1]
        xx = self.at.of(self.x.norms[layer], rows, width)[:, :, self.i, None]
        zz = self.partner.of(self.z.norms[layer], rows, width)[:, :, None, self.j]
        t = self.buffer("t", len(K), width, xx.shape[2], zz.shape[3])
        torch.mul(xx, zz, out=t)
        t = t.view_as(K).addcmul_(K, K, value=-1 - rounding(K.dtype)).clamp_min_(0).sqrt_()
        a = torch.neg(K, out=self.buffer("a", *K.shape))
        return t, torch.atan2(t, a, out=a)


class _Rows:
    """Rows of one layer, summed across, that wait until a window of them is complete."""

    BLOCKS = 4  # that fit before the rows still needed are moved to the front

    def __init__(self, stream: _Stream, layer: int):
        self.size, self.buffer, self.name = stream.shape.patch_size, stream.buffer, f"layer {layer}"
        shrunk = layer * (self.size - 1)
        width = stream.at.width - shrunk - self.size + 1
        room = min(stream.at.height - shrunk, self.size - 1 + self.BLOCKS * stream.step)
        parts = 2 if stream.shape.ntk else 1
        self.ring = self.buffer(self.name, parts, room, width, stream.pairs)
        self.start = self.stop = 0

    def push(self, Y: Tensor) -> Tensor:
        """Add rows (parts, rows, columns, pairs); returns the sums of the windows that are complete now."""
        new = Y.shape[1]
        if self.stop + new > self.ring.shape[1]:
            old = self.ring[:, self.start : self.stop]
            left = old.shape[1]
            self.ring[:, :left] = old.clone() if left > self.start else old
            self.start, self.stop = 0, left
        across = self.ring[:, self.stop : self.stop + new]
        window_sum(Y, self.size, 2, across, self.buffer)
        self.stop += new
        rows = self.ring[:, self.start : self.stop]
        ready = max(rows.shape[1] - self.size + 1, 0)
        out = self.buffer(f"{self.name} out", len(Y), ready, *rows.shape[2:])
        if ready:
            window_sum(rows, self.size, 1, out, self.buffer)
            self.start += ready
        return out


def rounding(dtype: torch.dtype) -> float:
    """What is taken off ``1 - ρ²``: equal patches are parallel up to this, and would lose digits by it."""
    return 8 * torch.finfo(dtype).eps


def window_sum(X: Tensor, size: int, dim: int, out: Tensor, buffer: Workspace) -> Tensor:
    """Sums of ``size`` neighbours along a dimension, written to ``out``, in about log₂(size) additions."""
    length = X.shape[dim] - size + 1
    spans = [1 << b for b in range(size.bit_length())]  # sums of so many neighbours are made of shorter ones
    offsets, covered = {}, 0
    for span in reversed(spans):
        if size & span:
            offsets[span] = covered
            covered += span
    lengths = {spans[-1]: length}
    for span in reversed(spans[:-1]):
        lengths[span] = max(lengths[2 * span] + span, offsets.get(span, -size) + length)
    levels = {1: X}
    for span in spans[1:]:
        count = lengths[span]
        shape = [*X.shape]
        shape[dim] = count
        target = out if span == spans[-1] else buffer(f"window {span}", *shape)
        half = levels[span // 2]
        levels[span] = torch.add(half.narrow(dim, 0, count), half.narrow(dim, span // 2, count), out=target)
    if size == 1:
        return out.copy_(X)
    for span in spans[:-1]:
        if size & span:
            out.add_(levels[span].narrow(dim, offsets[span], length))
    return out


def window_sums(X: Tensor, size: int) -> Tensor:
    """Sums over square windows of maps (h, w, …)."""
    h, w = X.shape[0] - size + 1, X.shape[1] - size + 1
    buffer = Workspace(X)
    across = window_sum(X, size, 1, X.new_empty(len(X), w, *X.shape[2:]), buffer)
    return window_sum(across, size, 0, X.new_empty(h, w, *X.shape[2:]), buffer)
