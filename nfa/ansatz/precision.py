"""How well samples and probes in groups pin the statistics of a pair down: their spread, and their bias.

C from few samples, or from random probes, is C plus noise. The noise is zero on average, but it adds to
``‖C‖``, so that every cosine with C comes out low, in each group of samples alike: no spread between them
shows it.

A product of *different* groups has no such part. With ``S_a`` the sum over the nₐ samples (or probes) of
group a, ``⟨S_a, S_b⟩ / (nₐ n_b)`` is an unbiased estimate of ``‖C‖²`` for a ≠ b, and all pairs together are

    ‖C‖² ≈ (‖Σ S_a‖² - Σ ‖S_a‖²) / ((Σ nₐ)² - Σ nₐ²).

That corrects the alignment, and the cosine for an exponent of 1. For others the jackknife estimates the bias
from how much the cosine moves when a group is left out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.blockwise import NAN
from nfa.ansatz.exponent import basis_error
from nfa.ansatz.group_products import GroupProducts

_T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36}  # by degrees of freedom
_NORMAL_95 = 1.96
_LEAST_SHARE = 0.1  # of a squared norm that must come from different groups for it to be known from them
_REMAINDER = 0.9  # of a jackknife correction, over the square of the number of groups: what was seen of it


@dataclass(frozen=True)
class Precision:
    """How well samples pin the statistics of a pair down; NaN where they are too few to tell.

    Two standard errors to either side hold the true value in 19 of 20 cases, few groups or many.

    Attributes:
        cosine: standard error of the cosine: its spread between groups, its bias where that is not taken off,
            and `cut`.
        alignment: standard error of the alignment.
        drift: how far the mean cosine of the two halves of the samples is from that of all. The cosine of a
            C of low rank grows with the samples, which no spread between them shows.
        cut: how far the cosine hangs on eigenvalues of C near those that float32 sums do not resolve; 0 for
            a C of exact low rank, and where the power lets no small one count.
        cosine_bias: what the cosine of noisy groups is too low by, as a number to be taken off: negative.
        alignment_bias: the same for the alignment, which noise brings nearer to 0.
        null_bias: the same for the mean cosine of the null, whose spectrum is as noisy as that of C.
        basis_bias: the same for the share of the eigenbasis, which noise brings nearer to 0; found where the
            corrected values were asked for.
        basis: standard error of the share of the eigenbasis, as that of the alignment.
        alpha_low: lower end of the interval that holds the exponent in 19 of 20 cases.
        alpha_high: its upper end, infinite where no power of G may be N.
    """

    cosine: float = NAN
    alignment: float = NAN
    drift: float = NAN
    cut: float = 0.0
    cosine_bias: float = NAN
    alignment_bias: float = NAN
    null_bias: float = NAN
    basis_bias: float = NAN
    basis: float = NAN
    alpha_low: float = NAN
    alpha_high: float = NAN


@dataclass(frozen=True)
class _Known:
    """A statistic from groups: what it is too large by, its spread, and what is left once the bias is off."""

    bias: float
    spread: float
    remainder: float

    def error(self, corrected: bool) -> float:
        """Standard error of the corrected value, or of the one that still holds the bias."""
        return math.hypot(self.spread, self.remainder if corrected else self.bias)


@dataclass(frozen=True)
class _Norms:
    """Norms of the sum of all groups, of all but each, and of each: the bias of a norm is known from them."""

    total: float
    without: Sequence[float]
    parts: Sequence[float]
    counts: Sequence[int]

    @classmethod
    def of(cls, norms: Callable[[Tensor], Tensor], counts: Sequence[int]) -> "_Norms":
        """By what gives the norms of sums, each told by how often the groups are in it."""
        one = torch.eye(len(counts), dtype=torch.float64)
        return cls(
            float(norms(torch.ones_like(one[:1]))), norms(1 - one).tolist(), norms(one).tolist(), counts
        )

    def share_of_different(self, left_out: int | None = None) -> float:
        """The squared norm of a mean from products of different groups, over that of the mean itself."""
        whole = self.total if left_out is None else self.without[left_out]
        if not whole > 0:
            return NAN
        kept = [j for j in range(len(self.counts)) if j != left_out]
        same = sum((self.parts[j] / whole) ** 2 for j in kept)
        n2, own = sum(self.counts[j] for j in kept) ** 2, sum(self.counts[j] ** 2 for j in kept)
        return (1 - same) * n2 / (n2 - own)


def precision_of(
    products: GroupProducts,
    counts: Sequence[int],
    *,
    cosines: Callable[[], Sequence[float]] | None,
    halves: Callable[[], Sequence[float]] | None,
    whole: tuple[float, float],
    corrected: bool,
    cut: float,
    alpha: tuple[float, float],
    null_changes: Sequence[float] | None,
) -> Precision:
    """Precision of statistics from two or more groups; see `nfa.ansatz.pair.FeaturePair.precision`.

    Args:
        products: of the groups.
        counts: samples of each.
        cosines: the cosines without each group; None where α is 1, so that each is a product over a norm.
        halves: the cosines of two halves of the groups, where the drift is asked for.
        whole: cosine and alignment of all groups together.
        corrected: the errors asked for are those of the values without their bias.
        cut: see `Precision`.
        alpha: the ends of the interval of the exponent.
        null_changes: by how much draws of the null change without each of the first groups.
    """
    each = torch.eye(len(counts), dtype=torch.float64)
    left_out = 1 - each
    norms = _Norms.of(products.traceless_norms, counts)
    aligned = _of_ratio(whole[1], products.alignments(left_out).tolist(), norms, corrected)
    if cosines is None:
        norms = _Norms.of(products.linear_norms, counts)
        left = products.linear_cosines(left_out).tolist()
        known = _of_ratio(whole[0], left, norms, corrected)
    else:
        left = list(cosines())
        known = _of_jackknife(whole[0], left, counts)
    drift = NAN
    if halves:  # of two groups each half is what leaving out the other leaves
        drift = abs(whole[0] - sum(left if len(counts) == 2 else halves()) / 2)
    on, reduced, (total,) = (products.bases(sums) for sums in (each, left_out, torch.ones_like(each[:1])))
    spread, bias = basis_error(total, on, reduced, counts, corrected=corrected)
    return Precision(
        cosine=math.hypot(known.error(corrected), cut),
        alignment=aligned.error(corrected),
        drift=drift,
        cut=cut,
        cosine_bias=known.bias,
        alignment_bias=aligned.bias,
        null_bias=NAN if null_changes is None else _bias(null_changes, counts),
        basis_bias=bias if corrected else NAN,
        basis=math.hypot(spread * _student(len(counts) - 1), 0.0 if corrected else bias),
        alpha_low=alpha[0],
        alpha_high=alpha[1],
    )


def _of_ratio(whole: float, without: Sequence[float], norms: _Norms, corrected: bool) -> _Known:
    """A product over a norm, which is known without bias from products of different groups.

    Args:
        whole: of all groups.
        without: leaving out each.
        norms: of the sums.
        corrected: the spread asked for is that of the value without its bias.
    """
    counts, share = norms.counts, norms.share_of_different()
    better = whole * _factor(share)
    if corrected and len(counts) > 2:
        left = [value * _factor(norms.share_of_different(j)) for j, value in enumerate(without)]
        spread = _jackknife(better, left, counts)[1]
    else:  # of two groups one would be left, which has no products
        spread = _jackknife(whole, without, counts)[1] * (_factor(share) if corrected else 1.0)
    bias = whole - clipped(better)
    return _Known(bias, spread, 0.0 if share >= _LEAST_SHARE else bias)


def _factor(share: float) -> float:
    return 1 / math.sqrt(max(share, _LEAST_SHARE)) if not math.isnan(share) else NAN


def _of_jackknife(whole: float, without: Sequence[float], counts: Sequence[int]) -> _Known:
    """Any smooth statistic."""
    estimate, spread = _jackknife(whole, without, counts)
    bias = whole - clipped(estimate)
    return _Known(bias, spread, _REMAINDER * bias / len(counts) ** 2)


def _jackknife(whole: float, without: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """An estimate without its bias, and its standard error, from those that leave out one group each."""
    h = torch.tensor([sum(counts) / count for count in counts], dtype=torch.float64)
    left = torch.tensor(without, dtype=torch.float64)
    estimate = len(left) * whole - ((1 - 1 / h) * left).sum()
    pseudo = h * whole - (h - 1) * left
    error = float(((pseudo - estimate).square() / (h - 1)).mean().sqrt())
    return float(estimate), error * _student(len(left) - 1)


def _bias(changes: Sequence[float], counts: Sequence[int]) -> float:
    """What a statistic that changes so, when each of the first groups is left out, is too large by."""
    estimates = [(sum(counts) / n - 1) * change for n, change in zip(counts, changes, strict=False)]
    return sum(estimates) / len(estimates) if estimates else NAN


def widening(groups: int) -> float:
    """By how much the interval of a bootstrap over few groups is too narrow."""
    return _student(groups - 1) * math.sqrt(groups / (groups - 1))


def _student(freedom: int) -> float:
    """By how much few groups, which tell little of their own spread, widen a standard error."""
    z = _NORMAL_95
    quantile = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return _T_95.get(freedom, quantile) / z


def clipped(value: float) -> float:
    """A correlation within [-1, 1]; NaN stays NaN."""
    return value if math.isnan(value) else min(1.0, max(-1.0, value))


def without(bias: float, value: float) -> float:
    """A correlation less its bias, where that is known."""
    return value if math.isnan(bias) else clipped(value - bias)
