"""The currency of the library: a linear map's weight W with the sensitivity C at its output.

``N = WᵀW`` is the neural feature matrix, ``G = WᵀCW`` the average gradient outer product (AGOP), and
the ansatz says ``N ∝ G^α``. With the thin singular value decomposition ``W = U diag(σ) Vᵀ`` and
``C̃ = UᵀCU``, both matrices live in the r × r coordinates of V: ``N → diag(σ²)`` and
``G → H = diag(σ) C̃ diag(σ)``. Every statistic below is computed there, in float64, after W and C
have been scaled to order one; no matrix larger than the smaller side of W is formed. The
decompositions behind them are those of `nfa.ansatz.decomposed`.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from nfa.ansatz.basis import Basis, Spectrum, basis_of, spread_of
from nfa.ansatz.basis_draws import drawn_shares, rank_correlation
from nfa.ansatz.best_exponent import best_alignment, best_null
from nfa.ansatz.blockwise import (
    NAN,
    EntrySums,
    blocks,
    columns,
    feature_entry_sums,
    linear_entry_sums,
    pearson,
    pooled,
    smaller_gram,
    total,
)
from nfa.ansatz.decomposed import Decomposed
from nfa.ansatz.exponent import exponent_interval, fitted_exponent
from nfa.ansatz.forms import (
    Form,
    cosine_of,
    inner,
    joined,
    linear_cosine,
    power_of,
    ratio,
    traceless,
)
from nfa.ansatz.group_products import GroupProducts
from nfa.ansatz.group_sums import stacked
from nfa.ansatz.left_out import without_each
from nfa.ansatz.nulls import null_changes, null_draw, roots
from nfa.ansatz.precision import Precision, precision_of, widening
from nfa.ansatz.rounding import cut_higher, cut_like
from nfa.ansatz.wide_nulls import GREATEST_POWER, WIDE, wide_mean, wide_null
from nfa.checks import positive, seed_of, whole, whole_or_none
from nfa.errors import NfaError

_DRAWS_A_CHANGE = 16  # of a null, for one more that tells its bias: this hardly hangs on the rotation


class FeaturePair(Decomposed):
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
        return self._alignment_of(self._inside)

    def _alignment_of(self, C: Form) -> float:
        sigma2, keep = self._frame.sigma2, self._frame.keep
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
        ranks = self._frame.keep.sum(-1)
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
        return self._basis.share

    def basis_draws(self, draws: int, seed: int = 0) -> Tensor:
        """`basis` of ``draws`` rotations of C, (draws,); none where W has 64 directions or more."""
        return drawn_shares(self._spectrum, self._inside, whole("draws", draws), seed_of(seed))

    @property
    def rank_correlation(self) -> float:
        """Of ``‖w_g‖²`` with ``c_g`` over groups of one direction, as of depthwise maps; NaN of others."""
        return rank_correlation(self._frame, self._inside)

    @property
    def basis_std(self) -> float:
        """Standard deviation of `basis` under a Haar-rotated C, exact; the distribution is skew."""
        room = self._basis.room
        return math.sqrt(spread_of(self._spectrum, self._inside)) / room if room > 0 else NAN

    @cached_property
    def _basis(self) -> Basis:
        return basis_of(self._spectrum, self._inside)

    @cached_property
    def _spectrum(self) -> Spectrum:
        return Spectrum.of(self._frame.sigma2, self._frame.keep, self.resolution, self._noise)

    def alpha_fit(self) -> tuple[float, float]:
        """Exponent α fitted to the layer, and the correlation of the fit.

        Least squares of ``log uᵢᵀCuᵢ`` on ``log σᵢ²`` over the left singular vectors with slope s
        gives ``α = 1 / (1 + s)``, since ``C ∝ (WWᵀ)^(1/α - 1)``. Directions that hold next to nothing count
        less (see `nfa.ansatz.exponent`). NaN with fewer than three directions or with equal singular
        values, and α also where G is flat, for want of a finite exponent.
        """
        return fitted_exponent(self._frame, self._inside.diagonal(), self._rounding, self._noise)

    @property
    def best_alignment(self) -> float:
        """`alignment` at the exponent that C goes with best; see `nfa.ansatz.best_exponent`."""
        return best_alignment(self._frame, self._inside, self._noise)

    def best_alignments(self, draws: int, seed: int = 0) -> Tensor:
        """`best_alignment` of ``draws`` rotations of C, each with the same choice of exponents, (draws,)."""
        return best_null(self._frame, self._inside, self._noise, whole("draws", draws), seed_of(seed))

    @property
    def inside_diagonal(self) -> Tensor:
        """``uᵢᵀCuᵢ`` of the left singular vectors of W, (groups, r) float64; up to a factor."""
        return self._inside.diagonal()

    @property
    def direction_std(self) -> float:
        """Standard deviation of ``uᵢᵀCuᵢ`` over its mean under a Haar-rotated C; exact for one group."""
        C, rank = self._inside, int(self._frame.keep.sum())
        mean = float(C.diagonal().sum()) / max(rank, 1)
        spread = self.alignment_std * float(C.traceless_norm(self._frame.keep))
        return spread * math.sqrt(1 - 1 / rank) / mean if rank > 1 and mean > 0 else NAN

    def strongest_direction(self) -> tuple[float, float]:
        """Share of ``‖N‖²`` in the direction that W amplifies most, and its sensitivity over the average.

        The sensitivity is ``uᵀCu`` for that left singular vector u, over its mean on the range of W.
        """
        sigma2, diagonal = self._frame.sigma2.flatten(), self._inside.diagonal().flatten()
        top, mean = int(sigma2.argmax()), diagonal.sum() / self._frame.keep.sum().clamp_min(1)
        share = (sigma2[top] / sigma2.norm()).square() if sigma2[top] > 0 else NAN
        return float(share), float(diagonal[top] / mean) if mean > 0 else NAN

    # ---- the published statistics: N against G^α -------------------------------------------------------

    def cosine(self, power: float = 1.0) -> float:
        """Cosine of N and ``G^power``: the NFA / CNFA correlation (arXiv 2212.13881, 2309.00570)."""
        if power == 1.0:
            return linear_cosine(self._frame.sigma2, self._frame.agop(self._inside))
        return cosine_of(self._frame.sigma2, *self._power_basis(power))

    def cosine_with(self, other: Tensor, power: float = 1.0) -> float:
        """Cosine of ``ΔᵀΔ`` with ``G^power`` for another matrix Δ of the shape of W.

        With ``Δ = W - W₀`` this is the variant of arXiv 2212.13881 that subtracts the initialisation
        from the neural feature matrix and leaves the gradients alone.
        """
        D, scale = blocks(other, "other weight")
        if D.shape != self.weight.shape:
            raise NfaError(
                f"expected the shape of the weight, {tuple(self.weight.shape)}, got {tuple(D.shape)}"
            )
        values, vectors = self._power_basis(power)
        lift = self._lift(vectors)
        cross = total(d @ (W.mT @ lift) for d, W in zip(columns(D, scale), self._columns(), strict=True))
        inner = (values * cross.square().sum(-2)).sum()
        return ratio(inner, smaller_gram(D, scale).norm() * values.norm())

    def pearson(self, power: float = 1.0) -> float:
        """Pearson correlation of the entries of N and ``G^power`` (all groups pooled)."""
        sums = self._entry_sums(power)
        return pearson(sums.everywhere(), sums.everywhere(), sums.count)

    def offdiag(self, power: float = 1.0) -> float:
        """Pearson correlation of the entries off the diagonals; NaN for one-dimensional inputs.

        Also NaN where the diagonals outweigh the rest so far that the rest is rounding error.
        """
        sums = self._entry_sums(power)
        count = sums.count - self.weight.shape[0] * self.in_features
        return pearson(sums.off_diagonal(), sums.everywhere(), count)

    # ---- what chance gives -------------------------------------------------------------------------------

    def null_isotropic(self, power: float = 1.0) -> float:
        """`cosine` for C = I: the part of the correlation that W brings by itself."""
        s, power = self._frame.sigma2, positive("power", power)
        return ratio((s * s**power).sum(), s.norm() * (s**power).norm())

    def null_cosines(self, power: float = 1.0, draws: int = 32, seed: int = 0) -> Tensor:
        """`cosine` for ``draws`` sensitivities with the spectrum of C but a random eigenbasis, (draws,).

        C is restricted to the range of W and rotated by a Haar-distributed orthogonal matrix, one for
        each group; the rotated blocks are also dealt out to the groups at random, so that a depthwise
        convolution (blocks of size one) has a null too. Wide layers are not rotated, see `has_wide_null`.
        """
        rng = torch.Generator().manual_seed(seed_of(seed))
        power, draws = positive("power", power), whole("draws", draws)
        root, frame = self._root_spectrum, self._frame
        if draws and self.has_wide_null(power):
            return wide_null(frame.sigma2[frame.keep], root[0].square(), power, draws, rng)
        return torch.tensor([null_draw(frame, root, power, rng) for _ in range(draws)], dtype=torch.float64)

    def has_wide_null(self, power: float) -> bool:
        """Whether `null_cosines` are found from two spectra (`nfa.ansatz.wide_nulls`), however many draws."""
        one = self.weight.shape[0] == 1 and int(self._frame.keep.sum()) > WIDE
        return one and power <= GREATEST_POWER and float(self._root_spectrum[0, 0]) > 0

    @cached_property
    def _root_spectrum(self) -> Tensor:
        """Roots of the eigenvalues of C on the range of W, descending, less the zeros of all groups."""
        root = roots(self._inside)
        return root[:, : max(int((root > 0).sum(-1).max()), 1)]

    def _null_changes(self, left: Sequence[Form], null: Tensor, power: float, seed: int) -> list[float]:
        spectra = [roots(cut_like(C, self._floor, self._frame.keep, power)) for C in left]
        if self.has_wide_null(power):
            sigma2 = self._frame.sigma2[self._frame.keep]
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
            self._frame.here, products.diagonals, self._rounding, self._noise, widening(R), seed
        )

        def cosine(kept: Iterable[int]) -> float:
            return self._cosine_of(joined([parts[j] for j in kept]), power)

        def left_out(j: int) -> list[int]:
            return [i for i in range(R) if i != j]

        def cosines() -> list[float]:
            """Without each group: in wide layers to first order, and only one as it is."""
            if corrected or R == 2 or self._frame.sigma2.shape[1] <= WIDE:
                return [cosine(left_out(j)) for j in range(R)]
            ratios = without_each(self._frame, self._eigen, power, groups).tolist()
            scale = cosine(left_out(0)) / ratios[0]
            return [scale * ratio for ratio in ratios]

        def halved() -> list[float]:
            return [cosine(range(start, R, 2)) for start in (0, 1)]

        changes = None
        if null is not None:
            few = range(min(R, math.ceil(len(null) / _DRAWS_A_CHANGE)))
            changes = self._null_changes([joined([parts[i] for i in left_out(j)]) for j in few], null, power, seed)
        return precision_of(
            products, counts, cosines=None if power == 1.0 else cosines, halves=halved if halves else None,
            whole=(self.cosine(power), self.alignment), corrected=corrected, cut=cut, alpha=ends,
            null_changes=changes,
        )  # fmt: skip

    def _cosine_of(self, C: Form, power: float) -> float:
        """`cosine` for another sensitivity, which may have rounding in directions that C has none in."""
        if power == 1.0:  # needs no eigenvectors
            return linear_cosine(self._frame.sigma2, self._frame.agop(C))
        H = self._frame.agop(cut_like(C, self._floor, self._frame.keep, power))
        return cosine_of(self._frame.sigma2, *power_of(H, power))

    def _cut_error(self, power: float) -> float:
        """How much `cosine` changes when the cut is made ten times as high: nothing where there is a gap."""
        C = cut_higher(self._inside, self._floor)
        return 0.0 if C is None else abs(self._cosine_of(C, power) - self.cosine(power))

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

    # ---- machinery ---------------------------------------------------------------------------------------

    @cached_property
    def _sums(self) -> dict[float, EntrySums]:
        return {}

    def _entry_sums(self, power: float) -> EntrySums:
        """Sums over the entries of the scaled N and ``G^power`` and over their diagonals."""
        power = positive("power", power)
        if power == 1.0 and power not in self._sums:
            self._sums[power] = self._linear_entry_sums()
        if power not in self._sums:
            values, vectors = self._power_basis(power)
            sigma2 = self._frame.sigma2
            self._sums[power] = feature_entry_sums(
                self.weight,
                self._W_scale,
                self._lift(vectors),
                values,
                inner=inner(sigma2, values, vectors),
                nn=sigma2.square().sum(),
            )
        return self._sums[power]

    def _linear_entry_sums(self) -> EntrySums:
        """Those for the power 1, which need no eigenvectors of G."""
        frame, C = self._frame, self._inside
        H = frame.agop(C)
        return linear_entry_sums(
            self.weight,
            self._W_scale,
            (frame.U @ C.dense().matrix) @ frame.U.mT,
            inner=(frame.sigma2 * H.diagonal()).sum(),
            nn=frame.sigma2.square().sum(),
            gg=H.norm().square(),
        )

    def _ungroup(self, blocks: Tensor) -> Tensor:
        return blocks if self.grouped else blocks[0]
