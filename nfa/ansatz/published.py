"""The published statistics, N against ``G^α``, and what chance gives them."""

from functools import cached_property

import torch
from torch import Tensor

from nfa.ansatz.blockwise import (
    EntrySums,
    blocks,
    columns,
    feature_entry_sums,
    linear_entry_sums,
    pearson,
    smaller_gram,
    total,
)
from nfa.ansatz.decomposed import Decomposed
from nfa.ansatz.forms import cosine_of, inner, linear_cosine, ratio
from nfa.ansatz.nulls import null_draw
from nfa.ansatz.wide_nulls import GREATEST_POWER, WIDE, wide_null
from nfa.checks import positive, seed_of, whole
from nfa.errors import NfaError


class Published(Decomposed):
    """Those of a weight W with a sensitivity C; see `nfa.ansatz.pair.FeaturePair`."""

    def cosine(self, power: float = 1.0) -> float:
        """Cosine of N and ``G^power``: the NFA / CNFA correlation (arXiv 2212.13881, 2309.00570)."""
        if power not in self._cosines:
            found = [linear_cosine(self._frame.sigma2, self._agop)]
            if power != 1.0:
                found.append(cosine_of(self._frame.sigma2, *self._power_basis(power)))
            self._cosines |= zip((1.0, power), torch.stack(found).tolist(), strict=False)  # one move for both
        return self._cosines[power]

    @cached_property
    def _cosines(self) -> dict[float, float]:
        return {}

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
        s, power = self._frame.here.sigma2, positive("power", power)
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
            return wide_null(frame.here.sigma2[frame.here.keep], root[0].square(), power, draws, rng)
        root = root.to(frame.sigma2.device)
        drawn = [null_draw(frame, root, power, rng) for _ in range(draws)]
        return torch.stack(drawn).cpu() if draws else torch.zeros(0, dtype=torch.float64)

    def has_wide_null(self, power: float) -> bool:
        """Whether `null_cosines` are found from two spectra (`nfa.ansatz.wide_nulls`), however many draws."""
        one = self.weight.shape[0] == 1 and int(self._frame.here.keep.sum()) > WIDE
        return one and power <= GREATEST_POWER and float(self._root_spectrum[0, 0]) > 0

    @cached_property
    def _values(self) -> Tensor:
        """Eigenvalues of C on the range of W, (g, k), descending; on the CPU."""
        return self._inside.spectrum().cpu()

    @cached_property
    def _root_spectrum(self) -> Tensor:
        """Roots of the eigenvalues of C on the range of W, descending, less the zeros of all; on the CPU."""
        root = self._values.clamp_min(0).sqrt()
        return root[:, : max(int((root > 0).sum(-1).max()), 1)]

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
        frame, C, H = self._frame, self._inside, self._agop
        return linear_entry_sums(
            self.weight,
            self._W_scale,
            (frame.U @ C.dense().matrix) @ frame.U.mT,
            inner=(frame.sigma2 * H.diagonal()).sum(),
            nn=frame.sigma2.square().sum(),
            gg=H.norm().square(),
        )
