"""Rows, pictures and files to a Weights & Biases run. `wandb_layers` and this file alone know ``wandb``.

There is one axis, ``epoch`` (of kernel machines the round): a network has one number, for what the trainer
logs and for what is measured. Nothing is ever logged with a step: a sync, or a resumed run, keeps its order.
"""

import configparser
import contextlib
import logging
import math
import netrc
import os
import re
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfa.ansatz.curves import summary_metrics
from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import AUDIT_COLUMNS, AnsatzRow
from nfa.ansatz.words import plain
from nfa.errors import NfaError
from nfa.integrations.wandb_layers import (
    MATRIX_SIDE,
    TABLE,
    image,
    layer_charts,
    layer_media,
    spectra,
    table,
)
from nfa.page.raster import heatmap
from nfa.terminal import typed

if TYPE_CHECKING:
    from wandb import Artifact, Run

    from nfa.compare import Comparison
    from nfa.compare.similarity import FeatureSpace

AXIS = "epoch"
PATTERNS = ("train/*", "val/*", "test/*", "features/*", "round/*", "nfa/*")
_NOT_DRAWN = (AXIS, "trainer/global_step")


def define_axes(
    run: "Run", axis: str = AXIS, patterns: Sequence[str] = PATTERNS, hidden: Sequence[str] = _NOT_DRAWN
) -> None:
    """Plot what is logged against ``axis``; what is ``hidden`` gets no chart itself.

    No name may match two patterns: W&B takes either of them, by chance.
    """
    for name in hidden:
        run.define_metric(name, hidden=True)
    for pattern in patterns:
        run.define_metric(pattern, step_metric=axis)


def log_measurement(
    run: "Run",
    rows: Sequence[AnsatzRow],
    epoch: float,
    axis: str = "epoch",
) -> None:
    """Log the curves of one measurement: `summary_metrics` against the axis."""
    run.log({**summary_metrics(rows), axis: epoch})


def log_layers(run: "Run", history: Sequence[AnsatzRow], epoch: float, axis: str = "epoch") -> None:
    """Log all rows, of all measurements, as one table, and charts of it with a line a layer."""
    run.log({**layer_charts(history, axis), axis: epoch})


def log_pictures(run: "Run", pictures: Sequence[LayerPicture], epoch: float) -> None:
    """Log heatmaps, filters and eigenvectors as images, and the spectra as one chart."""
    if media := {**layer_media(pictures), **spectra(pictures)}:
        run.log({"epoch": epoch, **media})


def has_grown(measurements: int, drawn: int) -> bool:
    """Whether the table of all layers is to be logged anew: all tables together stay eleven times the last.

    Args:
        measurements: behind the network by now.
        drawn: how many of them the last table had.
    """
    return measurements >= 1.1 * drawn


def log_results(
    run: "Run", summary: Mapping[str, object], page: Path, features: Path, largest_mb: float
) -> None:
    """Log what a finished run left in its folder.

    Args:
        run: that logged the training.
        summary: becomes that of the W&B run; names of model and data are among its configuration, too.
        page: logged as media ``report``.
        features: becomes an artifact of type ``features``, named after the run, if there is such a file; it
            is not copied, but uploaded from where it is.
        largest_mb: a larger file of features is left out, with a warning.
    """
    import wandb

    told = {name: summary.get(name) for name in ("model", "data", "seed")}
    run.config.update({f"{name}_name": told[name] for name in ("model", "data")}, allow_val_change=True)
    run.summary.update({name: plain(value) for name, value in summary.items()})
    run.log({"report": wandb.Html(str(page), inject=False)})
    if not features.is_file():
        return
    if (size := features.stat().st_size / 1e6) > largest_mb:
        warnings.warn(
            f"{features} has {size:.3g} MB and is not uploaded to W&B: logger.max_artifact_mb is "
            f"{largest_mb:g}",
            stacklevel=2,
        )
        return
    artifact = wandb.Artifact(f"features-{run.id}", type="features", metadata=told)
    artifact.add_file(str(features.resolve()), name=features.name, policy="immutable", skip_cache=True)
    run.log_artifact(artifact)


# -- an audit or a comparison, in a run of its own ---------------------------------------------------


def log_audit(
    project: str,
    name: str,
    rows: Sequence[AnsatzRow],
    pictures: Sequence[LayerPicture] = (),
    meta: Mapping[str, object] | None = None,
    files: Iterable[str | os.PathLike] = (),
    *,
    directory: str | os.PathLike = ".",
    group: str | None = None,
) -> tuple[Path, str]:
    """Log an audit to Weights & Biases, in a run of its own; silently, and without asking for anything.

    ``WANDB_MODE`` decides whether the run is online; where it is not set, the run is online with an API key,
    from the environment or ``wandb login``, and else offline. Where W&B cannot be reached there is a warning,
    and the run is offline. Another run of this process is left alone.

    Args:
        project: of the run.
        name: of the run.
        rows: become the summary metrics of `summary_metrics`, and the table ``nfa/layers``.
        pictures: logged as images.
        meta: configuration of the run.
        files: like ``audit.csv`` and ``audit.html``: uploaded together as one artifact; pages are shown too.
        directory: gets the folder ``wandb/``.
        group: of the run.

    Returns:
        The folder of the run, and the command that uploads it or, online, its address; an empty text where
        ``WANDB_MODE`` is ``disabled``.

    Raises:
        NfaError: wandb is not installed, or a file does not exist.
    """

    def fill(run: "Run") -> None:
        run.summary.update(summary_metrics(rows))
        columns = (*AUDIT_COLUMNS, "verdict")
        by_layer = table(columns, ([getattr(row, column) for column in columns] for row in rows))
        run.log({**layer_media(pictures), **spectra(pictures), TABLE: by_layer})

    told = plain(meta or {})
    start = {"project": project, "name": name, "group": group, "job_type": "audit", "config": told}
    return _log_alone("audit", start, fill, files, directory, default_mode())


def log_comparison(
    project: str,
    name: str,
    group: str | None,
    comparison: "Comparison",
    files: Iterable[str | os.PathLike] = (),
    *,
    directory: str | os.PathLike = ".",
    mode: str = "auto",
) -> tuple[Path, str]:
    """Log a comparison of runs, in a run of its own, as `log_audit` does an audit.

    There are the tables ``comparison/groups``, a row a model, and ``comparison/similarity``, a row a pair of
    models and kind of feature matrix, and the images ``similarity/cosine`` and ``similarity/alignment``, one
    a kind of matrix, whose captions name the rows.

    Args:
        project: of the run.
        name: of the run.
        group: that its runs are in, too.
        comparison: what was found.
        files: like ``comparison.csv`` and ``comparison.html``: one artifact, pages as media.
        directory: gets the folder ``wandb/``.
        mode: ``online``, ``offline`` or ``disabled``, as the runs were logged; ``auto`` as in `log_audit`.

    Returns:
        As `log_audit`.

    Raises:
        NfaError: wandb is not installed, or a file does not exist.
    """
    runs = [str(run.path) for run in comparison.runs]
    meta = {"data": comparison.data, "metric": comparison.metric, "runs": runs}
    start = {"project": project, "name": name, "group": group, "job_type": "compare", "config": meta}
    mode = default_mode() if mode == "auto" else mode
    return _log_alone("comparison", start, lambda run: run.log(_compared(comparison)), files, directory, mode)


def _compared(comparison: "Comparison") -> dict[str, object]:
    columns = ("label", "kind", "runs", comparison.metric, "sd", "fit_seconds", "fit_memory_mb",
               "num_parameters", "alignment", "cosine", "null_mean", "layers_above_null",
               "layers_with_z")  # fmt: skip
    groups = (
        (
            group.label,
            "kernel" if group.is_kernel else "net",
            len(group.runs),
            group.score,
            group.score_std,
            *(group.number(column) for column in columns[5:8]),
            *(group.ansatz(column) for column in columns[8:11]),
            *group.above_null,
        )
        for group in comparison.groups
    )
    pairs = (
        (space.name, a, b, *(space.between(a, b, values) for values in numbers))
        for space in comparison.spaces
        for numbers in [(space.cosine, space.null_mean, space.null_std, space.z)]
        for a, b in combinations_with_replacement(space.labels, 2)
        if not math.isnan(space.between(a, b, space.cosine))
    )
    found: dict[str, object] = {
        "comparison/groups": table(columns, groups),
        "comparison/similarity": table(("space", "a", "b", "cosine", "null_mean", "null_sd", "z"), pairs),
    }
    for kind in ("cosine", "alignment"):
        images = [
            image(heatmap(getattr(space, kind)), _named(space), MATRIX_SIDE) for space in comparison.spaces
        ]
        if images:
            found[f"similarity/{kind}"] = images
    return found


def _named(space: "FeatureSpace") -> str:
    return f"{space.name}: {', '.join(f'{m.label} {m.replicate}' for m in space.members)}"


def _log_alone(
    what: str,
    start: Mapping[str, object],
    fill: Callable[["Run"], None],
    files: Iterable[str | os.PathLike],
    directory: str | os.PathLike,
    mode: str,
) -> tuple[Path, str]:
    """Log ``what`` there is to a run of its own, beside any other of this process."""
    try:
        import wandb
    except ImportError as error:
        raise NfaError(f"logging to W&B needs wandb ({error}): pip install wandb") from None
    paths = [Path(file) for file in files]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise NfaError(f"no such file: {', '.join(missing)}")
    Path(directory).mkdir(parents=True, exist_ok=True)
    run = start_run(
        mode,
        {"console": "off"},
        **start,
        dir=str(directory),
        reinit="create_new",
    )
    try:
        fill(run)
        pages = {path.stem: wandb.Html(str(path), inject=False) for path in paths if path.suffix == ".html"}
        if paths:
            run.log(pages)
            _log_files(wandb.Artifact(_slug(f"{what}-{start['name']}"), type=what), run, paths)
    except OSError as error:
        warnings.warn(f"the W&B run of the {what} is not complete: {error}", stacklevel=3)
    finally:
        run.finish()
    folder = Path(run.dir).parent
    if run.disabled:
        return folder, ""
    return folder, f"{typed('wandb')} sync {os.path.relpath(folder)}" if run.offline else str(run.url)


def _log_files(artifact: "Artifact", run: "Run", paths: Sequence[Path]) -> None:
    for path in paths:
        artifact.add_file(str(path), name=path.name)  # W&B copies it into its own data folder
    run.log_artifact(artifact)


def _slug(name: str) -> str:
    """W&B allows letters, digits, dashes, underscores and dots, 128 of them."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:128]


# -- how a run is started ----------------------------------------------------------------------------


_FILED_UNDER = {"entity", "project", "disabled", "mode"}  # of settings in a folder: nothing is sent elsewhere


def default_mode() -> str:
    """``WANDB_MODE`` or, where that is not set, ``online`` with an API key and ``offline`` without."""
    return os.environ.get("WANDB_MODE") or ("online" if has_account() else "offline")


def start_run(mode: str, settings: Mapping[str, object] | None = None, **options: Any) -> "Run":
    """``wandb.init``, quietly and without asking; offline, with a warning, where it cannot be online.

    Args:
        mode: ``online``, ``offline`` or ``disabled``.
        settings: further ones of ``wandb.Settings``.
        **options: of ``wandb.init``.
    """
    import wandb

    if mode == "online" and not has_account():
        warnings.warn("W&B has no API key; logging offline", stacklevel=3)
        mode = "offline"
    quiet = {"silent": True, "init_timeout": 20, "finish_timeout": 60, "finish_timeout_raises": False}

    def init(mode: str) -> "Run":
        known = wandb.Settings.model_validate({**quiet, **(settings or {})})
        run = wandb.init(**{**options, "mode": mode}, settings=known)
        for handler in logging.getLogger("wandb").handlers:  # of debug.log: a traceback a line on a full disk
            vars(handler)["handleError"] = lambda record: None
        return run

    if mode != "online":
        return init(mode)
    try:
        return init(mode)
    except Exception as error:
        warnings.warn(f"W&B cannot be reached ({first_line(error)}); logging offline", stacklevel=3)
        return init("offline")


def first_line(error: Exception) -> str:
    """An error of W&B in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def has_account() -> bool:
    """Whether there is an API key in the environment or, from ``wandb login``, in the netrc file.

    Not so, with a warning, where W&B's settings of the folder one stands in say more than it decides.
    """
    if deciding := _settings_here():
        warnings.warn(
            f"wandb/settings in {os.getcwd()} sets {', '.join(deciding)}, which could send the API key "
            "elsewhere; logging offline. Use wandb login --host, or WANDB_BASE_URL, for a server of your own",
            stacklevel=2,
        )
        return False
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlparse(_server()).hostname
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    return False


def _server() -> str:
    """Address of the server that the user, and not a folder, has chosen."""
    home = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser() / "settings"
    chosen = os.environ.get("WANDB_BASE_URL") or _read_settings(home).get("base_url")
    return (chosen or "https://api.wandb.ai").rstrip("/")


def _settings_here() -> list[str]:
    """What W&B's settings of the working folder say that is more than where a run is filed."""
    found = [_read_settings(Path(name) / "settings") for name in ("wandb", ".wandb")]
    server = [settings.pop("base_url", _server()).rstrip("/") for settings in found]
    keys = {key for settings in found for key in settings} - _FILED_UNDER
    return sorted(keys | ({"base_url"} if set(server) != {_server()} else set()))


def _read_settings(path: Path) -> dict[str, str]:
    """What a settings file of W&B says; where it cannot be read, that it says something."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        if path.exists():
            parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return {"what cannot be read": ""}
    return {key: value for section in parser.values() for key, value in section.items()}
