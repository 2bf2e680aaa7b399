"""Somebody's project on pytorch_lightning: a datamodule, a module that logs, a checkpoint."""

import sys
import tempfile

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Images(pl.LightningDataModule):
    def setup(self, stage=None):
        x = torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        data = TensorDataset(x, (x[:, 0].mean((1, 2)) > 0).long())
        self.train, self.val = torch.utils.data.random_split(data, [64, 16])

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=16)


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3),
            nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 2),
        )  # fmt: skip

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(measure):
    pl.seed_everything(1)
    callbacks = [pl.callbacks.ModelCheckpoint(monitor="val_accuracy", mode="max")]
    if measure:  # nfa
        from nfa.integrations.lightning import AnsatzMonitor  # nfa

        monitor = AnsatzMonitor(samples=32)  # nfa
        callbacks.append(monitor)  # nfa
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=3, accelerator="cpu", devices=1, callbacks=callbacks, default_root_dir=folder,
            logger=pl.loggers.CSVLogger(folder), log_every_n_steps=1, enable_progress_bar=False,
        )  # fmt: skip
        model = Classifier()
        trainer.fit(model, datamodule=Images())
    if measure:  # nfa
        print(monitor.report)  # nfa
        print(sorted({row.epoch for row in monitor.history}))  # nfa
    return [*model.state_dict().values(), torch.rand(2)]


if __name__ == "__main__":
    left = main("measure" in sys.argv)
    print("left behind:", *(float(value.double().sum()).hex() for value in left))
