"""Similarity of features as matrices of cosines, and their leading eigenvectors as strips of pictures."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.row import CHANCE
from nfa.ansatz.words import UNDEFINED, show
from nfa.compare.similarity import COVARIANCE, FeatureSpace
from nfa.page import raster
from nfa.page.text import minus

_DATA = f"data ({COVARIANCE})"
_MANY_STRIPS, _SIDE, _SMALLER_SIDE = 40, 48, 32  # px of a picture that are kept, of few and of many


@dataclass(frozen=True)
class Space:
    """A kind of feature as it is named: ``input``, ``NFM`` or ``AGOP``, of what, and its size."""

    kind: str
    name: str
    heading: str
    dimension: int


@dataclass(frozen=True)
class Cell:
    """The similarity of two models.

    Attributes:
        cosine: as text, like the others; a dash where it is undefined.
        null: what a random rotation gives on average.
        z: how many standard deviations the cosine lies above it.
        share: in %, of the way from the null to the greatest cosine; None within chance.
    """

    cosine: str
    null: str = ""
    z: str = ""
    share: int | None = None


@dataclass(frozen=True)
class Matrix:
    """The cosines of all pairs of models in one kind of feature; names of rows and columns are the same."""

    space: Space
    names: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    flat: Sequence[str]  # runs that learned nothing
    lacks_pairs: bool  # of two seeds of one model


@dataclass(frozen=True)
class Strips:
    """Leading eigenvectors of models, as addresses of their images, below each other."""

    space: Space
    members: Sequence[tuple[str, Sequence[str]]]


def _space(space: FeatureSpace) -> Space:
    heading = re.sub(r"(\d)x(?=\d)", r"\1×", space.name[:1].upper() + space.name[1:])
    return Space(space.name.split()[0], space.name, heading, space.dimension)


def _named(label: str) -> str:
    return _DATA if label == COVARIANCE else label


# -- similarity ------------------------------------------------------------------------------------


def similarity_matrix(space: FeatureSpace) -> Matrix:
    """Lay out the cosines of all pairs of models."""
    labels = space.labels
    return Matrix(
        _space(space),
        [_named(label) for label in labels],
        [[_cell(space, a, b) for b in labels] for a in labels],
        [f"{member.label}, {member.replicate}" for member in space.members if member.is_flat],
        any(not space.pairs(label, label) for label in labels),
    )


def _cell(space: FeatureSpace, a: str, b: str) -> Cell:
    values = (space.cosine, space.null_mean, space.z, space.alignment)
    cosine, null, z, alignment = (space.between(a, b, value) for value in values)
    if not math.isfinite(cosine):
        return Cell(UNDEFINED)
    share = round(100 * min(alignment, 1.0)) if z > CHANCE else None
    return Cell(minus(show(cosine)), minus(show(null, ".2f")), minus(show(z, "z.1f")), share)


# -- eigenvectors ----------------------------------------------------------------------------------


def eigenvector_strips(spaces: Sequence[FeatureSpace]) -> list[Strips]:
    """Draw the leading eigenvectors of each model; of no space in which there are none."""
    found = [
        (space, [(m, m.eigenvectors) for m in space.members if m.eigenvectors is not None])
        for space in spaces
    ]
    drawn = [(space, members) for space, members in found if members]
    side = _SIDE if sum(len(members) for _, members in drawn) <= _MANY_STRIPS else _SMALLER_SIDE
    return [
        Strips(_space(space), [(_named(member.label), _images(own, side)) for member, own in members])
        for space, members in drawn
    ]


def _images(vectors: Tensor, side: int) -> list[str]:
    vectors = raster.shrink(signed(vectors), side)
    return [raster.data_uri(raster.png(raster.tile(vector[None], scale=1))) for vector in vectors]


def signed(vectors: Tensor) -> Tensor:
    """Give images ``(k, c, h, w)`` signs that do not hang on who computed them.

    Each agrees with a constant or with a ramp over channels, rows or columns, whichever fits it best, so
    that neither a blob nor an edge hangs on rounding.
    """
    shape = vectors.shape[1:]
    axes = torch.meshgrid(*(torch.arange(size) - (size - 1) / 2 for size in shape), indexing="ij")
    patterns = torch.stack([torch.ones(shape), *axes]).flatten(1)
    units = patterns / patterns.norm(dim=1, keepdim=True).clamp_min(1e-12)
    fits = vectors.cpu().float().flatten(1) @ units.mT
    best = fits.gather(1, fits.abs().argmax(1, keepdim=True))
    return vectors * torch.where(best < 0, -1.0, 1.0)[:, :, None, None].to(vectors)
