"""The pictures of a page, layer by layer: matrices, spectra, filters and eigenvectors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup
from torch import Tensor

from nfa.ansatz.feature_matrices import effective_rank
from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import AnsatzRow
from nfa.ansatz.words import alignment_words, finite, show
from nfa.page import raster, svg
from nfa.page.scatter import scatter_chart
from nfa.page.svg import Series, line_chart
from nfa.page.text import minus

Drawing = Callable[[Tensor], Tensor]

_HEATMAP_BUDGET, _TILE_BUDGET = 1_700_000, 700_000  # bytes a page: the more pictures, the smaller each
_SIDES = (256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4)  # px
_MOST_TILES, _LEAST_TILE_SIZE = 64, 24
_MOST_EIGENVALUES = 80
_NUMERICAL_RANK = 1e-9
_WIDTH = 360  # px of a chart of spectra
_FRACTIONS = {0.5: "½", 0.25: "¼"}


@dataclass(frozen=True)
class Picture:
    """An image of a layer: what it shows, its address, and the class of its size."""

    what: str
    uri: str
    size: str


@dataclass(frozen=True)
class Layer:
    """What a page shows of a layer: its numbers in words, its pictures and the chart of its spectra."""

    name: str
    words: Sequence[str]
    figures: Sequence[Picture | Markup]


def anchors(pictures: Sequence[LayerPicture]) -> dict[str, str]:
    """For each layer with pictures the name of its place in the page."""
    return {picture.layer: f"layer-{i}" for i, picture in enumerate(pictures, start=1)}


def layers_of(pictures: Sequence[LayerPicture], rows: Sequence[AnsatzRow]) -> list[Layer]:
    """Draw all pictures, the smaller the more there are."""
    known = {row.layer: row for row in rows}
    matrices = [m for p in pictures for m in (p.nfm, p.agop) if m is not None]
    grids = [g for p in pictures for g in _grids(p) if g is not None]
    coloured = partial(raster.heatmap, max_size=_side_within(_HEATMAP_BUDGET, matrices))
    tiled = partial(_tiled, max_size=_side_within(_TILE_BUDGET, grids))
    return [_layer(p, known.get(p.layer), coloured, tiled) for p in pictures]


def _side_within(budget: int, pictures: Sequence[Tensor]) -> int:
    """Find the greatest side in px that keeps all matrices, or all grids, within a size in bytes."""

    def size(side: int) -> int:
        sides = [(min(n, m) for n, m in zip(p.shape, _drawn(p, side), strict=True)) for p in pictures]
        return sum(map(math.prod, sides))

    return next((side for side in _SIDES if size(side) <= budget), _SIDES[-1])


def _grids(picture: LayerPicture) -> tuple[Tensor | None, ...]:
    return picture.filters, picture.nfm_eigenvectors, picture.agop_eigenvectors


def _drawn(pixels: Tensor, side: int) -> tuple[int, ...]:
    return (side, side) if pixels.ndim == 2 else (_MOST_TILES, 3 if pixels.shape[1] == 3 else 1, side, side)


def _layer(picture: LayerPicture, row: AnsatzRow | None, coloured: Drawing, tiled: Drawing) -> Layer:
    power = row.power if row else math.nan
    plain = power == 1 or not math.isfinite(power)
    agop = "AGOP" if plain else f"AGOP to the power {power:g}"
    short = "AGOP" if plain else f"AGOP<sup>{_FRACTIONS.get(power, f'{power:g}')}</sup>"
    figures = [
        _picture(picture.nfm, coloured, "NFM"),
        _picture(picture.agop, coloured, agop),
        _spectra(picture, agop),
        None if picture.scatter is None else scatter_chart(picture.layer, picture.scatter),
        _picture(picture.filters, tiled, "Filters", "whole"),
        _picture(picture.nfm_eigenvectors, tiled, "Leading eigenvectors of the NFM"),
        _picture(_matched(picture), tiled, "Leading eigenvectors of the AGOP"),
    ]
    words = [*(_numbers(row) if row else []), *_ranks(picture, short)]
    return Layer(picture.layer, words, [figure for figure in figures if figure is not None])


def _numbers(row: AnsatzRow) -> list[str]:
    numbers = (
        f"alignment {alignment_words(row)}",
        f"z {show(row.z, '.1f')}, {row.verdict}",
        f"α {show(row.alpha_fit, '.2f')}",
        f"cosine {show(row.cosine)}, null {show(row.null_mean)}",
    )
    words = [f"{row.kind}, {row.in_features} → {row.out_features}", *map(minus, numbers)]
    return [word.replace(" ", "\u00a0") for word in words]


def _ranks(picture: LayerPicture, agop: str) -> list[Markup]:
    """Effective ranks of what is drawn."""
    spectra = (("NFM", picture.nfm_spectrum), (agop, picture.agop_spectrum))
    ranks = [
        f"{label}\u00a0{show(effective_rank(values.nan_to_num(0.0, 0.0, 0.0)), '.1f')}"
        for label, values in spectra
        if values is not None and values.numel()
    ]
    return [Markup(f"effective\u00a0rank {', '.join(ranks)}")] if ranks else []


def _picture(pixels: Tensor | None, draw: Drawing, what: str, size: str = "part") -> Picture | None:
    return None if pixels is None else Picture(what, raster.data_uri(raster.png(draw(pixels))), size)


def _tiled(pixels: Tensor, max_size: int) -> Tensor:
    shown = raster.shrink(pixels[:_MOST_TILES], max_size)
    return raster.tile(shown, scale=math.ceil(_LEAST_TILE_SIZE / max(shown.shape[2:])))


def _matched(picture: LayerPicture) -> Tensor | None:
    """Give the AGOP's eigenvectors the signs, which are arbitrary, that agree with the NFM's."""
    ours, theirs = picture.agop_eigenvectors, picture.nfm_eigenvectors
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return ours
    agreement = (ours * theirs).sum((1, 2, 3), keepdim=True)
    return ours * (1 - 2 * (agreement < 0).to(ours.dtype))


def _spectra(picture: LayerPicture, agop: str) -> Markup | None:
    given = (("NFM", picture.nfm_spectrum, svg.BLUE), (agop, picture.agop_spectrum, svg.VERMILLION))
    series = [_spectrum(label, values, color) for label, values, color in given if values is not None]
    if not series:
        return None
    return line_chart(
        series,
        title="Spectra",
        name=f"Spectra of {picture.layer}",
        x_label="index",
        y_label="eigenvalue, relative",
        x_log=True,
        y_log=True,
        width=_WIDTH,
        plot_height=230,
    )


def _spectrum(label: str, eigenvalues: Tensor, color: str) -> Series:
    """Eigenvalues over the greatest, up to the numerical rank, thinned evenly on the logarithmic axis."""
    values = eigenvalues.detach().cpu().double().tolist()
    peak = max(finite(values), default=0.0) or math.nan
    steps = [i / (_MOST_EIGENVALUES - 1) for i in range(_MOST_EIGENVALUES)]
    index = sorted({round(len(values) ** step) for step in steps}) if values else []
    relative = [values[i - 1] / peak for i in index]
    return Series(label, index, [v if v > _NUMERICAL_RANK else math.nan for v in relative], color)
