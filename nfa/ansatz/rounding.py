"""Eigenvalues of C that are rounding: where a cut is made, and what hangs on it."""

import torch
from torch import Tensor

from nfa.ansatz.forms import Form, Spanned

_UNRESOLVED = 2.0  # roundings of the largest eigenvalue of a sum: below is noise, of which 0.3 were seen
_NEGLIGIBLE = 1e-4  # of a squared norm
_NEAR = 10.0  # times the cut: eigenvalues up to here tell how the spectrum goes on


def resolved_from(rounding: float, size: int) -> float:
    """The share of the largest eigenvalue that sums of products with such a rounding resolve.

    Args:
        rounding: relative, of the products.
        size: of the matrix.
    """
    return max(_UNRESOLVED * rounding, size * torch.finfo(torch.float64).eps)


def cut_like(C: Form, floor: float, keep: Tensor, power: float) -> Form:
    """A sensitivity, cut where another was, if the power lets what is below count."""
    counts = keep.shape[1] * floor ** (2 * power) > _NEGLIGIBLE
    return C if not counts or C.is_resolved(floor, keep) else C.resolved(floor, keep)


def near_cut(C: Form, floor: float) -> Tensor | None:
    """Which eigenvalues (g, k) of what was cut a cut ten times as high takes too; None without any."""
    if not isinstance(C, Spanned):
        return None
    values = C.matrix.diagonal(dim1=-2, dim2=-1)  # `resolved` made it diagonal
    near = (values > 0) & (values <= _NEAR * floor * values.amax(-1, keepdim=True))
    return near if bool(near.any()) else None
