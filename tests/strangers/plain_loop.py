"""Somebody's training loop: a denoising network, a schedule, mixed precision."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.up = nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1)
        self.out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.norm(self.down(x)))
        return self.out(torch.relu(self.up(self.drop(x))))


def main(measure):
    torch.manual_seed(1)
    clean = torch.randn(96, 1, 8, 8).cumsum(3)
    model = Denoiser()
    loader = DataLoader(TensorDataset(clean + torch.randn_like(clean), clean), batch_size=16, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 24)
    if measure:  # nfa
        import nfa  # nfa

        monitor = nfa.Monitor(model, loader, every=6, samples=32)  # nfa
    step = 0
    for _ in range(4):
        for noisy, target in loader:
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.mse_loss(model(noisy), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if measure:  # nfa
                monitor.step(step)  # nfa
    if measure:  # nfa
        print(monitor.report)  # nfa
        print(sorted({row.epoch for row in monitor.history}))  # nfa
    return [*model.state_dict().values(), torch.rand(2)]


if __name__ == "__main__":
    left = main("measure" in sys.argv)
    print("left behind:", *(float(value.double().sum()).hex() for value in left))
