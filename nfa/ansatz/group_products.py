"""What a jackknife asks of sums of groups of samples: R × R numbers, and no matrix for any sum.

It asks for the alignment, the basis and the cosine at α = 1 of all groups, of each, and of all but each. All
of these are made of linear and of quadratic forms of a sum, which products between the groups give.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.basis import Basis, Spectrum, basis_squares
from nfa.ansatz.forms import ratio_of, traceless
from nfa.ansatz.group_sums import Columns, Matrices


@dataclass(frozen=True)
class GroupProducts:
    """Linear and quadratic forms of sums of R groups, float64 on the CPU.

    A sum is asked for by how often each group is in it: (n, R) of ones and zeros.

    Attributes:
        noise: relative to ‖C‖: a traceless part that is no larger is none.
        diagonals: ``uᵢᵀC_juᵢ``, (R, g, r).
        aligned: product of C̃_j and of the traceless part of WWᵀ of length one, (R,).
        crossed: product of H_j with N of length one, (R,).
        whole: ``⟨C̃_i, C̃_j⟩``, (R, R).
        traceless: the same of what remains without a multiple of the identity, one for all groups of the map.
        inside: the same without one for each group of the map.
        above: gives `nfa.ansatz.basis.Basis.above`, (R, R).
        room: gives `nfa.ansatz.basis.Basis.room`, (R, R).
        linear: ``⟨H_i, H_j⟩``, (R, R); zeros where no cosine at α = 1 is asked for.
    """

    noise: float
    diagonals: Tensor
    aligned: Tensor
    crossed: Tensor
    whole: Tensor
    traceless: Tensor
    inside: Tensor
    above: Tensor
    room: Tensor
    linear: Tensor

    @classmethod
    def of(
        cls, sigma2: Tensor, spectrum: Spectrum, groups: Matrices | Columns, *, linear: bool
    ) -> "GroupProducts":
        """Those of groups of samples.

        Args:
            sigma2: (g, r) squared singular values of W.
            spectrum: of the weight.
            groups: the sums.
            linear: the cosine at α = 1 will be asked for.
        """
        keep, diagonals = spectrum.keep, groups.diagonals
        inside, above, room = basis_squares(spectrum, groups)
        ranks = keep.sum(-1)
        traces = diagonals.sum(-1)
        mean = traces.sum(-1) / ranks.sum().clamp_min(1)
        between = (traces / ranks.clamp_min(1) - mean[:, None]) * ranks.sqrt()
        overall = inside + between @ between.mT
        squares = groups.linear_products(sigma2.sqrt()) if linear else torch.zeros_like(inside)
        whole = overall + ranks.sum() * mean[:, None] * mean
        s = traceless(sigma2, keep)
        size = torch.where(s.norm() > spectrum.noise * sigma2.norm(), s.norm(), torch.nan)
        aligned = (diagonals * s).sum((1, 2)) / size
        crossed = (diagonals * sigma2.square()).sum((1, 2)) / sigma2.norm()
        parts = [diagonals, aligned, crossed, whole, overall, inside, above, room, squares]
        moved = torch.cat([part.flatten() for part in parts]).cpu()  # at once: each move from a device waits
        found = moved.split([part.numel() for part in parts])
        return cls(spectrum.noise, *(v.view(part.shape) for v, part in zip(found, parts, strict=True)))

    def traceless_norms(self, sums: Tensor) -> Tensor:
        """Norms of sums without a multiple of the identity, (n,)."""
        return _squares(self.traceless, sums).sqrt()

    def linear_norms(self, sums: Tensor) -> Tensor:
        """‖H‖ of sums, (n,)."""
        return _squares(self.linear, sums).sqrt()

    def alignments(self, sums: Tensor) -> Tensor:
        """Of sums, (n,); `nfa.FeaturePair.alignment`."""
        sizes = self.traceless_norms(sums)
        some = sizes > self.noise * _squares(self.whole, sums).sqrt()
        return ratio_of(sums @ self.aligned, torch.where(some, sizes, 0.0))

    def linear_cosines(self, sums: Tensor) -> Tensor:
        """Cosines of N and G of sums, (n,)."""
        return ratio_of(sums @ self.crossed, self.linear_norms(sums))

    def bases(self, sums: Tensor) -> list[Basis]:
        """How far sums are diagonal in the eigenbasis of WWᵀ."""
        floor = self.noise**2 * _squares(self.whole, sums)
        some = _squares(self.inside, sums) > floor
        values = [torch.einsum("ni,ij,nj->n", sums, part, sums) * some for part in (self.above, self.room)]
        return [Basis(above, room) for above, room in torch.stack(values, 1).tolist()]


def _squares(products: Tensor, sums: Tensor) -> Tensor:
    return ((sums @ products) * sums).sum(-1).clamp_min(0)
