"""Nets and kernel machines on one set of images of CIFAR's size: seconds and accuracy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu.networks import resnet18
from benchmarks.gpu.parts import Bench
from nfa.machines.conv_rfm import ConvRFM
from nfa.machines.deep_rfm import DeepRFM
from nfa.machines.rfm import RFM
from nfa.nets import CNN

TRAIN, TEST, SIDE, CLASSES = 5000, 1000, 32, 10
EPOCHS, BATCH = 10, 128


def measure(bench: Bench) -> None:
    side = bench.side(SIDE, 16, 4)
    train, test = bench.size(TRAIN, 100), bench.size(TEST, 50)
    X = pictures(bench, train + test, side)
    y = classes_of(X)
    data = X[:train], y[:train], X[train:], y[train:]
    networks: dict[str, Callable[[], nn.Module]] = {
        "cnn": lambda: CNN([3, side, side], CLASSES, width=bench.width(64)),
        "resnet": lambda: resnet18(CLASSES, bench.width(64)),
    }
    machines = {
        "rfm": lambda: RFM(bandwidth="median", rounds=3),
        "deep_rfm": lambda: DeepRFM(bandwidth="median", rounds=2),
        "conv_rfm": lambda: ConvRFM(rounds=2),
    }
    name = f"{train} images {side}²"
    for net, make in networks.items():
        seconds, accuracy = bench.timed(lambda make=make: _trained(bench, make, *data))
        bench.row(f"{net}, {name}, {EPOCHS} epochs", seconds=seconds, accuracy=accuracy)
    for machine, make in machines.items():
        flat = machine in ("rfm", "deep_rfm")
        seconds, accuracy = bench.timed(lambda make=make, flat=flat: _fitted(make(), flat, *data))
        bench.row(f"{machine}, {name}", seconds=seconds, accuracy=accuracy)


def pictures(bench: Bench, n: int, side: int) -> Tensor:
    """Blurred noise in three channels, in [0, 1] (n, 3, side, side)."""
    coarse = bench.normal(n, 3, 4, 4, seed=2)
    X = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    return (0.5 + 0.2 * X + 0.05 * bench.normal(n, 3, side, side, seed=3)).clamp_(0, 1)


def classes_of(X: Tensor) -> Tensor:
    """Ten classes: which of ten coarse pixels of the first channel is the brightest (n,)."""
    return F.adaptive_avg_pool2d(X[:, :1], 4).flatten(1)[:, :CLASSES].argmax(1)


def _trained(
    bench: Bench, make: Callable[[], nn.Module], X: Tensor, y: Tensor, X_test: Tensor, y_test: Tensor
) -> float:
    torch.manual_seed(0)
    net = make().to(bench.device)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * -(-len(X) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(X), device=bench.device)
        for index in order.split(BATCH):
            F.cross_entropy(net(X[index] - 0.5), y[index]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(part - 0.5).argmax(1) for part in X_test.split(500)])
    return float((found == y_test).float().mean())


def _fitted(
    machine: RFM | DeepRFM | ConvRFM, flat: bool, X: Tensor, y: Tensor, X_test: Tensor, y_test: Tensor
) -> float:
    """Each image is a sample of its own; a fifth of the training images chooses the round."""
    X, X_test = (X.flatten(1), X_test.flatten(1)) if flat else (X, X_test)
    part = len(X) // 5
    machine.fit(X[part:], y[part:], X[:part], y[:part])
    return float((machine.predict(X_test) == y_test).float().mean())
