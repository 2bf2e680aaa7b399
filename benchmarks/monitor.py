"""What measuring while a network trains costs, with the defaults and within a budget.

    python benchmarks/monitor.py           # half an hour

An MLP, a CNN and a ResNet-18 on the bundled digits and on made-up images of the size of CIFAR-10's, trained
by a plain loop (SGD, momentum 0.9, batches of 128) for 20 times as long as one measurement takes, and 200
steps at least. The share is that of measuring in the training time, the beginning and the end included. All
seconds are CPU seconds of one thread, which others on the machine do not lengthen much.
"""

import argparse
import math
import platform
import time

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nfa
from nfa.inputs.digits import digits
from nfa.nets import CNN, MLP, ResNet

BUDGET, WITHIN = 0.2, 1.3
BATCH = 128
EVERY = {"defaults": {}, f"budget={BUDGET}": {"budget": BUDGET}}


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1536, 3, 32, 32, generator=generator), torch.arange(1536) % 10


NETS = {
    "MLP": lambda shape: MLP(shape, 10),
    "CNN": lambda shape: CNN(shape, 10),
    "ResNet-18": lambda shape: ResNet(shape, 10, arch="resnet18"),
}
DATA = {"digits": lambda: digits()[0], "random": images}  # 1×8×8 and 3×32×32


class Loop:
    """A training, step by step."""

    def __init__(self, net: nn.Module, data: TensorDataset):
        self.net, self.loader = net, DataLoader(data, batch_size=BATCH, shuffle=True)
        self.optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
        self._batches = iter(self.loader)

    def step(self) -> None:
        """Make one, of the next batch."""
        try:
            x, y = next(self._batches)
        except StopIteration:
            self._batches = iter(self.loader)
            x, y = next(self._batches)
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def steps_for(loop: Loop, samples: int, lengths: int, least: int) -> int:
    """Steps that take so many times as long as a measurement."""
    cost = min(nfa.Monitor(loop.net, loop.loader, samples=samples, quiet=True).cost for _ in range(2))
    for _ in range(2):
        loop.step()
    start = time.perf_counter()
    for _ in range(3):
        loop.step()
    return max(math.ceil(lengths * cost * 3 / (time.perf_counter() - start)), least)


def train(loop: Loop, steps: int, options: dict) -> tuple[float, nfa.Monitor]:
    """Seconds of training, without those of measuring."""
    start = time.perf_counter()
    monitor = nfa.Monitor(loop.net, loop.loader, steps=steps, quiet=True, **options)
    for step in range(1, steps + 1):
        loop.step()
        monitor.step(step)
    return time.perf_counter() - start - monitor.seconds, monitor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", choices=NETS, nargs="*", default=list(NETS))
    parser.add_argument("--data", choices=DATA, nargs="*", default=list(DATA))
    parser.add_argument("--samples", type=int, default=256, help="to measure on")
    parser.add_argument("--lengths", type=int, default=20, help="of a measurement that the training takes")
    parser.add_argument("--least", type=int, default=200, help="steps of the training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # the clock of this script and of the monitor
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}"
    )
    for data_name in arguments.data:
        x, y = DATA[data_name]()
        for net_name in arguments.net:
            torch.manual_seed(0)
            loops = [Loop(NETS[net_name](tuple(x.shape[1:])), TensorDataset(x, y)) for _ in range(3)]
            steps = steps_for(loops.pop(), arguments.samples, arguments.lengths, arguments.least)
            print(f"\n{net_name} on {data_name}, {arguments.samples} samples, {steps} steps", flush=True)
            for (name, options), loop in zip(EVERY.items(), loops, strict=True):
                seconds, monitor = train(loop, steps, {"samples": arguments.samples, **options})
                share, count = monitor.seconds / seconds, len({row.epoch for row in monitor.history})
                within = f"    {share / BUDGET:.2f} of it (target ≤ {WITHIN})" if options else ""
                print(
                    f"  {name:<11} every {monitor.every} steps: {count} measurements, "
                    f"{monitor.seconds:.2f} s "
                    f"beside {seconds:.2f} s of training: {100 * share:.0f} %{within}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
