"""Rows and pictures to a Weights & Biases run. The only file of the library that knows ``wandb``.

Ansatz metrics have an axis of their own, ``nfa/epoch``, and are never logged with a step: a sync of
several runs, or a resumed one, keeps its order.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from nfa.images import heatmap, tile
from nfa.report import LayerPicture
from nfa.rows import TRAIN_COLUMNS, AnsatzRow

STATISTICS = (
    "alignment", "z", "alpha_fit", "alpha_r",
    "cosine", "null_mean", "pearson", "offdiag", "cnfc", "init_nfm_cosine",
)  # fmt: skip


def define_axes(run: Any) -> None:
    """Plot everything under ``nfa/`` against ``nfa/epoch``."""
    run.define_metric("nfa/epoch")
    run.define_metric("nfa/*", step_metric="nfa/epoch")


def metrics_of(rows: Iterable[AnsatzRow]) -> dict[str, float]:
    """Flat metrics ``nfa/<statistic>/<layer>`` of one measurement, undefined ones left out."""
    return {
        f"nfa/{name}/{row.layer}": getattr(row, name)
        for row in rows
        if row.measured
        for name in STATISTICS
        if getattr(row, name) == getattr(row, name)
    }


def log_measurement(run: Any, rows: Iterable[AnsatzRow], epoch: float) -> None:
    """Log the metrics of one measurement."""
    run.log({**metrics_of(rows), "nfa/epoch": epoch})


def log_pictures(run: Any, pictures: Sequence[LayerPicture], epoch: float) -> None:
    """Log heatmaps, filters and eigenvectors as images, coloured here and at most 256 px wide."""
    import wandb

    media: dict[str, Any] = {"nfa/epoch": epoch}
    for picture in pictures:
        for kind, matrix in (("nfm", picture.nfm), ("agop", picture.agop)):
            if matrix is not None:
                media[f"nfa/{kind}/{picture.layer}"] = wandb.Image(heatmap(matrix).numpy(), mode="RGB")
        for kind in ("filters", "nfm_eigenvectors", "agop_eigenvectors"):
            if getattr(picture, kind) is not None:
                pixels = tile(getattr(picture, kind)).numpy()
                media[f"nfa/{kind}/{picture.layer}"] = wandb.Image(pixels, mode="RGB")
    run.log(media)


def log_table(run: Any, history: Iterable[AnsatzRow]) -> None:
    """Log all rows as one table, a row a layer and epoch."""
    import wandb

    table = wandb.Table(columns=list(TRAIN_COLUMNS))
    for row in history:
        values = (getattr(row, column) for column in TRAIN_COLUMNS)
        table.add_data(*(None if value != value else value for value in values))
    run.log({"nfa/table": table})
