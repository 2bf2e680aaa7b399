"""What a measurement every epoch adds to the training of a ResNet-18 on images of CIFAR's size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu.networks import resnet18
from benchmarks.gpu.parts import Bench
from nfa.audit import audit

EPOCH, BATCH, STEPS, PROBE = 50_000, 128, 40, 512


def measure(bench: Bench) -> None:
    batch, probe = bench.size(BATCH, 8), bench.size(PROBE, 16)
    steps = bench.size(STEPS, 2)
    torch.manual_seed(0)
    net = resnet18(width=bench.width(64)).to(bench.device)
    x = bench.normal(max(batch, probe), 3, 32, 32)
    y = torch.arange(batch, device=bench.device) % 10
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)

    def some_steps() -> None:
        for _ in range(steps):
            _step(net, x[:batch], y, optimizer)

    each = bench.seconds(some_steps, 2) / steps
    epoch = each * EPOCH / BATCH * (BATCH / batch)
    bench.row(f"epoch of {EPOCH}, from {steps} steps of {batch}", seconds=epoch, step_ms=1e3 * each)
    for name, options in {"exact": {}, "2 probes": {"probes": 2}}.items():
        audit(net, x[:2], **options)
        seconds, report = bench.timed(lambda options=options: audit(net, x[:probe].split(batch), **options))
        bench.row(
            f"audit of {probe} images, {name}",
            seconds=seconds,
            share_of_epoch=seconds / epoch,
            sweep_seconds=report.meta["sweep_seconds"],
            statistics_seconds=report.meta["statistics_seconds"],
        )


def _step(net: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
    net.train()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()
