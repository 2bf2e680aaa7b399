"""Convolutional kernels on patches: the NTK and NNGP of [convolution, ReLU]·depth, flatten or pool, linear.

Every patch counts as an input of its own, multiplied by a matrix T that a recursive feature machine learns
(Beaglehole, Radhakrishnan, Pandit and Belkin, arXiv 2309.00570). With patches ``u_p, v_p`` of two images,

    k_p = <T u_p, T v_p>/c,  θ = k;   ReLU: θ ← θ κ₀(ρ), k ← √(kxx kzz) κ₁(ρ), ρ = k/√(kxx kzz);
    convolution: k ← Σ_window k, θ ← k + Σ_window θ;   head: mean of k + θ (NTK) or of k (NNGP),

with ``κ₀(ρ) = (π - acos ρ)/π`` and ``κ₁(ρ) = (√(1-ρ²) + (π - acos ρ) ρ)/π``. Under *flatten* only equal
positions of two images meet; under *pool* all pairs of positions do.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.checks import choice, floats, settle, whole
from nfa.errors import NfaError
from nfa.kernels.conv_recursion import ConvShape, PairSums, PatchMaps, patch_windows
from nfa.kernels.conv_span import shorter
from nfa.kernels.conv_workers import cores, run_tasks
from nfa.kernels.halving import Halving
from nfa.kernels.precision import exact_products
from nfa.kernels.spans import even_spans

PADDINGS = ("none", "zero")
HEADS = ("flatten", "pool")
KINDS = ("ntk", "nngp")

_BLOCK = {"cpu": 2**18, "cuda": 2**23}  # numbers of a block of positions and pairs; six blocks are held
_SIDE = 48  # images of a tile on a CPU; more make its matrix products no faster
_PATCH_BYTES = {"cpu": 2**29, "cuda": 2**31}  # of the patches of one part of the images
LEAST_BUFFERS = 2**-14
"""Share of the usual buffers below which less makes no difference."""
_LONG = 2e10  # ReLUs that take a minute or so on a few cores


class CostWarning(UserWarning):
    """What was asked for takes long, and something close to it does not."""


@dataclass(frozen=True)
class ConvKernel:
    """The infinite-width kernel of a convolutional network, as a function of two images.

    Attributes:
        patch_size: side of all windows, in pixels.
        depth: number of convolutions, each with a ReLU; those after the first have stride 1 and no padding.
        stride: of the first convolution.
        padding: ``none``, or ``zero`` for ``patch_size // 2`` zeros on each side of the image.
        head: ``flatten``, or ``pool`` for global average pooling, which costs up to as many times as much as
            there are positions.
        kind: ``ntk``, or ``nngp`` for the network whose last layer alone is trained.

    Raises:
        NfaError: an option is out of range.
    """

    patch_size: int = 3
    depth: int = 3
    stride: int = 1
    padding: str = "none"
    head: str = "flatten"
    kind: str = "ntk"

    def __post_init__(self):
        for name in ("patch_size", "depth", "stride"):
            settle(self, **{name: whole(name, getattr(self, name), 1)})
        for name, known in (("padding", PADDINGS), ("head", HEADS), ("kind", KINDS)):
            settle(self, **{name: choice(name, getattr(self, name), known)})

    def patches(self, X: Tensor) -> Tensor:
        """Patches (n, h, w, D) of images X (n, c, H, W), as they are before T.

        ``D = c · patch_size²`` in the order (channel, row, column) of ``torch.nn.functional.unfold`` and of
        ``nfa.layers.maps``; T and AGOPs are matrices of that order.
        """
        check_images("X", X)
        return patch_windows(X, self.shape(X)).flatten(2, 4).permute(3, 0, 1, 2).contiguous()

    def matrix(
        self,
        X: Tensor,
        Z: Tensor | None = None,
        transform: Tensor | None = None,
        *,
        out: Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """K (n, m) between images X (n, c, H, W) and Z (m, c, H, W), without gradients.

        K of X with itself is exactly symmetric. Patches with ``1 - ρ²`` up to 8 ε count as parallel: the
        slope of κ₀ is infinite there, and rounding would cost half of the digits. `memory` says what is held.

        Args:
            X: float32 or float64.
            Z: other images of the same size, dtype and device; None stands for X.
            transform: T (k, D), applied to every patch: ``u ← T u``; None for the identity.
            out: (n, m) tensor to write to.
            progress: called with the pairs of images that are done, and with their total.

        Raises:
            NfaError: images or T of the wrong shape, dtype or device, not finite, or images smaller than
                what the network sees.

        Warns:
            CostWarning: a pooled kernel that takes more than about a minute.
        """
        check_images("X", X)
        Z = X if Z is None else Z
        same = Z is X
        check_alike(X, Z)
        shape, T = self.shape(X), check_transform(transform, X, self.patch_size)
        K = _result(out, X, len(Z))
        self._warn_if_long(shape, len(X) * len(Z) // (2 if same else 1))
        total = len(X) * (len(X) + 1) // 2 if same else len(X) * len(Z)
        halving = Halving(X.device, LEAST_BUFFERS)
        with exact_products(), cores(X.device) as threads:
            T = shorter(T, X, Z, shape)
            part = self._part(shape, X, T)
            parts = itertools.product(even_spans(len(X), part), even_spans(len(Z), part))
            fill = _Fill(K, same, shape, X.shape[1], total, progress, threads)
            held: dict[tuple[int, int], PatchMaps] = {}  # of the last rows

            def work(rows: slice, columns: slice) -> None:
                key, before = (rows.start, rows.stop), fill.finished
                x = held.get(key)
                try:
                    if x is None:
                        held.clear()  # before the next part comes
                        x = held[key] = PatchMaps.of(X[rows], shape, T, threads)
                    own = same and columns == rows
                    z = x if own else PatchMaps.of(Z[columns], shape, T, threads)
                    fill(x, rows.start, z, columns.start, halving.share)
                except RuntimeError:
                    held.clear()
                    fill.finished = before
                    raise

            halving.blocks(work, parts, upper=same)
        return K

    def memory(self, X: Tensor, Z: Tensor | None = None, transform: Tensor | None = None) -> int:
        """Bytes that `matrix` takes with these arguments, K among them."""
        shape, n, kind = self.shape(X), len(X), X.device.type
        m = n if Z is None else len(Z)
        h, w = shape.maps[0]
        part = self._part(shape, X, transform)
        held = min(n, part) + (min(m, part) if Z is not None or n > part else 0)
        threads = torch.get_num_threads() if kind == "cpu" else 1
        patches = (held * h + 2 * threads * min(n, part)) * w * self._width(X, transform)
        entries = _of(_BLOCK, kind)
        side = _tile(n, m, shape, kind, Z is None, threads, entries)
        blocks = threads * PairSums.numbers(shape, side[0] * side[1], entries)
        return X.element_size() * (n * m + patches + blocks)

    def shape(self, X: Tensor) -> ConvShape:
        """The sizes of all maps for images X (n, c, H, W).

        Raises:
            NfaError: the images are smaller than the receptive field.
        """
        ps, border = self.patch_size, self.patch_size // 2 if self.padding == "zero" else 0
        first = [(side + 2 * border - ps) // self.stride + 1 for side in X.shape[2:]]
        lost = [layer * (ps - 1) for layer in range(self.depth)]
        maps = [(first[0] - pixels, first[1] - pixels) for pixels in lost]
        if min(maps[-1]) < 1:
            least = ps + self.stride * (self.depth - 1) * (ps - 1) - 2 * border
            raise NfaError(
                f"{self.depth} convolutions of {ps} pixels need images of at least {least} × {least}, got "
                f"{X.shape[2]} × {X.shape[3]}: choose a smaller depth or patch_size, or padding='zero'"
            )
        shifts = [(0, 0)]
        if self.head == "pool":
            h, w = maps[-1]
            shifts = [(dy, dx) for dy in range(1 - h, h) for dx in range(1 - w, w)]
        return ConvShape(ps, self.depth, self.stride, border, self.kind == "ntk", tuple(shifts), tuple(maps))

    def _width(self, X: Tensor, T: Tensor | None) -> int:
        return X.shape[1] * self.patch_size**2 if T is None else len(T)

    def _part(self, shape: ConvShape, X: Tensor, T: Tensor | None) -> int:
        """Images whose patches are held at a time."""
        h, w = shape.maps[0]
        image = h * w * self._width(X, T) * X.element_size()
        return max(_of(_PATCH_BYTES, X.device.type) // image, 16)

    def _warn_if_long(self, shape: ConvShape, pairs: int) -> None:
        if self.head != "pool":
            return
        flat = sum(h * w for h, w in shape.maps)
        each = sum((h - abs(y)) * (w - abs(x)) for y, x in shape.shifts for h, w in shape.maps)
        if pairs * each > _LONG:
            warnings.warn(
                f"pooling compares all positions of {pairs} pairs of images, {each // flat} times the work "
                f"of head='flatten': expect minutes or hours; use smaller images or a larger stride",
                CostWarning,
                stacklevel=3,
            )


class _Fill:
    """Writes tiles of the matrix, on all cores."""

    def __init__(
        self,
        K: Tensor,
        same: bool,
        shape: ConvShape,
        channels: int,
        total: int,
        progress: Callable[[int, int], None] | None,
        threads: int,
    ):
        self.K, self.same, self.shape, self.threads = K, same, shape, threads
        self.factor = (channels * shape.divisor) ** -0.5
        self.total, self.progress, self.finished = total, progress, 0

    def __call__(self, x: PatchMaps, top: int, z: PatchMaps, left: int, share: float) -> None:
        """The pairs of x and z, whose first entries of K are at (top, left); x is z on the diagonal.

        Buffers are a share of what they are where there is room.
        """
        own, device = x is z, self.K.device
        n, m = len(x.scale), len(z.scale)
        entries = max(int(_of(_BLOCK, device.type) * share), 1)
        tall, wide = _tile(n, m, self.shape, device.type, own, self.threads, entries)
        tasks = [
            (i, j) for i in even_spans(n, tall) for j in even_spans(m, wide) if not own or j.start >= i.start
        ]
        selves = x.self_sums(self.shape) if own else None

        def make_worker() -> Callable[[tuple[slice, slice]], None]:
            sums = PairSums(self.shape, self.K, entries)

            def work(task: tuple[slice, slice]) -> None:
                i, j = task
                mine = selves[i] if selves is not None and i == j else None
                tile = sums(x, i, z, j, mine)
                tile.mul_(x.scale[i, None] * self.factor).mul_(z.scale[j] * self.factor)
                if mine is not None:
                    tile = tile.triu() + tile.triu(1).mT  # rounding depends on the place in the tile
                rows, columns = _moved(i, top), _moved(j, left)
                self.K[rows, columns] = tile
                if self.same and mine is None:
                    self.K[columns, rows] = tile.mT

            return work

        run_tasks(tasks, make_worker, self.threads, functools.partial(self._done, own))

    def _done(self, own: bool, task: tuple[slice, slice]) -> None:
        if self.progress is not None:
            i, j = (part.stop - part.start for part in task)
            self.finished += i * (i + 1) // 2 if own and task[0] == task[1] else i * j
            self.progress(self.finished, self.total)


def _tile(
    n: int, m: int, shape: ConvShape, kind: str, square: bool, threads: int, entries: int
) -> tuple[int, int]:
    """Rows and columns of a tile: blocks that fit the cache, and tiles enough for every core."""
    h, w = shape.maps[0]
    pairs = entries // (w if kind == "cpu" else h * w)
    if kind == "cpu":
        pairs = min(pairs, _SIDE**2, n * m // (4 * threads))
    side = max(math.isqrt(max(pairs, 1)), 4)
    if square:
        return side, side
    tall = min(n, side)
    return tall, max(min(m, pairs // tall), 4)


def _of(table: dict[str, int], kind: str) -> int:
    return table["cpu" if kind == "cpu" else "cuda"]


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _result(out: Tensor | None, X: Tensor, m: int) -> Tensor:
    shape = (len(X), m)
    if out is None:
        return X.new_empty(shape)
    if out.shape != shape or out.dtype != X.dtype or out.device != X.device:
        raise NfaError(
            f"out must be {X.dtype} of shape {shape} on {X.device}, got {out.dtype} of {tuple(out.shape)}"
        )
    return out


# ---- checks, shared with the gradients ---------------------------------------------------------------------


def check_images(name: str, X: Tensor) -> None:
    """Raises NfaError unless X is a non-empty, finite (n, c, H, W) of float32 or float64."""
    if (
        floats(name, X, "(n, channels, height, width)").dim() != 4
        or X.numel() == 0
        or X.dtype not in (torch.float32, torch.float64)
    ):
        hint = ": reshape flat vectors to images first" if X.dim() < 4 else ""
        raise NfaError(
            f"{name} must be images (n, channels, height, width) of float32 or float64, got {X.dtype} of "
            f"shape {tuple(X.shape)}{hint}"
        )
    largest = float(torch.linalg.vector_norm(X.detach(), math.inf))
    if not math.isfinite(largest):
        raise NfaError(f"{name} has values that are not finite: remove or repair those images")
    if largest > torch.finfo(X.dtype).max ** 0.4:
        raise NfaError(
            f"{name} has values up to {largest:.1e}, too large to be multiplied: rescale the images"
        )


def check_alike(X: Tensor, Z: Tensor) -> None:
    """Raises NfaError unless Z holds images of the size, dtype and device of X."""
    if Z is X:
        return
    check_images("Z", Z)
    if Z.shape[1:] != X.shape[1:] or Z.dtype != X.dtype or Z.device != X.device:
        raise NfaError(
            f"both sets of images need one size, dtype and device, got {X.dtype} {tuple(X.shape)} on "
            f"{X.device} and {Z.dtype} {tuple(Z.shape)} on {Z.device}"
        )


def check_transform(T: Tensor | None, X: Tensor, patch_size: int) -> Tensor | None:
    """T in the dtype of X; raises NfaError unless it is a finite (k, D) on the device of X."""
    if T is None:
        return None
    D = X.shape[1] * patch_size**2
    if T.dim() != 2 or T.shape[1] != D or len(T) == 0 or not T.is_floating_point() or T.device != X.device:
        raise NfaError(
            f"the transform of patches of {X.shape[1]} channels, {patch_size} × {patch_size}, must be real "
            f"of shape (k, {D}) on {X.device}, got {T.dtype} {tuple(T.shape)} on {T.device}"
        )
    if not bool(T.isfinite().all()):
        raise NfaError("the transform has entries that are not finite: check the AGOP it was made of")
    return T.detach().to(X.dtype)
