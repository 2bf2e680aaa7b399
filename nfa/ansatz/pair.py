"""The currency of the library: a linear map's weight W with the sensitivity C at its output.

``N = WᵀW`` is the neural feature matrix, ``G = WᵀCW`` the average gradient outer product (AGOP), and
the ansatz says ``N ∝ G^α``. With the thin singular value decomposition ``W = U diag(σ) Vᵀ`` and
``C̃ = UᵀCU``, both matrices live in the r × r coordinates of V: ``N → diag(σ²)`` and
``G → H = diag(σ) C̃ diag(σ)``. Every statistic below is computed there, in float64, after W and C
have been scaled to order one; no matrix larger than the smaller side of W is formed. The
decompositions behind them are those of `nfa.ansatz.decomposed`, the published statistics those of
`nfa.ansatz.published`.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from nfa.ansatz.basis import Spectrum, spread_of
from nfa.ansatz.basis_draws import drawn_shares, rank_correlation
from nfa.ansatz.best_exponent import best_alignment, best_null
from nfa.ansatz.blockwise import (
    NAN,
    pooled,
)
from nfa.ansatz.exponent import exponent_interval, fitted_exponent
from nfa.ansatz.forms import (
    Form,
    Spanned,
    cosine_of,
    joined,
    linear_cosine,
    power_of,
    ratio,
    traceless,
)
from nfa.ansatz.group_products import GroupProducts
from nfa.ansatz.group_sums import stacked
from nfa.ansatz.left_out import Slopes
from nfa.ansatz.nulls import null_changes, roots
from nfa.ansatz.precision import Precision, precision_of, widening
from nfa.ansatz.published import Published
from nfa.ansatz.rounding import cut_like, near_cut
from nfa.ansatz.told import Told
from nfa.ansatz.wide_nulls import WIDE, wide_mean
from nfa.checks import positive, seed_of, whole, whole_or_none

_DRAWS_A_CHANGE = 16  # of a null, for one more that tells its bias: this hardly hangs on the rotation


class FeaturePair(Published):
    """Weight W and sensitivity C of one linear map, and every statistic of the ansatz between them.

    All statistics are invariant to the scales of W and C; where one is undefined (a constant matrix, a
    dead layer, W with orthogonal rows of equal length) it is NaN, never a number.

    C is given as a matrix or as a factor X with ``C = XXᵀ``. A factor with fewer columns than the smaller
    side of W is much cheaper in time and memory, and the statistics are the same.

    Args:
        weight: W, (out, in) or (groups, out, in).
        sensitivity: C, (out, out) or (groups, out, out), symmetric positive semi-definite.
        factor: X, (out, m) or (groups, out, m), in the place of ``sensitivity``.
        resolution: relative rounding of the weight's entries; None takes the epsilon of its dtype.
        noise: relative rounding of the products that ``sensitivity`` is the sum of; None takes the epsilon of
            its dtype.

    Raises:
        NfaError: shapes that do not belong together, or values that are not finite.

    Example:
        >>> import torch
        >>> from nfa import FeaturePair
        >>> W = torch.randn(5, 8, dtype=torch.float64)
        >>> pair = FeaturePair(W, W @ W.T)  # N ∝ G^½ exactly
        >>> f"{pair.alignment:.3f} {pair.cosine(power=0.5):.3f} {pair.alpha_fit()[0]:.3f}"
        '1.000 1.000 0.500'
    """

    # ---- dense matrices, for heatmaps and small layers -------------------------------------------------

    def nfm(self, max_size: int | None = None) -> Tensor:
        """Neural feature matrix ``WᵀW``: (in, in), or (groups, in, in) for a grouped weight; float64.

        Args:
            max_size: average blocks of entries so that no side is longer; the full matrix is not formed.
        """
        W = pooled(self.weight, whole_or_none("max_size", max_size, 1))
        return self._ungroup(W.mT @ W)

    def agop(self, power: float = 1.0, max_size: int | None = None) -> Tensor:
        """``(WᵀCW)^power``, in the shapes of `nfm`; float64.

        The power is taken on the r-dimensional range, so null directions stay exactly null.
        """
        W = pooled(self.weight, whole_or_none("max_size", max_size, 1))
        power = positive("power", power)
        if power == 1.0 and self._factored:
            gradients = W.mT @ self._given.double()
            return self._ungroup(gradients @ gradients.mT)
        if power == 1.0:
            return self._ungroup(W.mT @ self.sensitivity @ W)
        values, vectors = self._power_basis(power)
        Vq = (W / self._W_scale).mT @ self._lift(vectors)
        return self._ungroup(self._G_scale(power) * (Vq * values[:, None, :]) @ Vq.mT)

    # ---- the ansatz on the left side: nothing shared by construction -----------------------------------

    @property
    def alignment(self) -> float:
        """Cosine of the traceless parts of C and WWᵀ, both restricted to the range of W.

        For W of full row rank ``N ∝ G^α`` holds exactly when ``C ∝ (WWᵀ)^(1/α - 1)``, a statement in
        which W is not on both sides. Beaglehole, Mitliagkas and Agarwala (arXiv 2402.05271) study
        this left-side alignment. For grouped maps the block diagonals are taken as one matrix.
        """
        C, sigma2, keep = self._told, self._frame.here.sigma2, self._frame.here.keep
        c, s = traceless(C.diagonal(), keep), traceless(sigma2, keep)
        C_norm, s_norm = C.traceless_norm(keep), s.norm()
        if s_norm <= self._noise * sigma2.norm() or C_norm <= self._noise * C.norm():
            return NAN
        return ratio((c * s).sum(), C_norm * s_norm)

    @property
    def alignment_std(self) -> float:
        """Standard deviation of `alignment` under a Haar-rotated C: ``1/√(Σ_g r_g(r_g+1)/2 - 1)``.

        Exact for one group and for depthwise maps (blocks of size one dealt out at random); for other
        grouped maps it takes the blocks to be of comparable scale.
        """
        ranks = self._frame.here.keep.sum(-1)
        dimension = int((ranks * (ranks + 1) // 2).sum()) - 1
        return 1 / math.sqrt(dimension) if dimension > 0 else NAN

    @property
    def z(self) -> float:
        """`alignment` in units of `alignment_std`."""
        return self.alignment / self.alignment_std

    @property
    def basis(self) -> float:
        """Share of C that is diagonal in the eigenbasis of WWᵀ, beyond chance: 1 for any exponent.

        0 on average for a Haar-rotated C; see `nfa.ansatz.basis`. NaN where C or WWᵀ is isotropic.
        """
        return self._told.basis.share

    def basis_draws(self, draws: int, seed: int = 0) -> Tensor:
        """`basis` of ``draws`` rotations of C, (draws,); none where W has 64 directions or more."""
        return drawn_shares(self._spectrum, self._told, whole("draws", draws), seed_of(seed))

    @property
    def rank_correlation(self) -> float:
        """Of ``‖w_g‖²`` with ``c_g`` over groups of one direction, as of depthwise maps; NaN of others."""
        return rank_correlation(self._frame.here, self._told)

    @property
    def basis_std(self) -> float:
        """Standard deviation of `basis` under a Haar-rotated C, exact; the distribution is skew."""
        room = self._told.basis.room
        return math.sqrt(spread_of(self._spectrum, self._told.powers)) / room if room > 0 else NAN

    @cached_property
    def _told(self) -> Told:
        return Told.of(self._inside, self._spectrum, lambda: self._values)

    @cached_property
    def _spectrum(self) -> Spectrum:
        return Spectrum.of(self._frame.here.sigma2, self._frame.keep, self.resolution, self._noise)

    def alpha_fit(self) -> tuple[float, float]:
        """Exponent α fitted to the layer, and the correlation of the fit.

        Least squares of ``log uᵢᵀCuᵢ`` on ``log σᵢ²`` over the left singular vectors with slope s
        gives ``α = 1 / (1 + s)``, since ``C ∝ (WWᵀ)^(1/α - 1)``. Directions that hold next to nothing count
        less (see `nfa.ansatz.exponent`). NaN with fewer than three directions or with equal singular
        values, and α also where G is flat, for want of a finite exponent.
        """
        levelled = self._spectrum.levelled(self._told.diagonals)
        return fitted_exponent(self._frame.here, levelled, self._rounding, self._noise)

    @property
    def best_alignment(self) -> float:
        """`alignment` at the exponent that C goes with best; see `nfa.ansatz.best_exponent`."""
        return best_alignment(self._frame.here, self._told, self._noise)

    def best_alignments(self, draws: int, seed: int = 0) -> Tensor:
        """`best_alignment` of ``draws`` rotations of C, each with the same choice of exponents, (draws,)."""
        return best_null(self._frame.here, self._told, self._noise, whole("draws", draws), seed_of(seed))

    @property
    def inside_diagonal(self) -> Tensor:
        """``uᵢᵀCuᵢ`` of the left singular vectors of W, (groups, r) float64; up to a factor.

        Those of equal singular values have their mean.
        """
        return self._spectrum.levelled(self._inside.diagonal())

    @property
    def direction_std(self) -> float:
        """Standard deviation of ``uᵢᵀCuᵢ`` over its mean under a Haar-rotated C; exact for one group."""
        C, rank = self._told, int(self._frame.here.keep.sum())
        mean = float(C.diagonal().sum()) / max(rank, 1)
        spread = self.alignment_std * float(C.traceless_norm(self._frame.here.keep))
        return spread * math.sqrt(1 - 1 / rank) / mean if rank > 1 and mean > 0 else NAN

    def strongest_direction(self) -> tuple[float, float]:
        """Share of ``‖N‖²`` in the direction that W amplifies most, and its sensitivity over the average.

        The sensitivity is ``uᵀCu`` for that left singular vector u, over its mean on the range of W.
        """
        sigma2, diagonal = self._frame.sigma2.flatten(), self._inside.diagonal().flatten()
        top, mean = int(sigma2.argmax()), diagonal.sum() / self._frame.keep.sum().clamp_min(1)
        share = (sigma2[top] / sigma2.norm()).square() if sigma2[top] > 0 else NAN
        return float(share), float(diagonal[top] / mean) if mean > 0 else NAN

    def _null_changes(self, left: Sequence[Form], null: Tensor, power: float, seed: int) -> list[float]:
        spectra = [roots(cut_like(C, self._floor, self._frame.keep, power)) for C in left]
        if self.has_wide_null(power):
            sigma2 = self._frame.here.sigma2[self._frame.here.keep]
            expected = [
                wide_mean(sigma2, root[0].square(), power) for root in (self._root_spectrum, *spectra)
            ]
            return [value - expected[0] for value in expected[1:]]
        return null_changes(self._frame, self._root_spectrum, spectra, null, power, seed)

    def precision(
        self,
        sums: Sequence[Tensor],
        counts: Sequence[int],
        power: float = 1.0,
        *,
        factors: bool = False,
        halves: bool = False,
        corrected: bool = False,
        null: Tensor | None = None,
        seed: int = 0,
    ) -> Precision:
        """How well samples in groups pin the statistics down, and what noise takes from them.

        Spread and bias are those of the delete-a-group jackknife for groups of unequal size (Busing, Meijer
        and van der Leeden 1999), or come from products of different groups; see `nfa.ansatz.precision`. NaN
        with fewer than two groups.

        Args:
            sums: ``C_j`` (groups, out, out) of each part j of the samples, or factors ``X_j``
                (groups, out, m_j) with ``C_j = X_j X_jᵀ``; m_j may differ.
            counts: number of samples in each part.
            power: exponent α.
            factors: the sums are given as factors.
            halves: find the drift too, at the cost of two more groups.
            corrected: tell the errors of cosine and alignment less their biases, in the place of the errors
                that `cosine` and `alignment` have.
            null: what `null_cosines` gave; find its bias too, at the cost of a sixteenth of its draws.
            seed: of the null.
        """
        R, cut = len(sums), self._cut_error(power)
        if R < 2:
            return Precision(cosine=cut or NAN, cut=cut)
        parts = self._frame.parts(sums, factors, like=self._inside)
        groups = stacked(parts)
        products = GroupProducts.of(self._frame.sigma2, self._spectrum, groups, linear=power == 1.0)
        ends = exponent_interval(
            self._frame.here,
            self._spectrum.levelled(products.diagonals),
            self._rounding,
            self._noise,
            widening(R),
            seed,
        )

        def cosine_each(sums: Iterable[Iterable[int]]) -> list[float]:
            found = [self._cosine_of(joined([parts[j] for j in kept]), power) for kept in sums]
            return torch.stack(found).tolist()

        def left_out(j: int) -> list[int]:
            return [i for i in range(R) if i != j]

        def cosines() -> list[float]:
            """Without each group: in wide layers to first order, and only one as it is."""
            if corrected or not self._is_wide:
                return cosine_each(map(left_out, range(R)))
            return self._slopes(power).without_each(groups)

        def halved() -> list[float]:
            return cosine_each(range(start, R, 2) for start in (0, 1))

        changes = None
        if null is not None:
            few = range(min(R, math.ceil(len(null) / _DRAWS_A_CHANGE)))
            changes = self._null_changes(
                [joined([parts[i] for i in left_out(j)]) for j in few], null, power, seed
            )
        return precision_of(
            products, counts, cosines=None if power == 1.0 else cosines, halves=halved if halves else None,
            whole=(self.cosine(power), self.alignment), corrected=corrected, cut=cut, alpha=ends,
            null_changes=changes,
        )  # fmt: skip

    def _cosine_of(self, C: Form, power: float) -> Tensor:
        """`cosine` for another sensitivity, which may have rounding in directions that C has none in."""
        if power == 1.0:  # needs no eigenvectors
            return linear_cosine(self._frame.sigma2, self._frame.agop(C))
        H = self._frame.agop(cut_like(C, self._floor, self._frame.keep, power))
        return cosine_of(self._frame.sigma2, *power_of(H, power))

    def _cut_error(self, power: float) -> float:
        """How much `cosine` changes when the cut is made ten times as high: nothing where there is a gap."""
        near = near_cut(self._inside, self._floor)
        if near is None or not isinstance(self._inside, Spanned):
            return 0.0
        values = self._inside.matrix.diagonal(dim1=-2, dim2=-1)  # `resolved` made it diagonal
        if self._is_wide and power != 1.0:
            some = near.any(0)
            lost = self._inside.basis[:, :, some] * (values * near)[:, None, some].sqrt()
            return abs(self._slopes(power).without_directions(lost) - 1) * self.cosine(power)
        rest = values * ~near
        C = Spanned(self._inside.basis, torch.diag_embed(rest), rest)
        return abs(float(self._cosine_of(C, power)) - self.cosine(power))

    @property
    def _is_wide(self) -> bool:
        """Whether decompositions cost so much that errors are found to first order."""
        return self._frame.sigma2.shape[1] > WIDE

    def _slopes(self, power: float) -> Slopes:
        if power not in self._derivatives:
            self._derivatives[power] = Slopes.of(self._frame.sigma2, self._eigen, power)
        return self._derivatives[power]

    @cached_property
    def _derivatives(self) -> dict[float, Slopes]:
        return {}

    # ---- spectra -----------------------------------------------------------------------------------------

    def nfm_spectrum(self) -> Tensor:
        """Eigenvalues of N, descending, all groups together: (groups · r,) float64."""
        return (self._frame.sigma2.flatten() * self._W_scale**2).sort(descending=True).values

    def agop_spectrum(self, power: float = 1.0) -> Tensor:
        """Eigenvalues of ``G^power``, descending, all groups together: (groups · r,) float64."""
        values, _ = self._power_basis(power)
        spectrum = torch.zeros_like(self._frame.sigma2)
        spectrum[:, : values.shape[1]] = values * self._G_scale(power)
        return spectrum.flatten().sort(descending=True).values

    def nfm_eigenvectors(self, k: int) -> Tensor:
        """The k leading eigenvectors of N as rows, (k, in); of the first group for a grouped weight."""
        r = self._frame.sigma2.shape[1]
        leading = torch.eye(r, min(whole("k", k, 1), r)).to(self._frame.sigma2)
        return self._pulled_back(leading[None])

    def agop_eigenvectors(self, k: int) -> Tensor:
        """The k leading eigenvectors of G as rows, (k, in); of the first group for a grouped weight.

        No more than there are columns in a factor.
        """
        values, vectors = self._eigen
        order = values[0].argsort(descending=True)[: whole("k", k, 1)]
        return self._pulled_back(vectors[:1, :, order])

    # ---- machinery -----------------------------------------------------------------------------------------

    def _ungroup(self, blocks: Tensor) -> Tensor:
        return blocks if self.grouped else blocks[0]
