"""``checkpoints/last.ckpt``: the state after the last whole epoch, enough to go on to the same weights."""

import os
import random
from pathlib import Path
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Save the start of training and the end of every epoch, whole or not at all, random states included.

    A run that is stopped anywhere, and resumed from this file, repeats the epoch it was in and reaches the
    weights of an uninterrupted run: data order and augmentation are functions of (seed, epoch), and the
    states of the global generators (dropout) are restored from the file, on each rank its own.
    """

    def __init__(self, dirpath: str | os.PathLike):
        self.path = Path(dirpath) / "last.ckpt"
        self._states: list[dict[str, Any]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the saved random states back, or save the start of a new run."""
        if self._states is not None:
            _restore_random_states(self._states[trainer.global_rank % len(self._states)])
        else:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the finished epoch."""
        self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Random states of every rank."""
        state = _random_states()
        states = [state]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states = [state] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, state)
        return {"random_states": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: set-up in between may draw numbers."""
        self._states = state_dict["random_states"]

    def _save(self, trainer: pl.Trainer) -> None:
        partial = self.path.with_suffix(".partial")
        try:
            trainer.save_checkpoint(partial)
        except OSError as error:  # of a file in the temporary folder, or of a full disk here
            partial.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        if trainer.is_global_zero:
            os.replace(partial, self.path)


def _random_states() -> dict[str, Any]:
    kind, keys, *rest = numpy.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), *rest],
    }


def _restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    version, values, gauss = states["python"]
    random.setstate((version, tuple(values), gauss))
    kind, keys, *rest = states["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))
