"""The cosine of a wide layer with each group of samples left out: to first order, but for one group.

A decomposition for each group would be most of what a wide layer costs. With ``H = V diag(λ) Vᵀ`` the
derivative of ``F = tr(Σ² H^α)`` is one matrix, by whatever H changes (Daleckii and Krein),

    V [ (VᵀΣ²V) ∘ K ] Vᵀ,      K_ab = (λ_a^α - λ_b^α) / (λ_a - λ_b),

and that of ``Q = ‖H^α‖²`` is ``2α H^(2α-1)``. F and Q are homogeneous: the derivatives along the groups add
up to α F and to 2α Q, so that each group has a share f_j of the one and q_j of the other. Without it the
cosine is

    cosine · ((1 - f_j) / (1 - q_j))^α

to first order, and exactly where the groups are alike. What is beyond is found from one group that is left
out as it is, and taken to be the same for all: it is what tells how the cosine grows with the samples.
"""

import torch
from torch import Tensor

from nfa.ansatz.forms import Frame
from nfa.ansatz.group_sums import Columns, Matrices

_EQUAL = 1e-6  # relative: nearer eigenvalues have the derivative at their mean in the place of a difference


def without_each(
    frame: Frame, eigen: tuple[Tensor, Tensor], power: float, groups: Matrices | Columns
) -> Tensor:
    """The cosine without each group over that of all, (groups of samples,), to first order.

    Args:
        frame: of the weight.
        eigen: eigenvalues (g, k) and eigenvectors (g, r, k) of H.
        power: exponent α.
        groups: their sums C̃_j, on any one scale.
    """
    values, V = eigen
    lead = frame.sigma2.sqrt()[:, :, None] * V
    within = V.mT @ (frame.sigma2[:, :, None] * V)
    product = (lead @ (within * _divided(values, power))) @ lead.mT
    if power == 0.5:  # Q is the trace of H
        squares = _normed((frame.sigma2 * groups.diagonals).sum((1, 2)))
    else:
        some = values > 0
        slopes = torch.where(some, values, 1.0) ** (2 * power - 1) * some
        squares = _normed(groups.along((lead * slopes[:, None, :]) @ lead.mT))
    return ((1 - _normed(groups.along(product))).clamp_min(0) / (1 - squares).clamp_min(0)) ** power


def _divided(values: Tensor, power: float) -> Tensor:
    """K, (g, k, k); zero where an eigenvalue is."""
    some = values > 0
    safe = torch.where(some, values, 1.0)
    x, y = safe[:, :, None], safe[:, None, :]
    near = (x - y).abs() <= _EQUAL * torch.maximum(x, y)
    gap = torch.where(near, 1.0, x - y)
    found = torch.where(near, power * ((x + y) / 2) ** (power - 1), (x**power - y**power) / gap)
    return found * (some[:, :, None] & some[:, None, :])


def _normed(sizes: Tensor) -> Tensor:
    each = sizes.clamp_min(0)
    return each / each.sum()
