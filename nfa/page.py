"""A measurement as one self-contained HTML page, which fetches nothing and opens from disk anywhere."""

import base64
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from torch import Tensor

from nfa import images, svg
from nfa.files import write_whole
from nfa.page_assets import GUIDE, NUMBER_COLUMNS, SCRIPT, STYLE, TEXT_COLUMNS
from nfa.report import CHANCE, CLEAR, LayerPicture, finite, show, summary_sentence
from nfa.rows import AUDIT_COLUMNS, TRAIN_COLUMNS, AnsatzRow
from nfa.svg import Band, Series, line_chart

Curves = Mapping[str, Sequence[tuple[float, float]]]
Drawing = Callable[[Tensor], Tensor]

_WIDE, _HALF, _PHONE = 1080, 520, 360  # px; charts are drawn for the desktop and again for a phone
_HEATMAP_BUDGET, _TILE_BUDGET = 1_700_000, 700_000  # bytes a page: the more pictures, the smaller each
_SIDES = (256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4)  # px
_PUBLISHED_ALPHAS = (0.5, 1.0)
_MOST_TILES, _LEAST_TILE_SIZE = 64, 24
_MOST_EIGENVALUES = 80
_NUMERICAL_RANK = 1e-9


def write_html(
    path: str | os.PathLike,
    *,
    title: str,
    rows: Sequence[AnsatzRow],
    history: Sequence[AnsatzRow] = (),
    curves: Curves | None = None,
    pictures: Sequence[LayerPicture] = (),
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write one measurement, and the training that led to it, as a page; whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        title: heading of the page.
        rows: one a layer, input side first: the measurement to show.
        history: rows of all measurements of a training, with their epochs.
        curves: metric name to its ``(epoch, value)`` pairs; names that end alike after a ``/`` share a chart.
        pictures: of some layers.
        meta: versions, command, seed, sizes, timings, …, listed at the end.
    """
    measured = [row for row in rows if row.measured]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lede">{escape(_unbroken(summary_sentence(rows)))}</p>',
        '<p class="note"><a href="#guide">How to read this page</a></p>',
        *([_depth_section(measured)] if measured else []),
        *([_history_section(history)] if any(row.measured for row in history) else []),
        *([_curves_section(curves)] if curves else []),
        _table_section(rows),
        *([_pictures_section(pictures, rows)] if pictures else []),
        GUIDE,
        *([_meta_section(meta)] if meta else []),
    ]
    write_whole(path, _document(title, "\n".join(body)))


def _document(title: str, body: str) -> str:
    # The policy lets the browser hold the page to its promise: no request, and no script but the one below.
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _unbroken(text: str) -> str:
    """Keep what is in brackets on one line."""
    return re.sub(r"\(.*?\)", lambda match: match[0].replace(" ", "\u00a0"), text)


def _chart(chart: Callable[..., str], caption: str = "", *, width: int = _WIDE) -> str:
    """Draw a chart at two widths, of which the style sheet shows the one that fits the screen."""
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure class="chart"><div class="wide">{chart(width=width)}</div>'
        f'<div class="narrow">{chart(width=_PHONE)}</div>{words}</figure>'
    )


# -- by depth --------------------------------------------------------------------------------------


def _column(rows: Iterable[AnsatzRow], name: str) -> list[float]:
    return [getattr(row, name) for row in rows]


def _depth_section(rows: Sequence[AnsatzRow]) -> str:
    return "\n".join(["<h2>By depth</h2>", _alignment_chart(rows), _cosine_chart(rows), _alpha_chart(rows)])


def _depth_chart(rows: Sequence[AnsatzRow], series: Sequence[Series], **options: Any) -> Callable[..., str]:
    names = [row.layer for row in rows]
    return partial(line_chart, series, x_label="layer, from input to output", x_names=names, **options)


def _rings(label: str, rows: Sequence[AnsatzRow], column: str, color: str) -> Series:
    """Make the series of a reference value: rings that no line connects."""
    return Series(label, range(len(rows)), _column(rows, column), color, line=False, hollow=True)


def _chance_sd(row: AnsatzRow) -> float:
    """Recover the standard deviation of alignment by chance, the unit of z; unknown where z is 0."""
    return abs(row.alignment / row.z) if row.z else math.nan


def _alignment_chart(rows: Sequence[AnsatzRow]) -> str:
    depth = range(len(rows))
    sds = [_chance_sd(row) for row in rows]
    series = [
        Series("alignment", depth, _column(rows, "alignment"), svg.BLUE),
        _rings("at initialisation", rows, "init_alignment", svg.VERMILLION),
    ]
    bands = [Band("chance, ± 2 sd", depth, [-2 * sd for sd in sds], [2 * sd for sd in sds])]
    title = "Alignment of weights and sensitivity"
    chart = _depth_chart(rows, series, title=title, y_label="alignment", bands=bands, rules=[0.0])
    return _chart(
        partial(chart, plot_height=280),
        "Zero is what chance gives on average, and the band is where 19 of 20 layers would lie by chance. A "
        "layer above its band bears out the ansatz by more than chance.",
    )


def _cosine_chart(rows: Sequence[AnsatzRow]) -> str:
    depth = range(len(rows))
    series = [
        Series("cosine", depth, _column(rows, "cosine"), svg.BLUE),
        _rings("at initialisation", rows, "init_cosine", svg.VERMILLION),
        _rings("isotropic null", rows, "null_isotropic", svg.GREEN),
    ]
    means, sds = _column(rows, "null_mean"), _column(rows, "null_std")
    low = [mean - 2 * sd for mean, sd in zip(means, sds, strict=True)]
    high = [mean + 2 * sd for mean, sd in zip(means, sds, strict=True)]
    bands = [Band("null, mean ± 2 sd", depth, low, high)]
    chart = _depth_chart(rows, series, title="Cosine of NFM and AGOP", y_label="cosine", bands=bands)
    powers = sorted(set(finite(_column(rows, "power"))))
    compared = f"AGOP to the power {', '.join(f'{power:g}' for power in powers)}" if powers else "AGOP"
    return _chart(
        chart,
        f"The published NFA and CNFA correlation, with {compared}. It is high for almost any weights; what "
        "counts is its distance from the null.",
    )


def _alpha_chart(rows: Sequence[AnsatzRow]) -> str:
    alphas = _column(rows, "alpha_fit")
    series = [
        Series("fitted α", range(len(rows)), alphas, svg.BLUE),
        _rings("r, correlation of the fit", rows, "alpha_r", svg.ORANGE),
    ]
    known = [*finite(alphas), *finite(_column(rows, "alpha_r")), 0.0, 1.0]
    limits = max(min(known), -1.1) - 0.05, min(max(known), 1.6) + 0.1
    chart = _depth_chart(
        rows, series, title="Fitted exponent", y_label="α, r", rules=_PUBLISHED_ALPHAS, y_range=limits
    )
    return _chart(
        chart,
        "Dashed: the published choices, ½ and 1. An exponent beyond the axis is drawn at its edge.",
    )


# -- by epoch --------------------------------------------------------------------------------------


def _history_section(history: Sequence[AnsatzRow]) -> str:
    charts = [
        _chart(_epoch_chart(history, "alignment", "Alignment while training"), width=_HALF),
        _chart(_epoch_chart(history, "cosine", "Cosine while training"), width=_HALF),
    ]
    return f'<h2>By epoch</h2>\n<div class="pair">{"".join(charts)}</div>'


def _epoch_chart(history: Sequence[AnsatzRow], column: str, title: str) -> Callable[..., str]:
    layers: dict[str, list[AnsatzRow]] = {}
    for row in history:
        if row.measured and math.isfinite(row.epoch) and math.isfinite(getattr(row, column)):
            layers.setdefault(row.layer, []).append(row)
    few = len(layers) <= len(svg.PALETTE)
    colors = svg.PALETTE if few else svg.ramp(len(layers))
    labelled = range(len(layers)) if few else (0, len(layers) // 2, len(layers) - 1)
    series = [
        Series(layer, _column(rows, "epoch"), _column(rows, column), colors[i], in_legend=i in labelled)
        for i, (layer, rows) in enumerate(layers.items())
    ]
    rules = [0.0] if column == "alignment" else []
    return partial(line_chart, series, title=title, x_label="epoch", y_label=column, rules=rules)


def _curves_section(curves: Curves) -> str:
    """Draw a chart a metric; what comes before the last ``/``, like ``train``, keeps its colour in all."""
    stages = list(dict.fromkeys(name.rpartition("/")[0] for name in curves))
    charts: dict[str, list[Series]] = {}
    for name, points in curves.items():
        stage, _, metric = name.rpartition("/")
        color = svg.PALETTE[stages.index(stage) % len(svg.PALETTE)]
        series = Series(name, [x for x, _ in points], [y for _, y in points], color, hollow=len(points) == 1)
        charts.setdefault(metric, []).append(series)
    drawn = [_chart(_metric_chart(metric, series), width=_HALF) for metric, series in charts.items()]
    return f'<h2>Training</h2>\n<div class="pair">{"".join(drawn)}</div>'


def _metric_chart(metric: str, series: Sequence[Series]) -> Callable[..., str]:
    values = finite(y for s in series for y in s.y)
    wide_range = bool(values) and min(values) > 0 and max(values) > 100 * min(values)
    series = sorted(series, key=lambda s: len(s.x))  # a single point, a test result, lies on top
    title = metric[:1].upper() + metric[1:]
    return partial(line_chart, series, title=title, x_label="epoch", y_label=metric, y_log=wide_range)


# -- table -----------------------------------------------------------------------------------------


def _table_section(rows: Sequence[AnsatzRow]) -> str:
    columns = TRAIN_COLUMNS if finite(_column(rows, "epoch")) else AUDIT_COLUMNS
    columns = ("layer", *(column for column in columns if column != "layer"))
    number = '<th scope="col"><button type="button" title="order of depth">#</button></th>'
    heads = number + "".join(map(_head, columns))
    body = "\n".join(_table_row(i, row, columns) for i, row in enumerate(rows, start=1))
    return (
        "<h2>All numbers</h2>\n"
        '<p class="note">A heading sorts by its column. Bold z: beyond 5; grey: within chance, or skipped.'
        "</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="All numbers">'
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _head(column: str) -> str:
    if column in TEXT_COLUMNS:
        kind = "text name" if column == "layer" else "text"
        return f'<th scope="col" class="{kind}"><button type="button">{column}</button></th>'
    label, _, explanation = NUMBER_COLUMNS[column]
    return f'<th scope="col"><button type="button" title="{explanation}">{label}</button></th>'


def _table_row(number: int, row: AnsatzRow, columns: Iterable[str]) -> str:
    kind = "" if row.measured else ' class="skipped"'
    return f"<tr{kind}><td>{number}</td>{''.join(_table_cell(row, column) for column in columns)}</tr>"


def _table_cell(row: AnsatzRow, column: str) -> str:
    value = getattr(row, column)
    if column == "layer":
        return f'<th scope="row" class="text name">{escape(value)}</th>'
    if column in TEXT_COLUMNS:
        return f'<td class="text">{escape(value)}</td>'
    exact = f"{value:.7g}" if math.isfinite(value) else ""
    emphasis = f' class="{_verdict(value)}"' if column == "z" and exact else ""
    return f'<td{emphasis} data-v="{exact}">{show(value, NUMBER_COLUMNS[column][1])}</td>'


def _verdict(z: float) -> str:
    return "clear" if z > CLEAR else "chance" if abs(z) <= CHANCE else "some"


# -- pictures --------------------------------------------------------------------------------------


def _pictures_section(pictures: Sequence[LayerPicture], rows: Sequence[AnsatzRow]) -> str:
    known = {row.layer: row for row in rows}
    matrices = [m for p in pictures for m in (p.nfm, p.agop) if m is not None]
    grids = [g for p in pictures for g in _grids(p) if g is not None]
    coloured = partial(images.heatmap, max_size=_side_within(_HEATMAP_BUDGET, matrices))
    tiled = partial(_tiled, max_size=_side_within(_TILE_BUDGET, grids))
    layers = [_layer(picture, known.get(picture.layer), coloured, tiled) for picture in pictures]
    return (
        "<h2>Layer by layer</h2>\n"
        '<p class="note">Matrices are coloured from their 1st percentile, dark, to their 99th, bright. '
        "Spectra begin at 1. Filters and eigenvectors are each shown at full contrast.</p>\n"
        + "\n".join(layers)
    )


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


def _layer(picture: LayerPicture, row: AnsatzRow | None, coloured: Drawing, tiled: Drawing) -> str:
    power = row.power if row else math.nan
    agop = "AGOP" if power == 1 or not math.isfinite(power) else f"AGOP to the power {power:g}"
    figures = [
        _picture(picture.nfm, coloured, "NFM"),
        _picture(picture.agop, coloured, agop),
        _spectra(picture, agop),
        _picture(picture.filters, tiled, "Filters", "whole"),
        _picture(picture.nfm_eigenvectors, tiled, "Leading eigenvectors of the NFM"),
        _picture(_matched(picture), tiled, "Leading eigenvectors of the AGOP"),
    ]
    return (
        f'<section class="layer"><h3>{escape(picture.layer)}</h3>{_layer_note(row) if row else ""}'
        f'<div class="gallery">{"".join(figures)}</div></section>'
    )


def _layer_note(row: AnsatzRow) -> str:
    numbers = (
        f"{row.kind}, {row.in_features} → {row.out_features}",
        f"alignment {show(row.alignment, '+.3f')}",
        f"z {show(row.z, '.1f')}",
        f"α {show(row.alpha_fit, '.2f')}",
        f"cosine {show(row.cosine)}, null {show(row.null_mean)}",
    )
    unbroken = (number.replace(" ", "\u00a0") for number in numbers)
    return f'<p class="note">{escape(" · ".join(unbroken))}</p>'


def _picture(pixels: Tensor | None, draw: Drawing, caption: str, size: str = "part") -> str:
    if pixels is None:
        return ""
    image = f'<img src="{images.data_uri(images.png(draw(pixels)))}" alt="{caption}">'
    return f'<figure class="{size}">{image}<figcaption>{caption}</figcaption></figure>'


def _tiled(pixels: Tensor, max_size: int) -> Tensor:
    shown = images.shrink(pixels[:_MOST_TILES], max_size)
    return images.tile(shown, scale=math.ceil(_LEAST_TILE_SIZE / max(shown.shape[2:])))


def _matched(picture: LayerPicture) -> Tensor | None:
    """Give the AGOP's eigenvectors the signs, which are arbitrary, that agree with the NFM's."""
    ours, theirs = picture.agop_eigenvectors, picture.nfm_eigenvectors
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return ours
    agreement = (ours * theirs).sum((1, 2, 3), keepdim=True)
    return ours * (1 - 2 * (agreement < 0).to(ours.dtype))


def _spectra(picture: LayerPicture, agop: str) -> str:
    given = (("NFM", picture.nfm_spectrum, svg.BLUE), (agop, picture.agop_spectrum, svg.VERMILLION))
    series = [_spectrum(label, values, color) for label, values, color in given if values is not None]
    if not series:
        return ""
    chart = line_chart(
        series,
        title="Spectra",
        x_label="index",
        y_label="eigenvalue, relative",
        x_log=True,
        y_log=True,
        width=_PHONE,
        plot_height=230,
    )
    return f'<figure class="whole">{chart}</figure>'


def _spectrum(label: str, eigenvalues: Tensor, color: str) -> Series:
    """Eigenvalues over the greatest, up to the numerical rank, thinned evenly on the logarithmic axis."""
    values = eigenvalues.detach().cpu().double().tolist()
    peak = max(finite(values), default=0.0) or math.nan
    steps = [i / (_MOST_EIGENVALUES - 1) for i in range(_MOST_EIGENVALUES)]
    index = sorted({round(len(values) ** step) for step in steps}) if values else []
    relative = [values[i - 1] / peak for i in index]
    return Series(label, index, [v if v > _NUMERICAL_RANK else math.nan for v in relative], color)


# -- meta ------------------------------------------------------------------------------------------


def _meta_section(meta: Mapping[str, object]) -> str:
    entries = (f"<dt>{escape(str(key))}</dt><dd>{escape(_words(value))}</dd>" for key, value in meta.items())
    return f"<h2>How this was made</h2>\n<dl>{''.join(entries)}</dl>"


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
