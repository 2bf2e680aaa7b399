"""Similarity of features as matrices of cosines, and their leading eigenvectors as strips of pictures."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from nfa.ansatz.row import CHANCE
from nfa.ansatz.words import UNDEFINED
from nfa.compare.similarity import COVARIANCE, FeatureSpace, Member
from nfa.page import raster
from nfa.page.table import region, shown
from nfa.page.text import escape

_DATA = f"data ({COVARIANCE})"
_KINDS = {
    "input": "Gradients of the outputs with respect to the inputs, through the whole model.",
    "NFM": "What the first layer reads: <i>W</i>ᵀ<i>W</i>, of a kernel machine its <i>M</i>.",
    "AGOP": "Gradients of the outputs with respect to the patches that the first layer reads.",
}
_SHARES = (0, 25, 50, 75, 100)  # % on the scale of colours
_MANY_STRIPS, _SIDE, _SMALLER_SIDE = 40, 48, 32  # px of a picture that are kept, of few and of many


# -- similarity ------------------------------------------------------------------------------------


def similarity_section(spaces: Sequence[FeatureSpace]) -> str:
    """Lay out the cosines of all pairs of models, a matrix for each kind of feature."""
    scale = "".join(f'<i style="--share:{share}%"></i>' for share in _SHARES)
    return (
        "<h2>Feature similarity</h2>\n"
        '<p class="note">Large: the cosine of the feature matrices of two models, mean over runs of '
        "different seeds, where there are any; so too on the diagonal, within one model. Below: the null, "
        "what a random rotation gives on average, and z, how many standard deviations the cosine lies above "
        f'it. The null is known in closed form. <span class="scale">Colour: {scale}</span> from the null to '
        f"the greatest cosine that the spectra allow; none within chance (z ≤ {CHANCE:g}). The last row "
        "tells what may come from the data alone: a model whose features resemble the covariance of the "
        "data need not have learned them.</p>\n" + "\n".join(map(_matrix, spaces))
    )


def _matrix(space: FeatureSpace) -> str:
    heads = "".join(f'<th scope="col">{_breakable(label)}</th>' for label in space.labels)
    rows = "".join(
        f'<tr><th scope="row" class="text name" title="{_named(a)}">{_breakable(a)}</th>'
        f"{''.join(_cell(space, a, b) for b in space.labels)}</tr>"
        for a in space.labels
    )
    table = region(f"Similarity: {space.name}", f'<td class="name"></td>{heads}', rows, kind="matrix")
    words = f'<p class="note">{" ".join(_dashes(space))}</p>' if _dashes(space) else ""
    return f'<section class="layer">{_heading(space, "cosines")}{table}{words}</section>'


def _named(label: str) -> str:
    return _DATA if label == COVARIANCE else escape(label)


def _breakable(label: str) -> str:
    """A label that may break where its options do."""
    return re.sub(r"([_,]|\.(?=[a-z]))", r"\1<wbr>", _named(label))


def _heading(space: FeatureSpace, what: str) -> str:
    name = re.sub(r"(\d)x(?=\d)", r"\1×", space.name[:1].upper() + space.name[1:])
    kind = _KINDS.get(space.name.split()[0], "")
    size = f"{space.dimension}\u00a0×\u00a0{space.dimension}"
    return f'<h3>{escape(name)}, {size}: {what}</h3><p class="note">{kind}</p>'


def _cell(space: FeatureSpace, a: str, b: str) -> str:
    values = (space.cosine, space.null_mean, space.z, space.alignment)
    cosine, null, z, alignment = (space.between(a, b, value) for value in values)
    if not math.isfinite(cosine):
        return f'<td class="chance">{UNDEFINED}</td>'
    share = f"{100 * min(alignment, 1.0):.0f}" if z > CHANCE else ""
    looks = f'class="heat" style="--share:{share}%"' if share else 'class="chance"'
    return (
        f"<td {looks}><b>{shown(cosine)}</b>"
        f"<small>null {shown(null, '.2f')}<br>z {shown(z, 'z.1f')}</small></td>"
    )


def _dashes(space: FeatureSpace) -> list[str]:
    """Say why there are dashes, if any."""
    flat = [f"{member.label}, {member.replicate}" for member in space.members if member.is_flat]
    words = []
    if flat:
        words.append(
            f"Nothing learned: {escape('; '.join(flat))}. Round 0 is the best there, and <i>M</i> still the "
            "identity, which no rotation changes: its cosine is the null itself, whatever it is compared "
            f"with, and z is undefined ({UNDEFINED}). Where other runs of a model learned, z is theirs."
        )
    if any(not space.pairs(label, label) for label in space.labels):
        words.append(f"A dash ({UNDEFINED}) on the diagonal: only one run, so that no two seeds compare.")
    return words


# -- eigenvectors ----------------------------------------------------------------------------------


def eigenvectors_section(spaces: Sequence[FeatureSpace]) -> str:
    """Draw the leading eigenvectors of each model below those of the others; empty where there are none."""
    drawn = [(space, [m for m in space.members if m.eigenvectors is not None]) for space in spaces]
    drawn = [(space, members) for space, members in drawn if members]
    if not drawn:
        return ""
    side = _SIDE if sum(len(members) for _, members in drawn) <= _MANY_STRIPS else _SMALLER_SIDE
    parts = "".join(
        f'<section class="layer">{_heading(space, "eigenvectors")}<div class="strips">'
        f"{''.join(_strip(member, space.name, side) for member in members)}</div></section>"
        for space, members in drawn
    )
    return (
        "<h2>Leading eigenvectors</h2>\n"
        '<p class="note">The directions of input that count most, from the largest eigenvalue on the left, '
        "in the first run of each model; each at full contrast. Signs are arbitrary and made alike. Where "
        "two eigenvalues are close, their order, and any mixture of the two, is chance.</p>\n"
        f'<div class="pair">{parts}</div>'
    )


def _strip(member: Member, space: str, side: int) -> str:
    vectors = raster.shrink(signed(member.eigenvectors), side)
    tiles = (raster.tile(vector[None], scale=1) for vector in vectors)
    pictures = "".join(f'<img src="{raster.data_uri(raster.png(tile))}" alt="">' for tile in tiles)
    name = _named(member.label)
    label = f"Leading eigenvectors of {name}: {escape(space)}"
    strip = f'<div role="img" aria-label="{label}">{pictures}</div>'
    return f"<span>{_breakable(member.label)}</span>{strip}"


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
