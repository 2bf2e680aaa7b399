"""Gradients of a convolutional kernel predictor with respect to patches, by one reverse sweep a pair.

The kernel of two images sees the patches ``u`` of the first, as the first layer transforms them, through
``k_p = <u_p, v_p>`` and ``X_p = kxx = |u_p|²`` alone. So the gradient of ``f_c(x) = Σ_j a_jc k(x, x_j)`` is

    ∂f_c/∂u_p = Σ_j a_jc (∂K_j/∂k_p) v_jp + 2 (Σ_j a_jc ∂K_j/∂X_p) u_p,

two numbers a pair and position for all classes and coordinates (`conv_slopes`). The slope of κ₀ is infinite
where two patches are parallel; it is set to 0 there, with which an image that is its own center contributes
½∇k(x, x), the mean of the one-sided slopes.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from nfa.errors import NfaError
from nfa.kernels.conv import LEAST_BUFFERS, ConvKernel, check_alike, check_images, check_transform
from nfa.kernels.conv_recursion import ConvShape, PatchMaps, Workspace, window_sums
from nfa.kernels.conv_slopes import MASKS, Slopes, Tile
from nfa.kernels.conv_workers import cores, run_tasks
from nfa.kernels.halving import Halving, needs
from nfa.kernels.precision import exact_products
from nfa.kernels.spans import even_spans

_BLOCK = {"cpu": 2**17, "cuda": 2**22}  # numbers of a block of positions and pairs; some twenty are held
_GRADIENTS = {"cpu": 2**27, "cuda": 2**27}  # numbers of the gradients that are held at a time
_PATCHES = {"cpu": 2**24, "cuda": 2**27}  # numbers of the patches of the centers at a time
_WEIGHTS = {"cpu": 2**17, "cuda": 2**26}  # derivatives times coefficients at a time
_POINTS = 4  # in a block on a CPU

Consumer = Callable[[slice, slice, Tensor], None]


def patch_gradients(
    kernel: ConvKernel,
    points: Tensor,
    centers: Tensor,
    coefficients: Tensor,
    transform: Tensor | None = None,
    *,
    same: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """``∂f_c/∂(patch p of x_i)`` for ``f_c(x) = Σ_j a_jc k(x, x_j)``, (m, h, w, classes, D) of ``dtype``.

    Patches are those before T, each an input of its own; the order of D is that of `ConvKernel.patches`.
    See `each_gradient` for the arguments.
    """
    check_images("points", points)
    a, T = check_coefficients(coefficients, centers), check_transform(transform, points, kernel.patch_size)
    size = points.shape[1] * kernel.patch_size**2
    found = points.new_empty(len(points), *kernel.shape(points).maps[0], a.shape[1], size, dtype=dtype)

    def keep(rows: slice, classes: slice, gradients: Tensor) -> None:
        back = gradients if T is None else gradients @ T.to(dtype)
        found[rows, :, :, classes] = back.permute(2, 0, 1, 3, 4)

    each_gradient(keep, kernel, points, centers, a, T, same=same, dtype=dtype)
    return found


def each_gradient(
    consume: Consumer,
    kernel: ConvKernel,
    points: Tensor,
    centers: Tensor,
    coefficients: Tensor,
    transform: Tensor | None = None,
    *,
    same: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Find the gradients at some points and for some classes at a time, so that memory stays bounded.

    Args:
        consume: called, from any thread, with the range of points, the range of classes, and gradients
            (h, w, points, classes, k) with respect to *transformed* patches; ``@ T`` pulls them back.
        kernel: whose predictor it is.
        points: images (m, c, H, W) where gradients are taken, float32 or float64.
        centers: images (n, c, H, W).
        coefficients: a, (n, classes).
        transform: T (k, D); None for the identity.
        same: (m,), for each point the index of the center that is the same image, -1 if none is; None means
            that none is, or, where points and centers are one tensor, that each is its own.
        dtype: of the sweep. Slopes of nearly parallel patches amplify rounding by 1/(1 - ρ²), which is why
            float32 images are carried in float64 too.
        progress: called with the pairs of images that are done, and with their total.

    Raises:
        NfaError: arguments that do not belong together, or are not finite.
    """
    check_images("points", points)
    check_alike(points, centers)
    shape = kernel.shape(points)
    T = check_transform(transform, points, kernel.patch_size)
    a = check_coefficients(coefficients, centers).to(dtype)
    if dtype not in MASKS:
        raise NfaError(f"the sweep runs in float32 or float64, got {dtype}")
    owners = _owners(same, points, centers)
    T = None if T is None else T.to(dtype)
    width = points.shape[1] * kernel.patch_size**2 if T is None else len(T)
    h, w = shape.maps[0]
    kind = points.device.type
    step = max(_of(_GRADIENTS, kind) // (h * w * width), 1)
    total = len(points) * len(centers) * len(even_spans(a.shape[1], step))
    with exact_products(), cores(points.device) as threads:
        sweep = _Sweep(consume, shape, T, dtype, width, points.shape[1], threads, progress, total)
        for classes in even_spans(a.shape[1], step):
            sweep(points, centers, a[:, classes], classes, owners)


@dataclass
class _Block:
    """Some points of a group, and the sums over centers that their gradients are made of.

    Attributes:
        i: range in the group.
        R: ``Σ_j a_jc (∂K/∂k_p) v_jp``, (h, w, points, classes, k).
        H: ``Σ_j a_jc ∂K/∂X_p · 2X_p`` of each layer, (h, w, points, classes), not passed down yet.
    """

    i: slice
    R: Tensor
    H: list[Tensor] = field(default_factory=list)


@dataclass
class _Sweep:
    """Groups of points against parts of the centers."""

    consume: Consumer
    shape: ConvShape
    T: Tensor | None
    dtype: torch.dtype
    width: int
    channels: int
    threads: int
    progress: Callable[[int, int], None] | None
    total: int
    finished: int = 0

    def __call__(self, points: Tensor, centers: Tensor, a: Tensor, classes: slice, owners: list[int]) -> None:
        h, w = self.shape.maps[0]
        kind = points.device.type
        held = max(_of(_GRADIENTS, kind) // (h * w * self.width * a.shape[1]), 1)
        few = max(min(_POINTS, len(points) // self.threads), 1) if kind == "cpu" else held
        halving = Halving(points.device, LEAST_BUFFERS)
        inner: dict[tuple[int, int], PatchMaps] = {}  # of all centers, where these are one part

        def work(group: slice) -> None:
            before = self.finished
            try:
                x = self._maps(points[group])
                blocks = [self._block(i, a) for i in even_spans(len(x.scale), min(few, held))]
                self._sums(x, blocks, centers, a, owners[group], inner, halving.share)
            except RuntimeError:
                inner.clear()
                self.finished = before
                raise
            what = f"the gradients of {a.shape[1]} outputs at {len(x.scale)} images"
            size = sum(block.R.nbytes for block in blocks)
            with needs(size, what, "take the AGOP over fewer, or another device", points.device):
                run_tasks(blocks, functools.partial(self._finisher, x, group, classes), self.threads)

        halving.rows(work, len(points), even_spans(len(points), held)[0].stop)

    def _sums(
        self,
        x: PatchMaps,
        blocks: list[_Block],
        centers: Tensor,
        a: Tensor,
        owners: list[int],
        inner: dict[tuple[int, int], PatchMaps],
        share: float,
    ) -> None:
        """Add to blocks of points what all centers bring them, with a share of the usual buffers."""
        h, w = self.shape.maps[0]
        kind = centers.device.type
        most = max(int(_of(_PATCHES, kind) * share), 1)
        parts = even_spans(len(centers), max(most // (h * w * self.width), 8))
        for part in parts:
            key = (part.start, part.stop)
            z = inner.get(key) or self._maps(centers[part])
            if len(parts) == 1:
                inner[key] = z
            scaled = a[part] * (z.scale / (self.channels * self.shape.divisor))[:, None]
            tiles = _Tiles(self.shape, x, z, scaled, [c - part.start for c in owners], kind, share)
            done = functools.partial(self._done, centers=len(z.scale))
            run_tasks(blocks, tiles.make_worker, self.threads, done)

    def _maps(self, images: Tensor) -> PatchMaps:
        return PatchMaps.of(images.to(self.dtype), self.shape, self.T, self.threads)

    def _block(self, i: slice, a: Tensor) -> _Block:
        def zeros(size: tuple[int, int], *more: int) -> Tensor:
            return a.new_zeros(*size, i.stop - i.start, a.shape[1], *more)

        maps = self.shape.maps
        return _Block(i, zeros(maps[0], self.width), [zeros(size) for size in maps])

    def _finisher(self, x: PatchMaps, group: slice, classes: slice) -> Callable[[_Block], None]:
        return functools.partial(self._finish, x=x, group=group, classes=classes)

    def _finish(self, block: _Block, x: PatchMaps, group: slice, classes: slice) -> None:
        """Pass H down to the first layer, add its part, and hand the gradients over."""

        def own(layer: int) -> Tensor:
            X = x.norms[layer][:, :, block.i, None]
            return torch.where(X > 0, block.H[layer] / X, 0)

        top = self.shape.depth - 1
        H, size = own(top), self.shape.patch_size
        for layer in reversed(range(top)):
            H = own(layer).add_(window_sums(_ringed(H, size), size).mul_(math.pi))
        U = x.patches[..., block.i].mT  # (h, w, points, k)
        block.R.addcmul_(H[..., None], U[..., None, :])
        rows = slice(group.start + block.i.start, group.start + block.i.stop)
        self.consume(rows, classes, block.R)
        block.R, block.H = block.R.new_empty(0), []

    def _done(self, block: _Block, centers: int) -> None:
        if self.progress is not None:
            self.finished += (block.i.stop - block.i.start) * centers
            self.progress(self.finished, self.total)


class _Tiles:
    """Blocks of points against tiles of one part of the centers."""

    def __init__(
        self,
        shape: ConvShape,
        x: PatchMaps,
        z: PatchMaps,
        a: Tensor,
        owners: list[int],
        kind: str,
        share: float,
    ):
        self.shape, self.x, self.z, self.a, self.owners = shape, x, z, a, owners
        self.entries, self.weights = (max(int(_of(t, kind) * share), 1) for t in (_BLOCK, _WEIGHTS))
        self.vanish = [bool((p == 0).any() or (q == 0).any()) for p, q in zip(x.norms, z.norms, strict=True)]

    def make_worker(self) -> Callable[[_Block], None]:
        """A function of a block, with buffers of its own."""
        slopes, buffer = Slopes(self.shape, self.a, self.vanish), Workspace(self.a)
        h, w = self.shape.maps[0]

        def work(block: _Block) -> None:
            points = block.i.stop - block.i.start
            for j in even_spans(len(self.z.scale), max(self.entries // (h * w * points), 1)):
                for shift in self.shape.shifts:
                    selves = self._selves(block.i, j) if shift == (0, 0) else []
                    at, partner = self.shape.regions(shift)
                    tile = Tile(self.x, block.i, self.z, j, selves)
                    g, v = slopes(tile, at, partner, self.a[j], block.H)
                    self._contract(g, v, self.a[j], at.of(block.R, slice(0, at.height), at.width), buffer)

        return work

    def _selves(self, i: slice, j: slice) -> list[int]:
        width = j.stop - j.start
        return [row * width + c - j.start for row, c in enumerate(self.owners[i]) if j.start <= c < j.stop]

    def _contract(self, g: Tensor, v: Tensor, a: Tensor, into: Tensor, buffer: Workspace) -> None:
        """Add ``Σ_j a_jc g_j v_j`` to (h, w, points, classes, k), some rows and classes at a time."""
        (h, w, points, classes, _), centers = into.shape, len(a)
        step = max(self.weights // (w * points * centers * classes), 1)
        each = max(self.weights // (w * points * centers * step), 1)
        for rows in even_spans(h, step):
            part = slice(rows.start * w, rows.stop * w)
            for c in even_spans(classes, each):
                weights = buffer("weights", len(g[part]), points, c.stop - c.start, centers)
                torch.mul(g[part, :, None], a[:, c].mT, out=weights)
                target = into[rows][..., c, :]
                target += (weights.flatten(1, 2) @ v[part].mT).view(target.shape)


def _ringed(H: Tensor, size: int) -> Tensor:
    """Maps (h, w, …) with zeros around them: their window sums are those a position is in."""
    return pad(H, [0, 0] * (H.dim() - 2) + [size - 1] * 4)


def check_coefficients(a: Tensor, centers: Tensor) -> Tensor:
    """The coefficients, detached; raises NfaError unless they are finite, (len(centers), classes)."""
    if a.dim() != 2 or len(a) != len(centers) or a.shape[1] == 0 or not a.is_floating_point():
        raise NfaError(
            f"{len(centers)} centers need real coefficients ({len(centers)}, classes), got {a.dtype} of "
            f"shape {tuple(a.shape)}"
        )
    if a.device != centers.device:
        raise NfaError(f"coefficients must be on the device of the centers, {centers.device}, got {a.device}")
    if not bool(a.isfinite().all()):
        raise NfaError("the coefficients have entries that are not finite: check the fit they come from")
    return a.detach()


def _owners(same: Tensor | None, points: Tensor, centers: Tensor) -> list[int]:
    if same is None:
        return list(range(len(points))) if points is centers else [-1] * len(points)
    if same.shape != (len(points),) or same.is_floating_point() or same.is_complex():
        raise NfaError(
            f"same must be one center's index, or -1, for each of {len(points)} points, got {same.dtype} of "
            f"shape {tuple(same.shape)}"
        )
    if int(same.min()) < -1 or int(same.max()) >= len(centers):
        raise NfaError(f"same must be in -1 … {len(centers) - 1}, got {int(same.min())} … {int(same.max())}")
    return same.tolist()


def _of(table: dict[str, int], kind: str) -> int:
    return table["cpu" if kind == "cpu" else "cuda"]
