"""Callbacks that disturb a run at a chosen step, as a user or a cluster would."""

import os
import signal

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
            import psutil

            for child in psutil.Process().children(recursive=True):
                if "wandb" in child.name():
                    child.kill()
