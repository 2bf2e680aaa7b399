"""The number of a network while it trains: how many epochs made it, the same in every file and logger."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from nfa.integrations.lightning import epochs_trained


class EpochNumbers(Callback):
    """Log `epochs_trained` to every logger, for Lightning's ``epoch``, which leaves out the one that runs."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stand between the trainer and its loggers; again, for the test, makes no difference."""
        for logger in trainer.loggers:
            logger.log_metrics = partial(_log_numbered, type(logger).log_metrics, logger, trainer)


def _log_numbered(
    log: Callable[..., None],
    logger: Logger,
    trainer: pl.Trainer,
    metrics: Mapping[str, Any],
    step: int | None = None,
) -> None:
    log(logger, {**metrics, "epoch": epochs_trained(trainer)} if "epoch" in metrics else metrics, step)
