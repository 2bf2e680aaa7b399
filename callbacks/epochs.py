"""The number of a network while it trains: how many epochs made it, the same in every file and logger."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger


def epochs_trained(trainer: pl.Trainer) -> float:
    """Epochs behind the network as it is now, with the share of the one that runs; of kernel machines rounds.

    0 before training. What validates after the last batch of the first epoch is the network of epoch 1, as
    is what the epoch ends with. An epoch that is cut short counts as one at its end.
    """
    loop = trainer.fit_loop
    epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
    if epochs.ready == epochs.completed:  # between two epochs, before the first, or after the last
        return float(epochs.completed)
    if epochs.processed > epochs.completed or loop.epoch_loop.done:
        return epochs.completed + 1.0
    return epochs.completed + batches.ready / trainer.num_training_batches


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
