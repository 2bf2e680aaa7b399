"""A weight with its sensitivity, and the decompositions all statistics are computed from, each made once.

U and σ come from one eigendecomposition of ``S = WWᵀ``. Where C is the sum of m < r outer products,
``C = XXᵀ``, it stays in that form (``C̃ = YYᵀ`` with ``Y = UᵀX``): the spectrum and the eigenvectors of
H are then those of an m × m problem, and no other decomposition of size r is needed.

A C that was added up in float32 has eigenvalues of rounding where it should have none, and a small power
of G makes them count. Those below what such sums resolve are zero: ``C̃ = B A Bᵀ`` with the k others.
"""

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from nfa.ansatz.blockwise import blocks_of, check_shape, columns, gram
from nfa.ansatz.forms import Form, Frame, inverse_root, powered
from nfa.ansatz.rounding import resolved_from
from nfa.checks import not_negative
from nfa.errors import NfaError


class Decomposed:
    """W (groups, out, in) and C, scaled to order one, seen from the left singular vectors of W.

    Args and errors are those of `nfa.ansatz.pair.FeaturePair`.
    """

    def __init__(
        self,
        weight: Tensor,
        sensitivity: Tensor | None = None,
        *,
        factor: Tensor | None = None,
        resolution: float | None = None,
        noise: float | None = None,
    ):
        given = [(C, what) for C, what in ((sensitivity, "sensitivity"), (factor, "factor")) if C is not None]
        if len(given) != 1:
            raise NfaError("a pair needs either a sensitivity C or a factor X with C = X Xᵀ")
        (W, self._W_scale), (self._given, self._scale) = blocks_of((weight, "weight"), given[0])
        self.grouped = weight.dim() == 3
        self.resolution = torch.finfo(weight.dtype).eps
        if resolution is not None:
            self.resolution = not_negative("resolution", resolution)
        self.weight = W
        self._floor = 0.0  # relative to the largest eigenvalue of C
        self._factored = factor is not None
        if sensitivity is not None:
            check_shape("sensitivity", self._given, (*W.shape[:2], W.shape[1]), W)
            rounding = torch.finfo(sensitivity.dtype).eps if noise is None else not_negative("noise", noise)
            self._floor = resolved_from(rounding, W.shape[1])
        elif factor is not None:
            check_shape("factor", self._given, (*W.shape[:2], self._given.shape[2]), W)

    @property
    def in_features(self) -> int:
        """Length of the vectors W acts on, per group."""
        return self.weight.shape[2]

    @property
    def sensitivity(self) -> Tensor:
        """C, (groups, out, out) float64; formed anew each time."""
        if self._factored:
            return gram(self._given)
        return (self._given.double() + self._given.double().mT).div_(2)

    # ---- C seen from W --------------------------------------------------------------------------------

    @property
    def left_vectors(self) -> Tensor:
        """U: left singular vectors of W as columns, (groups, out, r) float64; zero beyond its rank."""
        return self._frame.U

    @cached_property
    def squared_singular_values(self) -> Tensor:
        """σ²: eigenvalues of ``WWᵀ``, (groups, r) float64, descending in each group; zero beyond its rank."""
        return self._frame.sigma2 * self._W_scale**2

    @cached_property
    def sensitivity_inside(self) -> Tensor:
        """``UᵀCU``, (groups, r, r) float64, less what float32 sums do not resolve where C was one."""
        return self._inside.dense().matrix * (self._scale**2 if self._factored else self._scale)

    # ---- machinery -----------------------------------------------------------------------------------------

    @cached_property
    def _frame(self) -> Frame:
        return Frame.of(self.weight, self._W_scale)

    @cached_property
    def _inside(self) -> Form:
        """C̃: the scaled C in the coordinates of W's left singular vectors."""
        if not self._factored:
            C = self._frame.sensitivity(self._given, self._scale)
            return C.resolved(self._floor, self._frame.keep)
        low = self._frame.factor(self._given, self._scale)
        short = low.factor.shape[2] < int(self._frame.here.keep.sum(-1).min())
        return low if short else low.dense()

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of the scaled G (g, k) and eigenvectors in the coordinates of V (g, r, k)."""
        return self._agop.eigen()

    @cached_property
    def _agop(self) -> Form:
        """H: the scaled G in the coordinates of V."""
        return self._frame.agop(self._inside)

    def _power_basis(self, power: float) -> tuple[Tensor, Tensor]:
        values, vectors = self._eigen
        return powered(values, power), vectors

    def _G_scale(self, power: float) -> float:
        return (self._W_scale * (self._scale if self._factored else math.sqrt(self._scale))) ** (2 * power)

    def _columns(self) -> Iterator[Tensor]:
        return columns(self.weight, self._W_scale)

    def _lift(self, vectors: Tensor) -> Tensor:
        """``U diag(1/σ) q`` (g, out, k), so that ``Wᵀ`` times it is ``V q`` in the space of inputs."""
        return self._frame.U @ (inverse_root(self._frame.sigma2)[:, :, None] * vectors)

    def _pulled_back(self, vectors: Tensor) -> Tensor:
        """``V q`` of the first group as rows, (k, in), for q (1, r, k)."""
        lift = self._lift(vectors)[0]
        return torch.cat([W[0].mT @ lift for W in self._columns()]).mT

    @property
    def _rounding(self) -> float:
        """Share of the largest ``uᵢᵀCuᵢ`` up to which one is none."""
        return max(1e-12, self._floor)

    @property
    def _noise(self) -> float:
        """Relative size below which a difference of entries of WWᵀ is rounding of the weight's dtype."""
        return 8 * self.resolution * math.sqrt(max(self._frame.sigma2.shape[1], 1))
