"""Training by whole epochs, whatever it is limited by."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import StochasticWeightAveraging
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.loops.progress import _ProcessedTracker


class _WholeEpochs(_FitLoop):
    """A loop whose checkpoints are of whole epochs: what follows one is the next epoch, or the end.

    By itself, a trainer with ``max_steps`` takes any checkpoint to be one of the middle of an epoch.

    Args:
        trainer: it is for.
        trained: training starts and ends, with all that goes with that, and without an epoch.
    """

    def __init__(self, trainer: pl.Trainer, trained: bool):
        super().__init__(trainer, min_epochs=trainer.min_epochs, max_epochs=trainer.max_epochs)
        self.epoch_loop = trainer.fit_loop.epoch_loop
        self.trained = trained

    @property
    def done(self) -> bool:
        """Whether to leave the loop."""
        now = self.epoch_progress.current
        if self.trained and isinstance(now, _ProcessedTracker):
            now.completed = now.processed  # the epoch in whose last hook it was saved counts
        return self.trained or super().done

    @property
    def skip(self) -> bool:
        """Whether to leave out start and end as well."""
        return not self.trained and super().skip

    def _iteration_based_training(self) -> bool:
        return False


def train_by_epochs(trainer: pl.Trainer, *, trained: bool = False) -> None:
    """Let ``trainer.fit`` go on from whole epochs; if ``trained``, with what follows the last one."""
    trainer.fit_loop = _WholeEpochs(trainer, trained)
    for callback in vars(trainer)["callbacks"] if trained else ():
        if isinstance(callback, StochasticWeightAveraging):  # its own last epoch would have kept it
            callback._accumulate_grad_batches = trainer.accumulate_grad_batches
