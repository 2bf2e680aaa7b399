"""What a configuration names, built: data, callbacks, logger, trainer."""

from collections.abc import Mapping, Sequence
from typing import Any

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks import AnsatzMonitor, EpochNumbers, LastCheckpoint, RunFolder, progress_options
from callbacks.sinks import sink_of
from datamodules import TensorDataModule
from lab.describe import trainer_options
from lab.in_use import options_in_use
from lab.job import Job
from nfa import NfaError
from nfa.terminal import say

_NEEDED = ("prepare_data", "setup", "train_dataloader", "probe", "fingerprint", "summary")  # of data


def build_data(config: DictConfig) -> TensorDataModule:
    """The data, prepared and split; what there is to remark of them is said.

    Raises:
        NfaError: the lab cannot take its data from it; the message names what is missing.
    """
    data = instantiate(config)
    missing = [name for name in _NEEDED if not hasattr(data, name)]
    if missing:
        raise NfaError(
            f"data._target_ must give a datamodules.TensorDataModule, got {type(data).__name__}, which "
            f"has no {missing[0]}: let it inherit that, and implement load()"
        )
    data.prepare_data()
    data.setup()
    if getattr(rank_zero_only, "rank", 0) == 0:
        for line in getattr(data, "remarks", list)():
            say(line)
    return data


def build_callbacks(config: DictConfig | None, job: Job) -> list[pl.Callback]:
    """The callbacks that are named; those that measure come last, and see what the others did.

    Args:
        config: their options, by name.
        job: that they are for.
    """
    wanted = [callback for callback in (config or {}).values() if callback and "_target_" in callback]
    callbacks = [instantiate(callback) for callback in wanted]  # an experiment may set options of others
    for callback in callbacks:
        if job.sweep and isinstance(callback, AnsatzMonitor):
            callback.be_one_of_many()
    return sorted(callbacks, key=lambda callback: isinstance(callback, AnsatzMonitor))


def build_logger(
    config: DictConfig | None, kind: str, job: Job, description: Mapping[str, Any] | None = None
) -> Any:
    """The logger; False where there is none.

    Args:
        config: its options.
        kind: of the model, ``net`` or ``kernel``.
        job: that it is for.
        description: what the run is, in plain values.
    """
    if not config:
        return False
    logger = instantiate(config)
    sink_of(logger).file_under(kind, job.sweep.name if job.sweep else None, description)
    return logger


def build_trainer(
    cfg: DictConfig, logger: Any, folder: RunFolder, callbacks: Sequence[pl.Callback], kind: str
) -> pl.Trainer:
    """The trainer; its logger has got the options of the run.

    Args:
        cfg: all options.
        logger: as `build_logger` gives it.
        folder: that the run writes.
        callbacks: beside those of every run.
        kind: of the model, ``net`` or ``kernel``.
    """
    options = progress_options()
    measuring = [callback for callback in callbacks if isinstance(callback, AnsatzMonitor)]
    others = [callback for callback in callbacks if callback not in measuring]  # what they log is shown
    own = [folder, EpochNumbers(), LastCheckpoint(folder.path / "checkpoints")]
    options["callbacks"] = [*others, *options["callbacks"], *measuring, *own]
    trainer = instantiate(trainer_options(cfg), logger=logger, **options)
    if logger:
        logger.log_hyperparams(options_in_use(cfg, kind))
    return trainer


def instantiate(config: Mapping[str, Any], **extra: object) -> Any:
    """Build what a ``_target_`` names; a mistake of the user keeps its own one-line message."""
    target = config["_target_"]
    try:
        return hydra.utils.instantiate(config, _convert_="all", **extra)
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, NfaError | MisconfigurationException):
            raise cause from None
        if "Error locating target" in str(error):
            raise NfaError(f"cannot import {target}: {cause or error}") from None
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None
        ours = target.split(".")[0] in ("callbacks", "datamodules", "pytorch_lightning")
        if ours or (isinstance(cause, TypeError) and "argument" in str(cause)):
            raise NfaError(f"cannot build {target} with these options: {cause or error}") from error
        raise
