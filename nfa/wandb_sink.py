"""Rows and pictures to a Weights & Biases run. The only file of the library that knows ``wandb``.

Ansatz metrics have an axis of their own, ``nfa/epoch``, and are never logged with a step: a sync of
several runs, or a resumed one, keeps its order.
"""

import contextlib
import netrc
import os
import re
import urllib.parse
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfa.errors import NfaError
from nfa.page.images import heatmap, tile
from nfa.report import LayerPicture, plain
from nfa.rows import AUDIT_COLUMNS, TRAIN_COLUMNS, AnsatzRow

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
    run.log({"nfa/epoch": epoch, **_media(pictures)})


def _media(pictures: Sequence[LayerPicture]) -> dict[str, Any]:
    import wandb

    media: dict[str, Any] = {}
    for picture in pictures:
        for kind, matrix in (("nfm", picture.nfm), ("agop", picture.agop)):
            if matrix is not None:
                media[f"nfa/{kind}/{picture.layer}"] = wandb.Image(heatmap(matrix).numpy(), mode="RGB")
        for kind in ("filters", "nfm_eigenvectors", "agop_eigenvectors"):
            if getattr(picture, kind) is not None:
                pixels = tile(getattr(picture, kind)).numpy()
                media[f"nfa/{kind}/{picture.layer}"] = wandb.Image(pixels, mode="RGB")
    return media


def log_table(run: Any, history: Iterable[AnsatzRow]) -> None:
    """Log all rows as one table, a row a layer and epoch."""
    run.log({"nfa/table": _table(history, TRAIN_COLUMNS)})


def _table(rows: Iterable[AnsatzRow], columns: Sequence[str]) -> Any:
    import wandb

    table = wandb.Table(columns=list(columns))
    for row in rows:
        values = (getattr(row, column) for column in columns)
        table.add_data(*(None if value != value else value for value in values))
    return table


# -- an audit, in a run of its own -------------------------------------------------------------------


def log_audit(
    project: str,
    name: str,
    rows: Sequence[AnsatzRow],
    pictures: Sequence[LayerPicture] = (),
    meta: Mapping[str, object] | None = None,
    files: Iterable[str | os.PathLike] = (),
    *,
    directory: str | os.PathLike = ".",
) -> tuple[Path, str]:
    """Log an audit to Weights & Biases, in a run of its own; silently, and without asking for anything.

    ``WANDB_MODE`` decides whether the run is online; where it is not set, the run is online with an API key,
    from the environment or ``wandb login``, and else offline. Where W&B cannot be reached there is a warning,
    and the run is offline. Another run of this process is left alone.

    Args:
        project: of the run.
        name: of the run.
        rows: become the summary metrics ``nfa/<statistic>/<layer>``, of measured layers, and one table.
        pictures: logged as images.
        meta: configuration of the run.
        files: like ``audit.csv`` and ``audit.html``: uploaded together as one artifact.
        directory: gets the folder ``wandb/``.

    Returns:
        The folder of the run, and the command that uploads it or, online, its address; an empty text where
        ``WANDB_MODE`` is ``disabled``.

    Raises:
        NfaError: wandb is not installed, or a file does not exist.
    """
    try:
        import wandb
    except ImportError as error:
        raise NfaError(f"logging to W&B needs wandb ({error}): pip install wandb") from None
    paths = [Path(file) for file in files]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise NfaError(f"no such file: {', '.join(missing)}")
    start = {"project": project, "name": name, "job_type": "audit", "config": plain(dict(meta or {}))}
    run = _started(wandb, start, Path(directory))
    try:
        run.summary.update(metrics_of(rows))
        run.log({**_media(pictures), "nfa/table": _table(rows, (*AUDIT_COLUMNS, "verdict"))})
        if paths:
            _log_files(wandb, run, _artifact_name(name), paths)
    finally:
        run.finish()
    folder = Path(run.dir).parent
    if run.disabled:
        return folder, ""
    return folder, f"wandb sync {os.path.relpath(folder)}" if run.offline else str(run.url)


def _log_files(wandb: Any, run: Any, name: str, paths: Sequence[Path]) -> None:
    artifact = wandb.Artifact(name, type="audit")
    try:
        for path in paths:
            artifact.add_file(str(path), name=path.name)  # W&B copies it into its own data folder
    except OSError as error:
        warnings.warn(f"the files of the audit are not in the W&B run: {error}", stacklevel=3)
        return
    run.log_artifact(artifact)


def _started(wandb: Any, start: dict[str, Any], directory: Path) -> Any:
    """Start a run beside any other; offline where that cannot be online."""
    mode = os.environ.get("WANDB_MODE") or ("online" if has_account() else "offline")
    if mode == "online" and not has_account():
        warnings.warn("W&B has no API key; logging offline", stacklevel=3)
        mode = "offline"
    directory.mkdir(parents=True, exist_ok=True)
    options = {"silent": True, "console": "off", "init_timeout": 20, "finish_timeout": 60}

    def init(mode: str) -> Any:
        settings = wandb.Settings(**options, finish_timeout_raises=False)
        return wandb.init(**start, dir=str(directory), mode=mode, settings=settings, reinit="create_new")

    if mode != "online":
        return init(mode)
    try:
        return init(mode)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"W&B cannot be reached ({reason}); logging offline", stacklevel=3)
        return init("offline")


def has_account() -> bool:
    """Whether there is an API key in the environment or, from ``wandb login``, in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    return False


def _artifact_name(name: str) -> str:
    """W&B allows letters, digits, dashes, underscores and dots, 128 of them."""
    return re.sub(r"[^\w.-]+", "-", f"audit-{name}", flags=re.ASCII)[:128]
