"""The kernel matrix of a convolutional network and its patch AGOP, on images of CIFAR's size."""

from functools import partial

import torch

from benchmarks.gpu.parts import Bench, over
from nfa.kernels.conv import ConvKernel
from nfa.machines.patch_agop import patch_agop

IMAGES, SIDE, POINTS, CLASSES = (2000, 5000), 32, 20, 10
PATCH, DEPTH = 3, 3
RELU = 20.0  # flops of a ReLU of kernel values, a root and an arctangent counted as one each


def measure(bench: Bench) -> None:
    kernel, side = ConvKernel(PATCH, DEPTH), bench.side(SIDE, 12, 4)
    _errors(bench, kernel, side)
    for n in (bench.size(images, 20) for images in IMAGES):
        X = images(bench, n, side)
        kernel.matrix(X[:20])
        with bench.peak() as peak:
            seconds, _ = bench.timed(lambda X=X: kernel.matrix(X))
            told = peak()
        maps = kernel.shape(X).maps
        positions, first = sum(h * w for h, w in maps), maps[0][0] * maps[0][1]
        pairs = n * (n + 1) / 2
        flops = pairs * (first * 2 * 3 * PATCH**2 + positions * RELU)
        # a block of values is read and written once by each ReLU and once by each window
        bytes_moved = pairs * positions * 4 * 6
        floor = bench.floor(0, float32=flops)
        moved = bench.floor(bytes_moved)
        bench.row(
            f"kernel of {n} images {side}², depth {DEPTH}",
            seconds=seconds,
            fused_floor=floor,
            over_fused=over(seconds, floor),
            moved_floor=moved,
            over_moved=over(seconds, moved),
            peak_MB=None if told is None else told / 1e6,
            estimate_MB=kernel.memory(X) / 1e6,
        )
        points, a = min(POINTS, n), bench.normal(n, CLASSES, seed=1)
        same = torch.arange(points, device=bench.device)
        for dtype in (torch.float32, torch.float64):
            agop = partial(patch_agop, kernel, X[:points], X, a, same=same, dtype=dtype)
            spent = bench.timed(agop)[0]
            bench.row(f"  AGOP of {points} images × {CLASSES}, {str(dtype)[6:]}", seconds=spent)


def images(bench: Bench, n: int, side: int) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=bench.generator(), device=bench.device)


def _errors(bench: Bench, kernel: ConvKernel, side: int) -> None:
    """float32 from float64, here and on the CPU."""
    X = images(bench, 50, side)
    exact = kernel.matrix(X.cpu().double())
    single, double = kernel.matrix(X).double().cpu(), kernel.matrix(X.double()).cpu()
    bench.row(
        "kernel of 50 images from float64 on a CPU",
        float32=float((single - exact).norm() / exact.norm()),
        float64=float((double - exact).norm() / exact.norm()),
    )
