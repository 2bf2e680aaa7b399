"""The datamodules under a real Trainer."""

import pytest
import pytorch_lightning as pl
import torch

from datamodules import Digits

pytestmark = [
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6 with torch 2.15
]


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        self.seen = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append((self.current_epoch, batch_idx, y.tolist()))
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class SaveEverywhere(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def save(self, trainer, when):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}-{when}.ckpt")

    def on_train_batch_end(self, trainer, *_):
        self.save(trainer, "batch")

    def on_validation_end(self, trainer, _):
        if not trainer.sanity_checking:
            self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, _):
        self.save(trainer, "epoch")


def fit(*callbacks, ckpt_path=None, **options):
    net = Net()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    data = Digits(n_train=200, batch_size=64, augment="shift", **options)
    trainer.fit(net, data, ckpt_path=ckpt_path)
    return net


def test_training_resumed_from_any_point_gives_the_same_weights(tmp_path):
    whole = fit(SaveEverywhere(tmp_path))
    assert [(e, i) for e, i, _ in whole.seen] == [(e, i) for e in range(3) for i in range(3)]
    orders = [y for _, i, y in whole.seen if i == 0]
    assert orders[0] != orders[1] != orders[2]  # Lightning did call set_epoch
    checkpoints = sorted(tmp_path.iterdir())
    assert len(checkpoints) == 15
    for checkpoint in checkpoints:
        resumed = fit(ckpt_path=checkpoint)
        step = int(checkpoint.name.split("-")[0])
        assert resumed.seen == whole.seen[step:]
        assert torch.equal(resumed.net[1].weight, whole.net[1].weight)


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_training_without_validation():
    assert len(fit(val_fraction=0).seen) == 12
