"""The cosine of N with ``G^α`` when the eigenvectors of C are random."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nfa.ansatz.forms import Form, Frame, LowRank, cosine_of, haar, linear_cosine, power_of


def roots(C: Form) -> Tensor:
    """Roots of the eigenvalues of C (g, k), descending."""
    return C.spectrum().clamp_min_(0).sqrt_()


def null_draw(frame: Frame, root: Tensor, power: float, generator: torch.Generator) -> Tensor:
    """The cosine for ``C̃ = Q diag(root²) Qᵀ``: where that has few entries, Q needs as few columns.

    Args:
        frame: of the weight.
        root: (g, k) roots of the spectrum, dealt out to the groups of equal rank at random.
        power: exponent α.
        generator: of the rotation, which is the same for every ``root`` of one shape.
    """
    ranks = frame.here.keep.sum(-1)
    Y = root.new_zeros(*frame.sigma2.shape, root.shape[1])
    for rank in ranks.unique().tolist():
        members = (ranks == rank).nonzero()[:, 0]
        dealt = members[torch.randperm(len(members), generator=generator)].to(root.device)
        k = min(rank, root.shape[1])
        Q = haar(len(members), rank, generator, k).to(root)
        Y[members.to(root.device), :rank, :k] = Q.mul_(root[dealt, None, :k])
        del Q
    H = frame.agop(LowRank(Y))
    del Y
    if power == 1.0:
        return linear_cosine(frame.sigma2, H)
    return cosine_of(frame.sigma2, *power_of(H, power))


def null_changes(
    frame: Frame, root: Tensor, others: Sequence[Tensor], null: Tensor, power: float, seed: int
) -> list[float]:
    """How much the first draws of a null change when another spectrum is rotated alike, one a draw.

    Args:
        frame: of the weight.
        root: (g, k) roots of the spectrum that was drawn with.
        others: roots of other spectra, none of higher rank.
        null: what was drawn, one cosine a draw.
        power: exponent α.
        seed: of the draws.
    """
    generator, width = torch.Generator().manual_seed(seed), root.shape[1]
    changes = []
    for other, drawn in zip(others, null.tolist(), strict=False):
        alike = torch.nn.functional.pad(other[:, :width], (0, max(width - other.shape[1], 0)))
        changes.append(null_draw(frame, alike, power, generator) - drawn)
    return torch.stack(changes).tolist() if changes else []
