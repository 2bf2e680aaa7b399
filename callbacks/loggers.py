"""Weights & Biases for the lab: offline without an account, and never a reason for a run to fail."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from nfa import AnsatzRow, NfaError
from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.words import abbreviate
from nfa.integrations import wandb_sink
from nfa.integrations.wandb_sink import first_line
from nfa.terminal import typed

MODES = ("auto", "online", "offline", "disabled")
_LONGEST_NAME = 128  # that W&B stores
_LONGEST_TAG = 64  # that it takes
_JOB_TYPES = {"net": "train", "kernel": "kernel"}


class LabWandbLogger(WandbLogger):
    """A `WandbLogger` that goes offline without an account and gives up quietly when W&B breaks.

    Args:
        save_dir: folder that gets ``wandb/``; a run that is told neither a name nor what it is of is named
            after it.
        project: project name.
        mode: ``online``, ``offline``, ``disabled``; ``auto`` is online when logged in, else offline.
        max_artifact_mb: a larger ``features.safetensors`` is not uploaded.
        **options: further arguments of ``wandb.init`` (name, group, job_type, tags, …).

    Raises:
        NfaError: an unknown mode.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "nfa",
        mode: str = "auto",
        max_artifact_mb: float = 64.0,
        **options: Any,
    ):
        mode = wandb_sink.default_mode() if mode == "auto" else mode
        if mode not in (*MODES[1:], "dryrun"):
            raise NfaError(f"logger.mode (or WANDB_MODE) must be one of {', '.join(MODES)}, got {mode!r}")
        is_named = bool(options.get("name"))
        options["name"] = options.get("name") or abbreviate(Path(save_dir).name, _LONGEST_NAME) or None
        super().__init__(project=project, save_dir=save_dir, mode=mode, **options)
        self._wandb_init.pop("anonymous", None)  # passed by Lightning, deprecated by wandb
        self.max_artifact_mb = max_artifact_mb
        self.broken = False
        self._is_named = is_named
        self._drawn = 0  # measurements that the last table of layers had

    def file_under(
        self, kind: str, group: str | None = None, description: Mapping[str, Any] | None = None
    ) -> None:
        """Say what the run is of, before anything is logged; what the options say wins.

        Args:
            kind: of the model, ``net`` or ``kernel``: the job type is ``train`` or ``kernel``.
            group: of the runs that are compared: the name of the sweep's folder.
            description: ``model``, ``data``, ``seed`` and typed ``options``: the name and the tags.
        """
        chosen = self._wandb_init
        chosen["job_type"] = chosen.get("job_type") or _JOB_TYPES[kind]
        chosen["group"] = chosen.get("group") or group
        if description is not None:
            if not self._is_named:
                chosen["name"] = _short_name(description, in_sweep=group is not None)
            chosen["tags"] = chosen.get("tags") or _tags(kind, description)

    @property
    def experiment(self) -> Any:
        """The run, started when first asked for, with the axes of the lab and not those of Lightning."""
        if self._experiment is None and rank_zero_only.rank == 0:
            try:
                self._start()
            except Exception as error:
                self._give_up(error)
                self._experiment = wandb_sink.start_run("disabled")
        return super().experiment

    def _start(self) -> None:
        import wandb

        if wandb.run is None and getattr(self, "_attach_id", None) is None:
            self._experiment = wandb_sink.start_run(**self._wandb_init)
        wandb_sink.define_axes(super().experiment)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, unless W&B broke."""
        self.send(lambda run: WandbLogger.log_metrics(self, metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the configuration, unless W&B broke."""
        self.send(lambda run: WandbLogger.log_hyperparams(self, params))

    def log_measurement(
        self, rows: Sequence[AnsatzRow], epoch: float, step: int, history: Sequence[AnsatzRow] = ()
    ) -> None:
        """Log one measurement, unless W&B broke; its axis is the epoch, and no step is told.

        All layers are drawn anew where there are a tenth more measurements than when they last were.
        """
        self.send(lambda run: wandb_sink.log_measurement(run, rows, epoch))
        known = history or rows
        measurements = len({row.epoch for row in known})
        if wandb_sink.has_grown(measurements, self._drawn):
            self._drawn = measurements
            self.send(lambda run: wandb_sink.log_layers(run, known, epoch))

    def log_layers(self, pictures: Sequence[LayerPicture], history: Sequence[AnsatzRow]) -> None:
        """Log the pictures, of the last measurement, and all measurements as one table, unless W&B broke."""
        self.send(lambda run: wandb_sink.log_pictures(run, pictures, history[-1].epoch))
        self.send(lambda run: wandb_sink.log_layers(run, history, history[-1].epoch))

    @rank_zero_only
    def log_results(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Log summary, report and features of a run folder, unless W&B broke."""
        page, features = folder / "report.html", folder / "features.safetensors"
        self.send(lambda run: wandb_sink.log_results(run, summary, page, features, self.max_artifact_mb))

    def send(self, log: Callable[[Any], None]) -> None:
        """Call ``log(run)``; the first failure is a warning and ends the logging, not the training."""
        run = self.experiment
        if self.broken:
            return
        try:
            log(run)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.broken = True
        warnings.warn(
            f"W&B stopped working ({first_line(error)}); the run goes on without it. Everything is "
            "also in metrics.csv and ansatz.csv",
            stacklevel=4,
        )
        _close()

    @property
    def sync_command(self) -> str | None:
        """The command that uploads an offline run; None when there is nothing to upload."""
        run = self._experiment
        if run is None or not getattr(run, "offline", False):
            return None
        return f"{typed('wandb')} sync {os.path.relpath(os.path.dirname(run.dir))}"


def _short_name(description: Mapping[str, Any], *, in_sweep: bool) -> str:
    """``resnet digits s0``; in a sweep also the options that its jobs may differ in, ``width=8``."""
    seed = description.get("seed")
    words = [description["model"], description["data"], *([] if seed is None else [f"s{seed}"])]
    if in_sweep:
        words += [option.partition("=")[0].rpartition(".")[2] + "=" + option.partition("=")[2]
                  for option in description.get("options", ())]  # fmt: skip
    return abbreviate(" ".join(map(str, words)), _LONGEST_NAME)


def _tags(kind: str, description: Mapping[str, Any]) -> list[str]:
    """Model, data, kind and the options that were typed; each but once, as W&B wants them."""
    words = [description["model"], description["data"], kind, *description.get("options", ())]
    return list(dict.fromkeys(abbreviate(str(word), _LONGEST_TAG) for word in words if str(word)))


def finish_wandb() -> None:
    """End the W&B run of this process, if there is one: each job of a multirun gets its own."""
    error = _close()
    if error is not None:
        warnings.warn(f"W&B could not close its run ({first_line(error)})", stacklevel=2)


def _close() -> Exception | None:
    """Close the run, which writes to disk what is still held back; returns why that failed."""
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return None
    try:
        wandb.finish()
    except Exception as error:
        with contextlib.suppress(Exception):
            wandb.teardown()
        wandb.run = None  # the next job of a multirun starts a run of its own
        return error
    return None
