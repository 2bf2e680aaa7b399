"""The currency of the library: a linear map's weight W with the sensitivity C at its output.

``N = WᵀW`` is the neural feature matrix, ``G = WᵀCW`` the average gradient outer product (AGOP), and
the ansatz says ``N ∝ G^α``. With the thin singular value decomposition ``W = U diag(σ) Vᵀ`` and
``C̃ = UᵀCU``, both matrices live in the r × r coordinates of V: ``N → diag(σ²)`` and
``G → H = diag(σ) C̃ diag(σ)``. Every statistic below is computed there, in float64, after W and C
have been scaled to order one; no matrix larger than the smaller side of W is formed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from nfa.errors import NfaError

NAN = math.nan
_COLUMNS = 4096  # columns of W in float64 at a time


@dataclass(frozen=True)
class _Core:
    """A pair in the coordinates of W's left singular vectors; g groups of size r, zero beyond the rank.

    Attributes:
        sigma2: (g, r) squared singular values of W, descending.
        C: (g, r, r) ``UᵀCU`` with the rows and columns beyond the rank zeroed.
        U: (g, out, r) left singular vectors.
        keep: (g, r) which directions are in the range of W.
    """

    sigma2: Tensor
    C: Tensor
    U: Tensor
    keep: Tensor

    @property
    def H(self) -> Tensor:
        """The AGOP in the coordinates of W's right singular vectors, (g, r, r)."""
        sigma = self.sigma2.sqrt()
        return sigma[:, :, None] * self.C * sigma[:, None, :]


class FeaturePair:
    """Weight W and sensitivity C of one linear map, and every statistic of the ansatz between them.

    All statistics are invariant to the scales of W and C; where one is undefined (a constant matrix, a
    dead layer, W with orthogonal rows of equal length) it is NaN, never a number.

    Args:
        weight: W, (out, in) or (groups, out, in).
        sensitivity: C, (out, out) or (groups, out, out), symmetric positive semi-definite.
        resolution: relative rounding of the weight's entries; None takes the epsilon of its dtype.

    Raises:
        NfaError: shapes that do not belong together, or values that are not finite.
    """

    def __init__(self, weight: Tensor, sensitivity: Tensor, *, resolution: float | None = None):
        W, C = _blocks(weight, "weight"), _blocks(sensitivity, "sensitivity")
        if C.shape != (W.shape[0], W.shape[1], W.shape[1]):
            raise NfaError(
                f"a weight of shape {tuple(W.shape)} needs a sensitivity of shape "
                f"{(W.shape[0], W.shape[1], W.shape[1])}, got {tuple(C.shape)}"
            )
        self.grouped = weight.dim() == 3
        self.resolution = torch.finfo(weight.dtype).eps if resolution is None else resolution
        self.weight = W
        self.sensitivity = (C.double() + C.double().mT) / 2
        self._W_scale = _positive(W.abs().amax().double())
        self._C_scale = _positive(self.sensitivity.abs().amax())
        self._bases: dict[float, tuple[Tensor, Tensor]] = {}
        self._sums: dict[float, _EntrySums] = {}

    @property
    def in_features(self) -> int:
        """Length of the vectors W acts on, per group."""
        return self.weight.shape[2]

    # ---- dense matrices, for heatmaps and small layers -------------------------------------------------

    def nfm(self, max_size: int | None = None) -> Tensor:
        """Neural feature matrix ``WᵀW``: (in, in), or (groups, in, in) for a grouped weight; float64.

        Args:
            max_size: average blocks of entries so that no side is longer; the full matrix is not formed.
        """
        W = _pooled(self.weight.double(), max_size)
        return self._ungroup(W.mT @ W)

    def agop(self, power: float = 1.0, max_size: int | None = None) -> Tensor:
        """``(WᵀCW)^power``, in the shapes of `nfm`; float64.

        The power is taken on the r-dimensional range, so null directions stay exactly null.
        """
        if power == 1.0:
            W = _pooled(self.weight.double(), max_size)
            return self._ungroup(W.mT @ self.sensitivity @ W)
        values, vectors = self._power_basis(power)
        Vq = _pooled(self._scaled(self.weight), max_size).mT @ self._lift(vectors)
        scale = (self._W_scale**2 * self._C_scale) ** power
        return self._ungroup(scale * (Vq * values[:, None, :]) @ Vq.mT)

    # ---- the ansatz on the left side: nothing shared by construction -----------------------------------

    @property
    def alignment(self) -> float:
        """Cosine of the traceless parts of C and WWᵀ, both restricted to the range of W.

        For W of full row rank ``N ∝ G^α`` holds exactly when ``C ∝ (WWᵀ)^(1/α - 1)``, a statement in
        which W is not on both sides. Beaglehole, Mitliagkas and Agarwala (arXiv 2402.05271) study
        this left-side alignment. For grouped maps the block diagonals are taken as one matrix.
        """
        return self._alignment_of(self._core.C)

    @property
    def alignment_std(self) -> float:
        """Standard deviation of `alignment` under a Haar-rotated C: ``1/√(Σ_g r_g(r_g+1)/2 - 1)``.

        Exact for one group and for depthwise maps (blocks of size one dealt out at random); for other
        grouped maps it takes the blocks to be of comparable scale.
        """
        ranks = self._core.keep.sum(-1)
        dimension = int((ranks * (ranks + 1) // 2).sum()) - 1
        return 1 / math.sqrt(dimension) if dimension > 0 else NAN

    @property
    def z(self) -> float:
        """`alignment` in units of `alignment_std`."""
        return self.alignment / self.alignment_std

    def alpha_fit(self) -> tuple[float, float]:
        """Exponent α fitted to the layer, and the correlation of the fit.

        Least squares of ``log uᵢᵀCuᵢ`` on ``log σᵢ²`` over the left singular vectors with slope s
        gives ``α = 1 / (1 + s)``, since ``C ∝ (WWᵀ)^(1/α - 1)``. NaN with fewer than three directions
        or with equal singular values.
        """
        diagonal = self._core.C.diagonal(dim1=-2, dim2=-1)
        usable = self._core.keep & (diagonal > 1e-12 * diagonal.amax())  # the rest is rounding
        if int(usable.sum()) < 3:
            return NAN, NAN
        x = self._core.sigma2[usable].log()
        y = diagonal[usable].log()
        x, y = x - x.mean(), y - y.mean()
        if x.norm() <= self._noise * math.sqrt(len(x)):
            return NAN, NAN
        slope = float(x @ y / (x @ x))
        alpha = 1 / (1 + slope) if slope != -1 else NAN
        flat = y.norm() <= 1e-12 * math.sqrt(len(y))  # C ∝ I: exponent 1 exactly, and no correlation
        return alpha, NAN if flat else _ratio(x @ y, x.norm() * y.norm())

    # ---- the published statistics: N against G^α -------------------------------------------------------

    def cosine(self, power: float = 1.0) -> float:
        """Cosine of N and ``G^power``: the NFA / CNFA correlation (arXiv 2212.13881, 2309.00570)."""
        return _cosine_of(self._core.sigma2, *self._power_basis(power))

    def cosine_with(self, other: Tensor, power: float = 1.0) -> float:
        """Cosine of ``ΔᵀΔ`` with ``G^power`` for another matrix Δ of the shape of W.

        With ``Δ = W - W₀`` this is the variant of arXiv 2212.13881 that subtracts the initialisation
        from the neural feature matrix and leaves the gradients alone.
        """
        D = _blocks(other, "other weight")
        if D.shape != self.weight.shape:
            raise NfaError(
                f"expected the shape of the weight, {tuple(self.weight.shape)}, got {tuple(D.shape)}"
            )
        D = D.double() / _positive(D.abs().amax().double())
        values, vectors = self._power_basis(power)
        cross = D @ self._scaled(self.weight).mT @ self._lift(vectors)
        inner = (values * cross.square().sum(-2)).sum()
        return _ratio(inner, _gram(D).norm() * values.norm())

    def pearson(self, power: float = 1.0) -> float:
        """Pearson correlation of the entries of N and ``G^power`` (all groups pooled)."""
        sums = self._entry_sums(power)
        return _pearson(sums.pooled(), sums.pooled(), sums.count)

    def offdiag(self, power: float = 1.0) -> float:
        """Pearson correlation of the entries off the diagonals; NaN for one-dimensional inputs.

        Also NaN where the diagonals outweigh the rest so far that the rest is rounding error.
        """
        sums = self._entry_sums(power)
        count = sums.count - self.weight.shape[0] * self.in_features
        return _pearson(sums.off_diagonal(), sums.pooled(), count)

    # ---- what chance gives -------------------------------------------------------------------------------

    def null_isotropic(self, power: float = 1.0) -> float:
        """`cosine` for C = I: the part of the correlation that W brings by itself."""
        s = self._core.sigma2
        return _ratio((s * s**power).sum(), s.norm() * (s**power).norm())

    def null_cosines(self, power: float = 1.0, draws: int = 32, seed: int = 0) -> Tensor:
        """`cosine` for ``draws`` sensitivities with the spectrum of C but a random eigenbasis, (draws,).

        C is restricted to the range of W and rotated by a Haar-distributed orthogonal matrix, one for
        each group; the rotated blocks are also dealt out to the groups at random, so that a depthwise
        convolution (blocks of size one) has a null too.
        """
        generator = torch.Generator().manual_seed(seed)
        return torch.tensor([self._null_draw(power, generator) for _ in range(draws)], dtype=torch.float64)

    def _null_draw(self, power: float, generator: torch.Generator) -> float:
        core = self._core
        ranks = core.keep.sum(-1)
        C = torch.zeros_like(core.C)
        for rank in ranks.unique().tolist():
            members = (ranks == rank).nonzero()[:, 0]
            dealt = members[torch.randperm(len(members), generator=generator).to(members.device)]
            Q = haar(len(members), rank, generator).to(C)
            C[members, :rank, :rank] = Q @ core.C[dealt, :rank, :rank] @ Q.mT
        return _cosine_of(core.sigma2, *_power_of(replace(core, C=C).H, power))

    def jackknife(self, sums: Sequence[Tensor], counts: Sequence[int], power: float = 1.0) -> float:
        """Standard error of `cosine` from sums (groups, out, out) over ``counts`` samples that make up C.

        Delete-a-group jackknife for groups of unequal size (Busing, Meijer and van der Leeden 1999); NaN
        with fewer than two groups.
        """
        R, n = len(sums), sum(counts)
        if R < 2:
            return NAN
        U, keep, sigma2 = self._core.U, self._core.keep, self._core.sigma2
        mask = (keep[:, :, None] & keep[:, None, :]).to(U)
        # In the coordinates of U only; a pair that was reduced by QR carries its basis in U already.
        scale = _positive(torch.stack([part.abs().amax() for part in sums]).amax())
        parts = [(U.mT @ (part / scale) @ U) * mask for part in sums]
        total = sum(parts)

        def cosine(C: Tensor) -> float:
            return _cosine_of(sigma2, *_power_of(replace(self._core, C=C).H, power))

        h = torch.tensor([n / count for count in counts], dtype=torch.float64)
        without = torch.tensor([cosine(total - part) for part in parts], dtype=torch.float64)
        whole = cosine(total)
        estimate = R * whole - ((1 - 1 / h) * without).sum()
        pseudo = h * whole - (h - 1) * without
        return float(((pseudo - estimate).square() / (h - 1)).mean().sqrt())

    # ---- spectra -----------------------------------------------------------------------------------------

    def nfm_spectrum(self) -> Tensor:
        """Eigenvalues of N, descending, all groups together: (groups · r,) float64."""
        return (self._core.sigma2.flatten() * self._W_scale**2).sort(descending=True).values

    def agop_spectrum(self, power: float = 1.0) -> Tensor:
        """Eigenvalues of ``G^power``, descending, all groups together: (groups · r,) float64."""
        scale = self._W_scale**2 * self._C_scale
        return (self._power_basis(power)[0].flatten() * scale**power).sort(descending=True).values

    def nfm_eigenvectors(self, k: int) -> Tensor:
        """The k leading eigenvectors of N as rows, (k, in); of the first group for a grouped weight."""
        k = min(k, self._core.sigma2.shape[1])
        leading = torch.eye(self._core.C.shape[-1], k).to(self._core.C)
        return (self._scaled(self.weight).mT @ self._lift(leading))[0].mT

    def agop_eigenvectors(self, k: int) -> Tensor:
        """The k leading eigenvectors of G as rows, (k, in); of the first group for a grouped weight."""
        values, vectors = self._power_basis(1.0)
        order = values[0].argsort(descending=True)[:k]
        return (self._scaled(self.weight).mT @ self._lift(vectors))[0][:, order].mT

    # ---- machinery ---------------------------------------------------------------------------------------

    @cached_property
    def _core(self) -> _Core:
        C = self.sensitivity / self._C_scale
        basis = None
        if self.weight.shape[1] > self.weight.shape[2]:  # more outputs than inputs: the range of W matters
            basis, R = torch.linalg.qr(self._scaled(self.weight))
            C = basis.mT @ C @ basis
            S = R @ R.mT
        else:
            S = sum(W @ W.mT for W in self._column_blocks())
        values, U = torch.linalg.eigh(S)
        sigma2, U = values.flip(-1).clamp_min(0), U.flip(-1)
        floor = max(self.weight.shape[1:]) * torch.finfo(S.dtype).eps
        keep = sigma2 > floor * sigma2[:, :1]
        C = (U.mT @ C @ U) * (keep[:, :, None] & keep[:, None, :])
        return _Core(sigma2 * keep, (C + C.mT) / 2, U if basis is None else basis @ U, keep)

    def _scaled(self, weight: Tensor) -> Tensor:
        return weight.double() / self._W_scale

    def _column_blocks(self) -> Iterator[Tensor]:
        """The scaled weight in blocks of columns, (g, out, at most 4096): a copy of all is never held."""
        return map(self._scaled, self.weight.split(_COLUMNS, 2))

    @property
    def _noise(self) -> float:
        """Relative size below which a difference of entries of WWᵀ is rounding of the weight's dtype."""
        return 8 * self.resolution * math.sqrt(max(self._core.sigma2.shape[1], 1))

    def _alignment_of(self, C: Tensor) -> float:
        core = self._core
        rank = max(int(core.keep.sum()), 1)
        diagonal = C.diagonal(dim1=-2, dim2=-1)
        c = (diagonal - diagonal.sum() / rank) * core.keep
        s = (core.sigma2 - core.sigma2.sum() / rank) * core.keep
        off_diagonal = C - torch.diag_embed(diagonal)
        C_norm = torch.hypot(c.norm(), off_diagonal.norm())
        if s.norm() <= self._noise * core.sigma2.norm() or C_norm <= self._noise * C.norm():
            return NAN
        return _ratio((c * s).sum(), C_norm * s.norm())

    def _power_basis(self, power: float) -> tuple[Tensor, Tensor]:
        """Eigenvalues of ``G^power`` (g, r) and eigenvectors in the coordinates of V (g, r, r)."""
        if power not in self._bases:
            self._bases[power] = _power_of(self._core.H, power)
        return self._bases[power]

    def _lift(self, vectors: Tensor) -> Tensor:
        """``U diag(1/σ) q`` (g, out, k), so that ``Wᵀ`` times it is ``V q`` in the space of inputs."""
        sigma = self._core.sigma2.sqrt()
        return self._core.U @ (torch.where(self._core.keep, 1 / _positive(sigma), 0)[:, :, None] * vectors)

    def _entry_sums(self, power: float) -> "_EntrySums":
        """Sums over the entries of N and ``G^power`` and over their diagonals, in blocks of columns."""
        if power not in self._sums:
            self._sums[power] = self._sum_entries(power)
        return self._sums[power]

    def _sum_entries(self, power: float) -> "_EntrySums":
        values, vectors = self._power_basis(power)
        lift = self._lift(vectors)
        row_sum = self.weight.sum(-1, dtype=torch.float64) / self._W_scale
        sums = _EntrySums(
            count=self.weight.shape[0] * self.in_features**2,
            n=float(row_sum.square().sum()),
            g=float((values * (lift.mT @ row_sum[:, :, None]).squeeze(-1).square()).sum()),
            nn=float(self._core.sigma2.square().sum()),
            gg=float(values.square().sum()),
            ng=float(((self._core.sigma2[:, :, None] * vectors.square()).sum(1) * values).sum()),
        )
        for W in self._column_blocks():
            n = W.square().sum(1)
            g = ((W.mT @ lift).square() * values[:, None, :]).sum(-1)
            sums.add_diagonal(n, g)
        return sums

    def _ungroup(self, blocks: Tensor) -> Tensor:
        return blocks if self.grouped else blocks[0]


@dataclass
class _EntrySums:
    """Sums over the entries of two symmetric matrices, and the parts that lie on the diagonals."""

    count: int
    n: float
    g: float
    nn: float
    gg: float
    ng: float
    diagonal: Tensor | None = None

    def add_diagonal(self, n: Tensor, g: Tensor) -> None:
        part = torch.stack([n.sum(), g.sum(), (n * n).sum(), (g * g).sum(), (n * g).sum()])
        self.diagonal = part if self.diagonal is None else self.diagonal + part

    def pooled(self) -> tuple[float, ...]:
        return self.n, self.g, self.nn, self.gg, self.ng

    def off_diagonal(self) -> tuple[float, ...]:
        return tuple(total - float(on) for total, on in zip(self.pooled(), self.diagonal, strict=True))


def haar(count: int, size: int, generator: torch.Generator) -> Tensor:
    """``count`` Haar-distributed orthogonal matrices, (count, size, size) float64 on the CPU."""
    Q, R = torch.linalg.qr(torch.randn(count, size, size, dtype=torch.float64, generator=generator))
    return Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]


def weight_cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of ``AᵀA`` and ``BᵀB`` for weights A (g, o, i) and B (g, p, i), in the smaller dimension."""
    A, B = _blocks(first, "weight"), _blocks(second, "weight")
    A, B = (X.double() / _positive(X.abs().amax().double()) for X in (A, B))
    if A.shape[2] < A.shape[1]:
        N, M = A.mT @ A, B.mT @ B
        return _ratio((N * M).sum(), N.norm() * M.norm())
    return _ratio((A @ B.mT).square().sum(), _gram(A).norm() * _gram(B).norm())


def effective_rank(spectrum: Tensor) -> float:
    """Exponential of the entropy of a non-negative spectrum scaled to sum one (Roy and Vetterli 2007)."""
    p = spectrum.double().clamp_min(0)
    p = p / _positive(p.amax())
    if not float(p.sum()) > 0:
        return NAN
    p = p / p.sum()
    return float(torch.special.entr(p).sum().exp())


def _blocks(matrix: Tensor, what: str) -> Tensor:
    if matrix.dim() not in (2, 3) or matrix.numel() == 0 or not matrix.is_floating_point():
        raise NfaError(
            f"{what} must be a non-empty real (out, in) or (groups, out, in) tensor, "
            f"got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    if not bool(torch.isfinite(matrix).all()):
        raise NfaError(f"{what} has entries that are not finite")
    return matrix.detach() if matrix.dim() == 3 else matrix.detach()[None]


def _pooled(W: Tensor, max_size: int | None) -> Tensor:
    """Columns of (g, out, in) averaged in at most ``max_size`` blocks."""
    if max_size is None or W.shape[2] <= max_size:
        return W
    return torch.nn.functional.adaptive_avg_pool1d(W, max_size)


def _gram(A: Tensor) -> Tensor:
    return A @ A.mT if A.shape[1] <= A.shape[2] else A.mT @ A


def _positive(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, torch.ones_like(value))


def _power_of(H: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues (g, r) and eigenvectors (g, r, r) of ``H^power``; rounding below zero counts as zero."""
    if not power > 0:
        raise NfaError(f"power must be positive, got {power}")
    values, vectors = torch.linalg.eigh(H)
    floor = H.shape[-1] * torch.finfo(H.dtype).eps * values.abs().amax(-1, keepdim=True)
    return torch.where(values > floor, values, 0) ** power, vectors


def _cosine_of(sigma2: Tensor, values: Tensor, vectors: Tensor) -> float:
    """Cosine of ``diag(sigma2)`` with the matrix of these eigenvalues and eigenvectors, groups pooled."""
    inner = ((sigma2[:, :, None] * vectors.square()).sum(1) * values).sum()
    return _ratio(inner, sigma2.norm() * values.norm())


def _ratio(numerator: Tensor, denominator: Tensor) -> float:
    """Correlation-like ratio, clipped to [-1, 1]; NaN for 0/0."""
    denominator = float(denominator)
    return min(1.0, max(-1.0, float(numerator) / denominator)) if denominator > 0 else NAN


def _pearson(part: tuple[float, ...], whole: tuple[float, ...], count: int) -> float:
    """Pearson correlation over the ``count`` entries summed in ``part``.

    ``part`` may be a difference of sums of the size of ``whole``: a variance below 1e-10 of that size
    has lost its digits, and the correlation is NaN.
    """
    if count < 2:
        return NAN
    n, g, nn, gg, ng = part
    var_n, var_g = nn - n * n / count, gg - g * g / count
    if var_n <= 1e-10 * whole[2] or var_g <= 1e-10 * whole[3]:
        return NAN
    return min(1.0, max(-1.0, (ng - n * g / count) / math.sqrt(var_n * var_g)))
