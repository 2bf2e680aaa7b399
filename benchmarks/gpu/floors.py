"""What the device reaches: bytes and flops a second, and the seconds of a launch and of a round trip."""

import torch

from benchmarks.gpu.parts import Bench
from nfa.kernels.precision import exact_products

SIDE = 8192  # of matrices
COPIED = 2**31  # bytes, far beyond all caches


def measure(bench: Bench) -> None:
    _bandwidth(bench)
    for name in ("float32", "tf32", "bfloat16", "float64"):
        _products(bench, name)
    _latencies(bench)


def _bandwidth(bench: Bench) -> None:
    a = bench.normal(bench.size(COPIED // 4, 2**22))
    b = torch.empty_like(a)
    seconds = bench.seconds(lambda: b.copy_(a), 7)
    bench.rates["bandwidth"] = 2 * a.nbytes / seconds
    bench.row("copy, bytes read and written", GB=2 * a.nbytes / 1e9, GB_s=bench.rates["bandwidth"] / 1e9)


def _products(bench: Bench, name: str) -> None:
    """Random data: products of zeros run faster."""
    n = bench.side(SIDE, 256, 128)
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    a, b = (bench.normal(n, n, seed=seed).to(dtype) for seed in (0, 1))
    matmul = torch.backends.cuda.matmul
    with exact_products():
        before = matmul.fp32_precision
        try:
            if name == "tf32":
                matmul.fp32_precision = "tf32"
            seconds, product = bench.seconds(lambda: a @ b, 5), a @ b
        finally:
            matmul.fp32_precision = before
        rows = slice(64)
        exact = a[rows].double() @ b.double()
    error = float((product[rows] - exact).norm() / exact.norm())
    bench.rates[name] = 2 * n**3 / seconds
    bench.row(f"product in {name}, {n}³", TFLOP_s=bench.rates[name] / 1e12, error=error)


def _latencies(bench: Bench) -> None:
    a, times = bench.normal(16), 1000

    def launches() -> None:
        for _ in range(times):
            a.add_(1.0)

    def trips() -> None:
        for _ in range(times):
            a[0].item()

    bench.row(
        "microseconds",
        launch=bench.seconds(launches) / times * 1e6,
        round_trip=bench.seconds(trips) / times * 1e6,
    )
