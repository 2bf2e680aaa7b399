"""Sums C̃_j over R groups of samples side by side, and the products between them that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nfa.ansatz.forms import Form, LowRank, Spanned, are


@dataclass(frozen=True)
class Matrices:
    """``B A_j Bᵀ`` of R groups of samples: A (R, g, k, k), B (g, r, k) or none for the identity.

    Attributes:
        each: A.
        diagonals: of the products, (R, g, r).
        basis: B.
    """

    each: Tensor
    diagonals: Tensor
    basis: Tensor | None = None

    def traceless_products(self, means: Tensor, ranks: Tensor) -> Tensor:
        """``⟨c′_i, c′_j⟩``, (g, R, R), for means of the diagonals (R, g) over so many directions (g,)."""
        diagonal, k = self.each.diagonal(dim1=-2, dim2=-1), self.each.shape[-1]
        spanned = self.basis is not None  # then B has a zero for each of the k directions that a group lacks
        inside = (torch.arange(k, device=means.device) < ranks[:, None]) | spanned
        as_it_was = diagonal.clone()
        diagonal -= means[:, :, None] * inside  # in place: a copy of all would cost as much as the products
        flat = self.each.transpose(0, 1).flatten(2)
        products = flat @ flat.mT
        diagonal.copy_(as_it_was)
        return products + spanned * (ranks - k)[:, None, None] * _pairs(means)

    def linear_products(self, sigma: Tensor) -> Tensor:
        """``⟨diag(σ) C̃_i diag(σ), diag(σ) C̃_j diag(σ)⟩``, (R, R), for σ (g, r)."""
        if self.basis is None:
            flat = ((sigma[:, :, None] * self.each) * sigma[:, None, :]).flatten(1)
            return flat @ flat.mT
        lead = sigma[:, :, None] * self.basis
        turned = (lead.mT @ lead) @ self.each
        return turned.flatten(1) @ turned.mT.flatten(1).mT

    def along(self, derivative: Tensor) -> Tensor:
        """``⟨D, C̃_j⟩`` for D (g, r, r), (R,)."""
        if self.basis is not None:
            derivative = self.basis.mT @ derivative @ self.basis
        return self.each.flatten(1) @ derivative.flatten()

    def seen_from(self, lead: Tensor) -> "Matrices":
        """``LᵀC̃_jL`` for L (g, r, k), but for the diagonals, which stay."""
        basis = lead.mT if self.basis is None else lead.mT @ self.basis
        return Matrices(self.each, self.diagonals, basis)

    def without(self, left_out: int, dtype: torch.dtype) -> Tensor:
        """The sum of all groups but one, (g, r, r), in a precision."""
        rest = (self.each.sum(0) - self.each[left_out]).to(dtype)
        if self.basis is None:
            return rest
        basis = self.basis.to(dtype)
        return basis @ rest @ basis.mT

    def within(self, group: int, start: int, stop: int) -> Tensor:
        """The blocks of the directions from start to stop, (R, n, n)."""
        if self.basis is None:
            return self.each[:, group, start:stop, start:stop]
        B = self.basis[group, start:stop]
        return B @ self.each[:, group] @ B.mT


@dataclass(frozen=True)
class Columns:
    """``Y_j Y_jᵀ`` of R groups of samples: all Y (g, r, m), and whose each column is, (m, R) of 0 and 1."""

    factor: Tensor
    member: Tensor

    @cached_property
    def diagonals(self) -> Tensor:
        """(R, g, r)."""
        return (self.factor.square() @ self.member).movedim(-1, 0)

    def traceless_products(self, means: Tensor, ranks: Tensor) -> Tensor:
        """As those of `Matrices`; by their rank alone the sums are far from the identity."""
        return self._products(self.factor) - ranks[:, None, None] * _pairs(means)

    def linear_products(self, sigma: Tensor) -> Tensor:
        """As those of `Matrices`."""
        return self._products(sigma[:, :, None] * self.factor).sum(0)

    def along(self, derivative: Tensor) -> Tensor:
        """As that of `Matrices`."""
        return ((derivative @ self.factor) * self.factor).sum((0, 1)) @ self.member

    def seen_from(self, lead: Tensor) -> "Columns":
        """As that of `Matrices`."""
        return Columns(lead.mT @ self.factor, self.member)

    def without(self, left_out: int, dtype: torch.dtype) -> Tensor:
        """As that of `Matrices`."""
        Y = self.factor[:, :, self.member[:, left_out] == 0].to(dtype)
        return Y @ Y.mT

    def within(self, group: int, start: int, stop: int) -> Tensor:
        """As those of `Matrices`."""
        Y = self.factor[group, start:stop]
        return torch.einsum("am,bm,mj->jab", Y, Y, self.member)

    def _products(self, factor: Tensor) -> Tensor:
        return self.member.mT @ (factor.mT @ factor).square() @ self.member


def _pairs(means: Tensor) -> Tensor:
    """(R, g) to (g, R, R)."""
    return means.mT[:, :, None] * means.mT[:, None, :]


def stacked(parts: Sequence[Form]) -> Matrices | Columns:
    """Parts of one form, of one basis too, together; written out where that is less than all columns."""
    widths = [part.factor.shape[2] for part in parts if isinstance(part, LowRank)]
    if are(parts, LowRank) and sum(widths) <= parts[0].factor.shape[1]:
        factor = torch.cat([part.factor for part in parts], 2)
        return Columns(factor, torch.block_diag(*[factor.new_ones(width, 1) for width in widths]))
    matrices = [part.dense().matrix if isinstance(part, LowRank) else part.matrix for part in parts]
    each = torch.stack(matrices) if len(parts) > 1 else matrices[0][None]
    diagonals = torch.stack([part.diagonal() for part in parts])
    return Matrices(each, diagonals, parts[0].basis if isinstance(parts[0], Spanned) else None)
