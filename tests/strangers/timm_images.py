"""Somebody's training of a model of timm: mixed-up images, a moving average of the weights, a schedule."""

import sys

import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV2
from torch.utils.data import DataLoader, TensorDataset


def main(measure):
    torch.manual_seed(1)
    timm.utils.random_seed(1)
    images = torch.randn(48, 3, 48, 48)
    data = TensorDataset(images, (images[:, 0].mean((1, 2)) > 0).long())
    loader = DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    model = timm.create_model("test_resnet", num_classes=2, drop_rate=0.1)
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, t_initial=12)
    mixup, criterion = Mixup(mixup_alpha=0.2, num_classes=2), SoftTargetCrossEntropy()
    average = ModelEmaV2(model, decay=0.9)
    if measure:  # nfa
        import nfa  # nfa

        monitor = nfa.Monitor(model, loader, every=6, samples=16, probes=2)  # nfa
    step = 0
    for _ in range(2):
        for x, y in loader:
            x, y = mixup(x, y)
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(model)
            step += 1
            schedule.step_update(step)
            if measure:  # nfa
                monitor.step(step)  # nfa
    if measure:  # nfa
        print(monitor.report)  # nfa
        print(sorted({row.epoch for row in monitor.history}))  # nfa
    return [*model.state_dict().values(), *average.module.state_dict().values(), torch.rand(2)]


if __name__ == "__main__":
    left = main("measure" in sys.argv)
    print("left behind:", *(float(value.double().sum()).hex() for value in left))
