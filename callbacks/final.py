"""The network that is tested: what is written at the end of a run is of it, whatever changed its weights.

Weights may change after the last epoch: the best round of a kernel machine is shown and fitted anew,
averages of weights (SWA, EMA) are moved into the network, pruning is made permanent, some average is swapped
in for the test alone.
"""

from abc import abstractmethod
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from nfa.monitor.digest import digest_of


class FinalNetwork(Callback):
    """Base of callbacks that write something of the network that is tested.

    `conclude` is called when training ends, also where no test follows, and again with the first batch of
    the test if the network is another one by then.
    """

    _concluded: str | None = None

    @abstractmethod
    def conclude(self, trainer: pl.Trainer, pl_module: pl.LightningModule, digest: str) -> None:
        """Do what is to be done with the final network.

        Args:
            trainer: in its ``fit`` or ``test``.
            pl_module: with the weights that are tested.
            digest: `digest_of` the network, that of the first process on all of them.
        """

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Conclude, once the module shows what it is tested with; other callbacks come before this one."""
        if hasattr(pl_module, "settle"):
            pl_module.settle()
        self._conclude(trainer, pl_module)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        """Conclude anew if other weights were put in for the test."""
        if batch_idx == 0 and loader == 0:
            self._conclude(trainer, pl_module)

    def _conclude(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        digest = trainer.strategy.broadcast(digest_of(pl_module.network))
        if digest != self._concluded:
            with torch.inference_mode(False), torch.enable_grad():
                self.conclude(trainer, pl_module, digest)
            self._concluded = digest
