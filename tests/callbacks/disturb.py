"""A disk that lets W&B down in the middle of training."""

import shutil
from pathlib import Path

from pytorch_lightning.callbacks import Callback


class BlockMedia(Callback):
    """Put a file where the folder of W&B's media is."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            (files,) = Path(trainer.default_root_dir).glob("wandb/offline-run-*/files")
            shutil.rmtree(files / "media", ignore_errors=True)
            (files / "media").write_text("in the way")
