"""Somebody's project on lightning 2.x: a recurrent network without a forward, accumulated gradients."""

import sys

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Waves(Dataset):
    """Sine waves whose next value is asked for."""

    def __len__(self):
        return 64

    def __getitem__(self, i):
        wave = torch.sin(0.3 * (i % 5 + 1) * torch.arange(13.0) + torch.rand(1))
        return wave[:12, None], wave[12:]


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(1, 12, batch_first=True)
        self.head = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Task(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Forecaster()
        self.loss = nn.MSELoss()

    def training_step(self, batch, batch_idx):
        return self.loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


def main(measure):
    L.seed_everything(1)
    callbacks = []
    if measure:  # nfa
        from nfa.integrations.lightning import AnsatzMonitor  # nfa

        monitor = AnsatzMonitor(every_n_epochs=2, samples=32)  # nfa
        callbacks.append(monitor)  # nfa
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", devices=1, accumulate_grad_batches=2, callbacks=callbacks,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, gradient_clip_val=1.0,
    )  # fmt: skip
    task = Task()
    trainer.fit(task, DataLoader(Waves(), batch_size=8, shuffle=True))
    if measure:  # nfa
        print(monitor.report)  # nfa
        print(sorted({row.epoch for row in monitor.history}))  # nfa
    return [*task.state_dict().values(), torch.rand(2)]


if __name__ == "__main__":
    left = main("measure" in sys.argv)
    print("left behind:", *(float(value.double().sum()).hex() for value in left))
