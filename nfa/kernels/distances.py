"""Euclidean distances by matrix products, with the digits that the products lose put back.

``‖x - z‖² = ‖x‖² + ‖z‖² - 2xᵀz`` is one matrix product, but its error is that of the norms: the distance
of a row to itself comes out as anything up to ``√ε ‖x‖``. So the points are centred, and every entry that
is small beside its norms is computed anew from the differences, which is exact for equal rows.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels.halving import Halving
from nfa.kernels.precision import exact_products
from nfa.kernels.spans import spans

# d²/(‖x‖² + ‖z‖²) up to which an entry is computed anew: the product's error in d is ε over this
_CANCELLED = {torch.float32: 1e-3, torch.float64: 1e-4}
_DIRECT_WIDTH = 8  # up to this many coordinates the differences are no slower than the product
_DIRECT_SHARE = 0.2  # with more entries than this to compute anew, a whole tile of differences is faster
_GATHERED = 2**18  # numbers at a time that are gathered for single entries
_TILE_ENTRIES = {"cpu": 2**17, "cuda": 2**25}


def distances(X: Tensor, Z: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """Euclidean distances (n, m) between the rows of X (n, d) and of Z (m, d), without gradients.

    Equal rows have distance exactly 0; X against itself gives an exactly symmetric matrix. Distances of
    near duplicates are right to a relative 1e-4 in float32. Beyond the result a few tiles of
    2¹⁷ entries are held (2²⁵ on a GPU).

    Args:
        X: points, float32 or float64.
        Z: other points of the same dtype and device; None stands for X.
        out: (n, m) tensor to write to.

    Raises:
        NfaError: shapes or dtypes that do not belong together, or values that are not finite.
    """
    return fill(X, Z, out=out)


def fill(
    X: Tensor,
    Z: Tensor | None = None,
    *,
    out: Tensor | None = None,
    then: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """`distances`, with ``then`` applied in place to every tile while it is in the cache."""
    pairs = Pairs(X, Z)
    shape = (len(pairs.X), len(pairs.Z))
    if out is None:
        out = X.new_empty(shape)
    elif out.shape != shape or out.dtype != X.dtype or out.device != X.device:
        raise NfaError(
            f"out must be {X.dtype} of shape {shape} on {X.device}, got {out.dtype} of {tuple(out.shape)}"
        )

    def work(rows: slice, columns: slice) -> None:
        tile = pairs.distances(rows, columns, out[rows, columns])
        if then is not None:
            then(tile)
        if pairs.same and columns.start >= rows.stop:
            out[columns, rows] = tile.mT

    with exact_products():
        Halving(X.device).blocks(work, pairs.tiles(), upper=pairs.same)
    return out


def tile_entries(device: torch.device) -> int:
    """Entries of a tile: what stays in the cache of a CPU core, or what keeps a GPU busy."""
    return _TILE_ENTRIES.get(device.type, _TILE_ENTRIES["cpu"])


class Pairs:
    """Two sets of points, and the distances between any ranges of them.

    Attributes:
        X: (n, d).
        Z: (m, d); X itself if ``same``.
        same: the two sets are one, and the distances symmetric.
    """

    def __init__(self, X: Tensor, Z: Tensor | None = None):
        _check_points("X", X)
        self.same = Z is None or Z is X
        Z = X if Z is None else Z
        if not self.same:
            _check_points("Z", Z)
            if Z.shape[1] != X.shape[1] or Z.dtype != X.dtype or Z.device != X.device:
                raise NfaError(
                    f"both sets of points need one width, dtype and device, got {X.dtype} {tuple(X.shape)} "
                    f"on {X.device} and {Z.dtype} {tuple(Z.shape)} on {Z.device}"
                )
        self.X, self.Z = X.detach(), Z.detach()
        self._center = self.Z.mean(0)
        self._Z_norms = self._squared_norms("Z" if not self.same else "X", self.Z)
        self._X_norms = self._Z_norms if self.same else self._squared_norms("X", self.X)

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Ranges of rows and columns that cover all pairs; those above the diagonal alone if ``same``."""
        entries = tile_entries(self.X.device)
        if self.same:
            side = max(int(entries**0.5), 1)
            ranges = list(spans(len(self.X), side))
            yield from ((rows, columns) for i, rows in enumerate(ranges) for columns in ranges[i:])
            return
        width = min(len(self.Z), 2 * int(entries**0.5))
        for rows in spans(len(self.X), max(entries // width, 1)):
            yield from ((rows, columns) for columns in spans(len(self.Z), width))

    def distances(self, rows: slice, columns: slice, out: Tensor) -> Tensor:
        """Distances of the points in two ranges, written to ``out``."""
        x, z = self.X[rows], self.Z[columns]
        if x.shape[1] <= _DIRECT_WIDTH:
            return out.copy_(_from_differences(x, z))
        x_norms, z_norms = self._X_norms[rows, None], self._Z_norms[None, columns]
        torch.addmm(z_norms, x - self._center, (z - self._center).mT, alpha=-2, out=out).add_(x_norms)
        limit = x_norms + z_norms
        cancelled = out <= limit.mul_(_CANCELLED[out.dtype])
        i, j = cancelled.nonzero(as_tuple=True)
        if len(i) > _DIRECT_SHARE * out.numel():
            return out.copy_(_from_differences(x, z))
        if self.same and rows == columns:
            out.copy_(out.triu() + out.triu(1).mT)  # rounding depends on the place in the tile
        out.sqrt_()  # an entry that came out negative is among the cancelled
        out[i, j] = _of_pairs(x, z, i, j)
        return out

    def _squared_norms(self, name: str, points: Tensor) -> Tensor:
        step = max(_GATHERED // max(points.shape[1], 1), 1)
        norms = torch.cat([(rows - self._center).square_().sum(1) for rows in points.split(step)])
        if not bool(norms.isfinite().all()):
            bad = int((~points.isfinite().all(1)).sum())
            what = f"{bad} rows with values that are not finite" if bad else "values too large to be squared"
            raise NfaError(f"{name} has {what}: remove or rescale them first")
        return norms


def _from_differences(x: Tensor, z: Tensor) -> Tensor:
    return torch.cdist(x, z, compute_mode="donot_use_mm_for_euclid_dist")


def _of_pairs(x: Tensor, z: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Distances of the pairs ``x[i], z[j]`` by explicit differences, (len(i),)."""
    found = x.new_empty(len(i))
    for part in spans(len(i), max(_GATHERED // x.shape[1], 1)):
        torch.linalg.vector_norm(x[i[part]] - z[j[part]], dim=1, out=found[part])
    return found


def _check_points(name: str, X: Tensor) -> None:
    if X.dim() != 2 or X.numel() == 0 or X.dtype not in _CANCELLED:
        raise NfaError(
            f"{name} must be a non-empty (n, d) tensor of float32 or float64, got {X.dtype} of shape "
            f"{tuple(X.shape)}"
        )
