"""Progress on the console: a rich bar on a terminal, one plain line an epoch anywhere else."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar


class EpochLines(Callback):
    """Print one line an epoch."""

    def __init__(self):
        self._start = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print epoch, metrics and seconds."""
        values = trainer.callback_metrics  # summed over the ranks when first asked for: all of them must ask
        if not trainer.is_global_zero:
            return
        shown = {k: v for k, v in sorted(values.items()) if not k.startswith(("round/", "features/"))}
        metrics = "  ".join(f"{k} {float(v):.4g}" for k, v in shown.items())
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        seconds = time.perf_counter() - self._start
        print(f"epoch {trainer.current_epoch + 1}/{epochs}  {metrics}  ({seconds:.1f} s)", flush=True)


def progress_options() -> dict[str, Any]:
    """Trainer options: a `RichProgressBar` on a terminal, `EpochLines` elsewhere."""
    on_terminal = sys.stdout.isatty()
    bar = RichProgressBar(leave=False) if on_terminal else EpochLines()
    return {"callbacks": [bar], "enable_progress_bar": on_terminal}
