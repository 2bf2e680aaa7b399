"""``checkpoints/last.ckpt``: the state after the last whole epoch, enough to go on to the same weights."""

import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from callbacks.final import FinalNetwork
from models.base import TRAINED_STATE
from nfa import NfaError, processes


class LastCheckpoint(FinalNetwork, Checkpoint):
    """Save the start of training and the end of every epoch, whole or not at all, random states included.

    A run that is stopped anywhere, and resumed from this file, repeats the epoch it was in and reaches the
    weights of an uninterrupted run: data order and augmentation are functions of (seed, epoch), and the
    states of the global generators (dropout) are restored from the file, on each rank its own.

    In the end its ``state_dict`` is of the network that is tested. Where that is not what the last epoch
    left, the latter is kept beside it, for whoever trains further.
    """

    def __init__(self, dirpath: str | os.PathLike):
        self.path = Path(dirpath) / "last.ckpt"
        self._states: list[dict[str, Any]] | None = None
        self._ended = False  # what is saved is the last epoch of its training

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the saved random states back, or save the start of a new run."""
        if self._states is None:
            self._save(trainer)
            return
        if trainer.is_global_zero:
            self._take_along(Path(trainer.ckpt_path))
        _restore_random_states(self._states[trainer.global_rank % len(self._states)])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the finished epoch, and whether it is the last one."""
        progress = trainer.fit_loop.epoch_progress.current
        completed = progress.completed
        self._ended = trainer.fit_loop.done
        progress.completed = completed  # `done` runs ahead of it
        self._save(trainer)

    def conclude(self, trainer: pl.Trainer, pl_module: pl.LightningModule, digest: str) -> None:
        """Put the weights that are tested into the file, where others are in it."""
        if not trainer.is_global_zero or not self.path.is_file():
            return
        saved = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        tested = {name: value.detach().cpu() for name, value in pl_module.state_dict().items()}
        if _same(tested, saved["state_dict"]):
            return
        trained = saved.pop(TRAINED_STATE, saved["state_dict"])
        saved["state_dict"] = tested
        if not _same(tested, trained):
            saved[TRAINED_STATE] = trained
        self._replace(lambda partial: torch.save(saved, partial))

    def state_dict(self) -> dict[str, Any]:
        """Random states of every rank, and whether training ended here."""
        return {"random_states": processes.told_by_all(_random_states()), "ended": self._ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: set-up in between may draw numbers."""
        states = state_dict.get("random_states")
        now = _random_states()
        try:
            for state in states:
                _restore_random_states(state)
            if not states:
                raise ValueError("there are none")
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise NfaError(f"the checkpoint has no random states to go on from ({reason})") from None
        finally:
            _restore_random_states(now)
        self._states = states

    def _take_along(self, origin: Path) -> None:
        """Begin with the checkpoint that training goes on from, where it comes from elsewhere."""
        if origin.resolve() != self.path.resolve():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._replace(lambda partial: shutil.copyfile(origin, partial))

    def _save(self, trainer: pl.Trainer) -> None:
        self._replace(trainer.save_checkpoint, lead=trainer.is_global_zero)

    def _replace(self, write: Callable[[Path], Any], *, lead: bool = True) -> None:
        partial = self.path.with_suffix(".partial")
        try:
            if lead:
                partial.unlink(missing_ok=True)  # through a link something else would be overwritten
            write(partial)
        except OSError as error:  # of a file in the temporary folder, or of a full disk here
            partial.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        if lead:
            os.replace(partial, self.path)


def _same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


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
