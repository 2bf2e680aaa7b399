"""What W&B shows of the layers of a network: one table, a chart a statistic with a line a layer, pictures.

However many layers there are, the number of keys is the same. The whole table is logged again and again, and
W&B draws the last one.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nfa.ansatz.curves import ALL_STATISTICS, SPREAD
from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import TRAIN_COLUMNS, AnsatzRow
from nfa.page.raster import heatmap, tile

TABLE = "nfa/layers"
MATRIX_SIDE, TILES_SIDE = 256, 512  # px: W&B wants the images of one key to be of one size
_MOST_ROWS = 10_000  # W&B cuts off what a longer table has beyond
_EIGENVALUES = 256
_NUMERICAL_RANK = 1e-9
_PAPER = 255


def layer_table(history: Sequence[AnsatzRow]) -> Any:
    """All rows as a table; of a long history some measurements, the first and the last among them.

    A layer that is not measured has a row without numbers, so that it is not drawn.
    """
    rows = ([_shown(row, column) for column in TRAIN_COLUMNS] for row in _some(history))
    return table(TRAIN_COLUMNS, rows)


def _shown(row: AnsatzRow, column: str) -> object:
    return getattr(row, column) if row.measured or column not in ALL_STATISTICS else None


def _some(history: Sequence[AnsatzRow]) -> list[AnsatzRow]:
    if len(history) <= _MOST_ROWS:
        return list(history)
    epochs = list(dict.fromkeys(row.epoch for row in history))
    most = max(_MOST_ROWS * len(epochs) // len(history), 2)
    kept = {epochs[i * (len(epochs) - 1) // (most - 1)] for i in range(most)}
    return [row for row in history if row.epoch in kept]


def table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Any:
    """A ``wandb.Table``; NaN, which would make a column one of text, becomes an empty cell."""
    import wandb

    found = wandb.Table(columns=list(columns))
    for row in rows:
        found.add_data(*(None if value != value else value for value in row))
    return found


def layer_charts(history: Sequence[AnsatzRow], axis: str = "epoch") -> dict[str, Any]:
    """The table of all rows, and ``nfa/<statistic>/layers``: charts that draw it, a line a layer.

    Args:
        history: rows of all measurements.
        axis: what the epoch is called beside the chart.
    """
    from wandb.plot.custom_chart import CustomChart, CustomChartSpec

    class OfLayers(CustomChartSpec):
        """A chart of the one table: W&B would log one for each chart."""

        table_key = TABLE

    rows = layer_table(history)
    found: dict[str, Any] = {TABLE: rows}
    for name in SPREAD:
        if any(row.measured and getattr(row, name) == getattr(row, name) for row in history):
            fields = {"step": "epoch", "lineKey": "layer", "lineVal": name}
            words = {"title": f"{name} by layer", "xname": axis}
            found[f"nfa/{name}/layers"] = CustomChart(rows, OfLayers("wandb/lineseries/v0", fields, words))
    return found


def layer_media(pictures: Sequence[LayerPicture]) -> dict[str, Any]:
    """Feature matrices, filters and eigenvectors as lists of images, whose captions name the layers."""
    kinds = {
        "matrices": {"nfm": "NFM", "agop": "AGOP"},
        "filters": {"filters": "filters"},
        "eigenvectors": {"nfm_eigenvectors": "NFM", "agop_eigenvectors": "AGOP"},
    }
    media: dict[str, Any] = {}
    for key, shown in kinds.items():
        draw, side = (heatmap, MATRIX_SIDE) if key == "matrices" else (tile, TILES_SIDE)
        images = [
            image(draw(values), f"{picture.layer}: {words}", side)
            for picture in pictures
            for attribute, words in shown.items()
            if (values := getattr(picture, attribute)) is not None
        ]
        if images:
            media[f"nfa/pictures/{key}"] = images
    return media


def image(rgb: Tensor, caption: str, side: int) -> Any:
    """A picture (h, w, 3) as an image of W&B, ``side`` by ``side`` pixels, white where it is no square."""
    import wandb

    return wandb.Image(_on_square(rgb, side).numpy(), mode="RGB", caption=caption)


def _on_square(rgb: Tensor, side: int) -> Tensor:
    longest = max(rgb.shape[:2])
    height, width = (max(size * side // longest, 1) for size in rgb.shape[:2])
    rows, columns = (
        torch.arange(new) * old // new for new, old in zip((height, width), rgb.shape[:2], strict=True)
    )
    square = rgb.new_full((side, side, 3), _PAPER)
    square[:height, :width] = rgb[rows][:, columns]
    return square


def spectra(pictures: Sequence[LayerPicture]) -> dict[str, Any]:
    """One chart: logarithms of the leading eigenvalues over the greatest, up to the numerical rank."""
    import wandb

    spectra = {
        f"{picture.layer} {name}": _relative_logs(values)
        for picture in pictures
        for name, values in (("NFM", picture.nfm_spectrum), ("AGOP", picture.agop_spectrum))
        if values is not None
    }
    lines = {name: line for name, line in spectra.items() if line}
    if not lines:
        return {}
    chart = wandb.plot.line_series(
        xs=[list(range(1, len(line) + 1)) for line in lines.values()],
        ys=list(lines.values()),
        keys=list(lines),
        title="log10 of eigenvalues over the greatest",
        xname="index",
        split_table=True,
    )
    return {"nfa/spectrum/layers": chart}


def _relative_logs(eigenvalues: Tensor) -> list[float]:
    values = eigenvalues[:_EIGENVALUES].detach().cpu().double()
    return (values[values > _NUMERICAL_RANK * values.max()] / values.max()).log10().tolist()
