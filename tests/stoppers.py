"""Callbacks that disturb a run at a chosen step, as a user or a cluster would."""

import os
import shutil
import signal
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback


class SignalAt(Callback):
    """Send a signal to the own process in the middle of training."""

    def __init__(self, step, name):
        self.step, self.signal = step, getattr(signal, name)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signal)


class BreakAt(Callback):
    """Damage the weights in the middle of training."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.network.parameters()).fill_(float("nan"))


class LoseWandb(Callback):
    """Kill the process that W&B talks to in the middle of training."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            (service,) = (p for p in Path("/proc").glob("[0-9]*/cmdline") if _is_own_wandb(p))
            os.kill(int(service.parent.name), signal.SIGKILL)


def _is_own_wandb(cmdline):
    """Whether a process is the W&B service that this process started."""
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(b"wandb-core") and str(os.getpid()).encode() in words


class ReplaceFolder(Callback):
    """Put a file where a folder was, in the middle of training."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            shutil.rmtree(self.path)
            with open(self.path, "w") as handle:
                handle.write("in the way")


class KillOnce(Callback):
    """End the process without warning in one training of a sweep; a file holds how many come before it."""

    def __init__(self, step, marker):
        self.step, self.marker = step, Path(marker)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != self.step or not self.marker.exists():
            return
        left = int(self.marker.read_text())
        if left:
            self.marker.write_text(str(left - 1))
        else:
            self.marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class KeepTested(Callback):
    """Write the weights that the test used, beside the run folder."""

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        torch.save(pl_module.network.state_dict(), "tested.pt")


class HalveAtEnd(Callback):
    """Change the weights after the last epoch."""

    def on_train_end(self, trainer, pl_module):
        _scale(pl_module, 0.5)


class SwapInForTest(Callback):
    """Put other weights in for the test alone, at one of its hooks, as an average of weights does."""

    def __init__(self, hook="on_test_start"):
        setattr(self, hook, lambda trainer, pl_module: _scale(pl_module, 0.5))

    def on_test_end(self, trainer, pl_module):
        _scale(pl_module, 2.0)


def _scale(pl_module, factor):
    with torch.no_grad():
        for parameter in pl_module.network.parameters():
            parameter.mul_(factor)
