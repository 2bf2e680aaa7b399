"""One reverse sweep of the recursion over a tile of pairs: derivatives by two numbers a position.

In the notation of `conv_recursion`, with e and e + m the derivatives of K by θ' and by k' (times π), a ReLU
passes back

    b = e θ/t,   ∂K/∂k = (e + m) a + b,   ∂K/∂θ = e a,   ∂K/∂X = ((e + m) t - k b)/(2X),

and a convolution the sums over all windows that a position is in. ``b`` comes from the slope of κ₀,
``1/(π√(1 - ρ²))``, and is 0 where ``1 - ρ²`` is rounding; where a patch vanishes ρ is 0 and a is π/2.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nfa.kernels.conv_recursion import ConvShape, PatchMaps, Region, Workspace, rounding, window_sum

MASKS = {torch.float32: 1e-6, torch.float64: 1e-14}
"""Up to this 1 - ρ² the slope of κ₀ counts as 0."""


class Tile(NamedTuple):
    """Pairs of some images of two sets.

    Attributes:
        x: one set, and ``i`` a range of it; likewise ``z`` and ``j``.
        selves: places among the pairs, row by row, where an image meets itself.
    """

    x: PatchMaps
    i: slice
    z: PatchMaps
    j: slice
    selves: list[int]


class _Saved(NamedTuple):
    """What the sweep back needs of one layer, (rows, columns, pairs) each; ``ratio`` is the masked θ/t."""

    K: Tensor
    t: Tensor
    a: Tensor
    ratio: Tensor | None


class Slopes:
    """Sweeps over tiles of pairs, with buffers of its own; tensors are (rows, columns, pairs)."""

    def __init__(self, shape: ConvShape, like: Tensor, vanish: list[bool]):
        self.shape, self.vanish = shape, vanish
        self.buffer = Workspace(like)
        self.mask = MASKS[like.dtype]
        self.one = like.new_ones(())
        self.rings: dict[int, Tensor] = {}

    def __call__(
        self, tile: Tile, at: Region, partner: Region, a: Tensor, H: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Derivatives by ``k_p`` of the first layer, and add those by kxx, summed over the images j.

        Args:
            tile: the pairs.
            at: positions of the images i, and ``partner`` the positions of the images j that they meet.
            partner: see ``at``.
            a: (len(j), classes).
            H: for each layer (h, w, len(i), classes); ``Σ_j a_jc ∂K/∂X_p · 2X_p`` is added to it.

        Returns:
            ``∂K/∂k_p`` (positions, len(i), len(j)), valid until the next call, and the patches of the images
            j at these positions (positions, k, len(j)).
        """
        whole = slice(0, at.height)
        u = at.of(tile.x.patches, whole, at.width)[..., tile.i].flatten(0, 1)
        v = partner.of(tile.z.patches, whole, at.width)[..., tile.j].flatten(0, 1)
        K = torch.bmm(u.mT, v, out=self.buffer("k 0", len(u), u.shape[2], v.shape[2]))
        K = K.view(at.height, at.width, -1)
        E = K if self.shape.ntk else None
        saved: list[_Saved] = []
        for layer in range(self.shape.depth):
            if layer > 0:
                K, E = self._convolved(layer, saved[-1], E)
            saved.append(self._relu(layer, K, E, self._sizes(layer, K, tile, at, partner), tile.selves))
        return self._back(saved, a, at, H).view(len(u), u.shape[2], v.shape[2]), v

    def _sizes(self, layer: int, K: Tensor, tile: Tile, at: Region, partner: Region) -> Tensor:
        """``S² = kxx kzz`` in the shape of K."""
        rows, width = slice(0, K.shape[0]), K.shape[1]
        xx = at.of(tile.x.norms[layer], rows, width)[:, :, tile.i, None]
        zz = partner.of(tile.z.norms[layer], rows, width)[:, :, None, tile.j]
        S = self.buffer("sizes", *K.shape)
        torch.mul(xx, zz, out=S.view(*K.shape[:2], xx.shape[2], zz.shape[3]))
        return S

    def _relu(self, layer: int, K: Tensor, E: Tensor | None, S: Tensor, selves: list[int]) -> _Saved:
        t = self.buffer(f"t {layer}", *K.shape)
        torch.addcmul(S, K, K, value=-1 - rounding(K.dtype), out=t)
        if selves:
            t[..., selves] = 0
        a = torch.neg(K, out=self.buffer(f"a {layer}", *K.shape))
        empty = S == 0 if self.vanish[layer] else None
        parallel = None if E is None else t <= S.mul_(self.mask)
        torch.atan2(t.clamp_min_(0).sqrt_(), a, out=a)
        if empty is not None:
            a.masked_fill_(empty, math.pi / 2)
        if E is None or parallel is None:
            return _Saved(K, t, a, None)
        ratio = torch.div(E, t, out=self.buffer(f"ratio {layer}", *K.shape))
        return _Saved(K, t, a, ratio.masked_fill_(parallel, 0))

    def _convolved(self, layer: int, below: _Saved, E: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The pair (k, θ) of a layer, from that of the layer below before its ReLU."""
        Y = self.buffer("relu", 1 if E is None else 2, *below.K.shape)
        torch.addcmul(below.t, below.a, below.K, out=Y[0])
        if E is not None:
            torch.addcmul(Y[0], below.a, E, out=Y[1])
        Y = self._windows(Y, f"k {layer}")
        return Y[0], None if E is None else Y[1]

    def _back(self, saved: list[_Saved], a: Tensor, at: Region, H: list[Tensor]) -> Tensor:
        """``∂K/∂k`` of the first layer."""
        total, e = self.one, self.one  # e + m and e of the head
        for layer in reversed(range(self.shape.depth)):
            K, t, angle, ratio = saved[layer]
            h, w, pairs = K.shape
            whole, inner = self._ring(layer, h, w, pairs)
            torch.mul(total, angle, out=inner[0])
            slope = t.mul_(total)
            if ratio is not None:
                b = ratio.mul_(e)
                slope.addcmul_(K, b, value=-1)
                torch.mul(e, angle, out=inner[1])
                inner[0].add_(b).add_(inner[1])
            into = at.of(H[layer], slice(0, h), w)
            into += (slope.view(-1, len(a)) @ a).view(into.shape)
            if layer > 0:
                below = self._windows(whole, "below")
                total, e = below[0], below[-1]
        return inner[0]

    def _ring(self, layer: int, h: int, w: int, pairs: int) -> tuple[Tensor, Tensor]:
        """Maps of the derivatives by k + θ and by θ with zeros around them, and the maps alone."""
        ring, parts = 0 if layer == 0 else self.shape.patch_size - 1, 2 if self.shape.ntk else 1
        size = (parts, h + 2 * ring, w + 2 * ring, pairs)
        whole = self.rings.get(layer)
        if whole is None or whole.shape != size:
            whole = self.rings[layer] = self.one.new_zeros(size)
        return whole, whole[:, ring : h + ring, ring : w + ring]

    def _windows(self, Y: Tensor, name: str) -> Tensor:
        """Window sums of (parts, rows, columns, pairs)."""
        size = self.shape.patch_size
        parts, h, w, pairs = Y.shape
        across = self.buffer("across", parts, h, w - size + 1, pairs)
        window_sum(Y, size, 2, across, self.buffer)
        out = self.buffer(name, parts, h - size + 1, w - size + 1, pairs)
        return window_sum(across, size, 1, out, self.buffer)
