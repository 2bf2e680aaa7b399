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

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.blockwise import gram
from nfa.ansatz.group_sums import Columns, Matrices

_EQUAL = 1e-6  # relative: nearer eigenvalues have the derivative at their mean in the place of a difference


@dataclass(frozen=True)
class Slopes:
    """What the cosine hangs on, in the eigenvectors of H.

    Attributes:
        lead: ``diag(σ) V``, (g, r, k): turns C̃ into what it adds to H there.
        values: eigenvalues of H, (g, k).
        within: ``VᵀΣ²V``, N there, (g, k, k).
        product: the derivative of F there, (g, k, k).
        square: that of Q, diagonal, (g, k).
        sigma2: squared singular values of W, (g, r).
        power: exponent α.
    """

    lead: Tensor
    values: Tensor
    within: Tensor
    product: Tensor
    square: Tensor
    sigma2: Tensor
    power: float

    @classmethod
    def of(cls, sigma2: Tensor, eigen: tuple[Tensor, Tensor], power: float) -> "Slopes":
        """From the squared singular values (g, r), and eigenvalues (g, k) and eigenvectors (g, r, k) of H."""
        values, V = eigen
        lead = sigma2.sqrt()[:, :, None] * V
        within, some = gram(lead.mT), values > 0
        square = 2 * power * torch.where(some, values, 1.0) ** (2 * power - 1) * some
        return cls(lead, values, within, within * _divided(values, power), square, sigma2, power)

    def without_each(self, groups: Matrices | Columns) -> list[float]:
        """The cosine without each group of samples, whose sums C̃_j are on any one scale."""
        seen = groups.seen_from(self.lead)
        ratios = self.ratios(groups, seen)
        one = self._cosine(seen.without(0, torch.float32 if self.power >= 0.5 else torch.float64))
        return (one * ratios / ratios[0]).clamp_max(1).tolist()

    def ratios(self, groups: Matrices | Columns, seen: Matrices | Columns) -> Tensor:
        """The cosine without each group over that of all, to first order, (R,); ``seen`` is from `lead`."""
        f = _normed(seen.along(self.product))
        if self.power == 0.5:  # Q is the trace of H
            q = _normed((groups.diagonals * self.sigma2).sum((1, 2)))
        else:
            q = _normed(seen.along(torch.diag_embed(self.square)))
        return ((1 - f).clamp_min(0) / (1 - q).clamp_min(0)) ** self.power

    def without_directions(self, factor: Tensor) -> float:
        """The cosine without some of C̃, factor factorᵀ (g, r, k) that holds little, over that with it.

        It takes with it what it adds to F and to Q: its share of them, were all to shrink alike.
        """
        turned = self.lead.mT @ factor
        F = (self.within.diagonal(dim1=-2, dim2=-1) * self.values**self.power).sum()
        Q = (self.values ** (2 * self.power)).sum()
        f = ((self.product @ turned) * turned).sum() / (self.power * F)
        q = (self.square[:, :, None] * turned.square()).sum() / (2 * self.power * Q)
        return float((1 - f) / (1 - q).sqrt())

    def _cosine(self, H: Tensor) -> Tensor:
        """The cosine for another H (g, k, k) in these coordinates.

        In float32 for exponents from ½: it differs by a per mille or more, and 1e-6 are known of it.
        """
        values, vectors = torch.linalg.eigh(H)
        floor = 4 * torch.finfo(H.dtype).eps * values[:, -1:]
        values = torch.where(values > floor, values, 0).double() ** self.power
        along = ((self.within.to(H.dtype) @ vectors) * vectors).sum(-2)
        return (along * values).sum() / (values.norm() * self.sigma2.norm())


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
