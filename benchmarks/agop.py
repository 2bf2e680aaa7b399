"""What an audit costs: against its floor, against a training step, against the published Jacobian route.

    python benchmarks/agop.py            # all, about four minutes on two cores
    python benchmarks/agop.py --quick    # fewer repeats

Times are medians of interleaved repeats in one process; memory is the growth of the peak resident set
of a fresh process for each contender.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import nfa
from nfa.ansatz.pair import FeaturePair
from nfa.device import resident_bytes
from nfa.layers.maps import find_maps
from nfa.sweep.measure import measure_sensitivities

BATCH, OUTPUTS, SIDE = 32, 10, 32
EPOCH, PROBE = 50_000, 512  # CIFAR-10's training images; images of an audit


def small_resnet() -> nn.Module:
    """A torchvision ResNet-18 with a 3 × 3 stem and no max-pool, 10 outputs."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=OUTPUTS)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net


def images(count: int = BATCH) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


# ---- contenders -------------------------------------------------------------------------------------------


def floor(net: nn.Module, x: torch.Tensor) -> None:
    """The same forward and one input-gradient backward an output, without hooks."""
    net.eval().requires_grad_(False)
    leaf = x.clone().requires_grad_()
    out = net(leaf)
    for k in range(OUTPUTS):
        seed = torch.zeros_like(out)
        seed[:, k] = 1
        torch.autograd.grad(out, leaf, seed, retain_graph=k + 1 < OUTPUTS)
    net.requires_grad_(True)


def sweep(net: nn.Module, x: torch.Tensor) -> None:
    """C of every layer: what has to be done for each batch."""
    measure_sensitivities(net, [x], find_maps(net)[0])


def audit(net: nn.Module, x: torch.Tensor) -> None:
    """The sweep and all statistics with their nulls."""
    nfa.audit(net, x.split(BATCH))


def training_step(net: nn.Module, x: torch.Tensor) -> None:
    """Forward, backward and SGD with momentum."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    F.cross_entropy(net(x), torch.zeros(len(x), dtype=torch.long)).backward()
    optimizer.step()
    optimizer.zero_grad()


def jacobian_route(net: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
    """AGOP of one layer as the published code finds it: vmap(jacrev) over explicit patches.

    The convolution is replaced by a product with unfolded patches, the Jacobian with respect to the
    patches is formed, and its outer products are summed into an in × in matrix.
    """
    conv = net.eval().get_submodule(name)
    held: dict[str, torch.Tensor] = {}
    handle = conv.register_forward_hook(lambda module, inputs, z: held.update(x=inputs[0], z=z))
    with torch.no_grad():
        net(x)
    handle.remove()
    patches = F.unfold(held["x"], conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    shape = held["z"].shape[1:]
    W = conv.weight.detach().flatten(1)
    original = conv.forward

    def outputs(p: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        conv.forward = lambda _: (W @ p).reshape(1, *shape)
        try:
            return net(image[None])[0]
        finally:
            conv.forward = original

    G = torch.zeros(W.shape[1], W.shape[1])
    for image, p in zip(x, patches, strict=True):
        J = torch.func.jacrev(outputs)(p, image)  # (outputs, in, positions); jacrev is vmap over the outputs
        G += torch.einsum("kip,kjp->ij", J, J)
    return G / len(x)


# ---- measuring --------------------------------------------------------------------------------------------


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns after one warm-up."""
    for run in runs.values():
        run()
    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_growth_mb(contender: str) -> float:
    """Growth of the peak resident set in a fresh process that runs one contender three times."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", contender], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def print_peak_growth(contender: str) -> None:
    net, x = small_resnet(), images()
    run = {"sweep": sweep, "audit": audit, "training step": training_step}[contender]
    training_step(small_resnet(), x[:2])  # thread pools, kernels and their buffers
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(3):
        run(net, x)
    print((resident_bytes(peak=True) - before) / 2**20)


def compare_cost(repeats: int) -> None:
    net, x = small_resnet(), images()
    runs = {
        "floor": lambda: floor(net, x),
        "sweep": lambda: sweep(net, x),
        "training step": lambda: training_step(net, x),
    }
    t = interleaved(runs, repeats)
    print(f"\nResNet-18 at {SIDE}×{SIDE}, batch {BATCH}, {OUTPUTS} logits, exact, all 21 layers")
    for name, value in t.items():
        print(f"  {name:<16}{value:8.3f} s")
    print(f"  sweep / floor              {t['sweep'] / t['floor']:.3f}   (target ≤ 1.2)")
    memory = {name: peak_growth_mb(name) for name in ("training step", "sweep", "audit")}
    for name, value in memory.items():
        print(f"  peak memory, {name:<14}{value:8.0f} MB")
    ratio = memory["audit"] / memory["training step"]
    print(f"  audit / training step      {ratio:.3f}   (target ≤ 1.3)")


def compare_epoch(repeats: int) -> None:
    net, x, batch = small_resnet(), images(PROBE), images(128)
    t = interleaved(
        {"audit": lambda: audit(net, x), "step": lambda: training_step(net, batch)}, max(repeats // 3, 1)
    )
    epoch = t["step"] * EPOCH / 128
    print(
        f"\nOne audit of {PROBE} images beside an epoch of {EPOCH} (batch 128), statistics and nulls included"
    )
    print(f"  audit  {t['audit']:.1f} s,  epoch  {epoch:.0f} s (from {t['step']:.3f} s a step)")
    print(f"  audit / epoch              {t['audit'] / epoch:.4f}   (target ≤ 0.05)")


def compare_jacobians(repeats: int) -> None:
    net, x, name = small_resnet().requires_grad_(False), images(8), "layer2.0.conv2"
    exact = nfa.agop(net, x)[name]
    slow = jacobian_route(net, x, name).double()
    agreement = float((slow - exact).norm() / exact.norm())
    t = interleaved(
        {"jacobians": lambda: jacobian_route(net, x, name), "sweep": lambda: sweep(net, x)},
        max(repeats // 3, 1),
    )
    layers = len(find_maps(net)[0])
    pair_seconds = seconds(
        lambda: FeaturePair(net.get_submodule(name).weight.flatten(1), torch.eye(128)).cosine(0.5)
    )
    print(
        f"\nAGOP by vmap(jacrev) over explicit patches, 8 images, one layer ({name}); "
        f"relative difference {agreement:.0e}"
    )
    print(f"  jacobians, one layer {t['jacobians']:.2f} s,  sweep, {layers} layers {t['sweep']:.2f} s")
    print(f"  per layer                  {t['jacobians'] / (t['sweep'] / layers):.0f} times faster")
    print(f"  (its cosine in Gram space then takes {pair_seconds * 1000:.0f} ms)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print_peak_growth(arguments.memory)
        return
    repeats = 3 if arguments.quick else 9
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    compare_cost(repeats)
    compare_jacobians(repeats)
    compare_epoch(repeats)


if __name__ == "__main__":
    main()
