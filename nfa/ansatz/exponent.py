"""The exponent of ``N ∝ G^α`` fitted to a layer, and how well groups of samples pin it down.

``C ∝ (WWᵀ)^(1/α - 1)`` says that ``log cᵢ`` with ``cᵢ = uᵢᵀCuᵢ`` is a line over ``log σᵢ²``, of slope
``1/α - 1``. Each direction counts once, but for those that hold next to nothing: one with less than a
ten-thousandth of the mean of ``σ²``, or of ``c``, counts less, in proportion. Far out on the logarithmic
axis a few of them, which rounding or few samples made, would lead the fit.

The interval comes from a bootstrap over groups of samples, percentiles of 400 draws of the slope. Few groups
tell little of their own spread: its distances from the fit are widened as those of Student's t.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nfa.ansatz.basis import Basis, without_noise
from nfa.ansatz.blockwise import NAN
from nfa.ansatz.forms import Frame, ratio

_TINY = 1e-4  # share of the mean below which a direction counts less
_DRAWS = 400
_TAIL = 0.025


def fitted_exponent(frame: Frame, diagonal: Tensor, rounding: float, noise: float) -> tuple[float, float]:
    """α and the correlation of the fit.

    Args:
        frame: of the weight.
        diagonal: ``uᵢᵀCuᵢ``, (g, r).
        rounding: share of the largest entry up to which one is none.
        noise: relative size below which the singular values are equal.

    Returns:
        NaN for both with fewer than three directions or with equal singular values; for α also where G is
        flat, for want of a finite exponent; for the correlation where C is.
    """
    usable = _usable(frame, diagonal, rounding)
    if int(usable.sum()) < 3:
        return NAN, NAN
    x, y, w = _points(frame.sigma2[usable], diagonal[usable])
    if float((w * x.square()).sum().sqrt()) <= noise * math.sqrt(len(x)):
        return NAN, NAN
    slope = float(_slope(x, y, w))
    flat = float(y.norm()) <= 1e-12 * math.sqrt(len(y))  # C ∝ I: exponent 1 exactly, and no correlation
    spreads = (w * x.square()).sum().sqrt() * (w * y.square()).sum().sqrt()
    return _alpha(slope), NAN if flat else ratio((w * x * y).sum(), spreads)


def exponent_interval(
    frame: Frame, parts: Tensor, rounding: float, noise: float, widening: float, seed: int = 0
) -> tuple[float, float]:
    """The ends of the interval that holds α of many more samples in 19 of 20 layers.

    Args:
        frame: of the weight.
        parts: ``uᵢᵀCⱼuᵢ`` of the sum over each group j, (R, g, r); two groups or more.
        rounding: as for `fitted_exponent`.
        noise: likewise.
        widening: of the distances from the fit, for so few groups.
        seed: of the draws.

    Returns:
        NaN where nothing is fitted. The upper end is infinite where the slope may be as low as -1, at which
        no power of G is N.
    """
    whole = parts.sum(0)
    alpha, _ = fitted_exponent(frame, whole, rounding, noise)
    usable = _usable(frame, whole, rounding)
    if int(usable.sum()) < 3 or math.isnan(alpha):
        return NAN, NAN
    groups = len(parts)
    even = torch.full((_DRAWS, groups), 1 / groups, dtype=torch.float64)
    drawn = even.multinomial(groups, replacement=True, generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros_like(even).scatter_add_(1, drawn, torch.ones_like(even)).to(parts)
    slopes = _slope(*_points(frame.sigma2[usable], counts @ parts[:, usable]))
    fit = 1 / alpha
    ends = torch.quantile(1 + slopes.cpu(), torch.tensor([_TAIL, 1 - _TAIL], dtype=torch.float64))
    low, high = (fit + widening * (float(end) - fit) for end in ends)
    if low <= 0 < high:
        return 1 / high, math.inf
    return min(1 / low, 1 / high), max(1 / low, 1 / high)


def basis_error(
    whole: Basis, parts: Sequence[Basis], left: Sequence[Basis], counts: Sequence[int], *, corrected: bool
) -> tuple[float, float]:
    """Spread and bias of the share of the eigenbasis, from groups of samples.

    Args:
        whole: of all groups.
        parts: of each group alone.
        left: of all but each.
        counts: samples of each group.
        corrected: the spread asked for is that of the share without its bias.

    Returns:
        Standard error, which for few groups is to be widened, and bias; NaN where they cannot be told.
    """
    better = without_noise(whole, parts)
    value, without = whole.share, [one.share for one in left]
    if corrected and len(parts) > 2:  # of two groups one would be left, which has no products
        value = better
        without = [without_noise(one, [*parts[:j], *parts[j + 1 :]]) for j, one in enumerate(left)]
    h = [sum(counts) / count for count in counts]
    mean = len(h) * value - sum((1 - 1 / k) * v for k, v in zip(h, without, strict=True))
    pseudo = [k * value - (k - 1) * v for k, v in zip(h, without, strict=True)]
    squares = [(p - mean) ** 2 / (k - 1) for p, k in zip(pseudo, h, strict=True)]
    return math.sqrt(sum(squares) / len(squares)), whole.share - better


def _usable(frame: Frame, diagonal: Tensor, rounding: float) -> Tensor:
    return frame.keep & (diagonal > rounding * diagonal.amax())


def weighted_points(sigma2: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of ``σ²`` and ``c`` (…, n), and how much each direction counts."""
    weight = _counted(sigma2) * _counted(diagonal)
    return sigma2.log(), diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny).log(), weight


def _points(sigma2: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates less their weighted means, and the weights, of directions (…, n)."""
    x, y, weight = weighted_points(sigma2, diagonal)
    total = weight.sum(-1, keepdim=True)
    centred = [v - (weight * v).sum(-1, keepdim=True) / total for v in (x, y)]
    return centred[0], centred[1], weight


def _counted(values: Tensor) -> Tensor:
    """What each direction counts: 1, or less where it holds next to nothing."""
    return (values / (_TINY * values.mean(-1, keepdim=True))).clamp_max(1)


def _slope(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return (weight * x * y).sum(-1) / (weight * x.square()).sum(-1)


def _alpha(slope: float) -> float:
    return 1 / (1 + slope) if abs(1 + slope) > 1e-12 else NAN  # G ∝ I: no power of it is N
