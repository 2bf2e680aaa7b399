"""What a machine on points costs beyond what was tried: by formula, from rates of the device.

    python -m benchmarks.at_scale                                      # 10⁷ points, 8 CPUs like this one
    python -m benchmarks.at_scale --rates gpu-results/gpu.json         # 8 cards, as benchmarks.gpu found them
    python -m benchmarks.at_scale --bandwidth 3e12 --float32 5e13 --float64 3e13   # assumed

The formulas count what `nfa.kernels.sharded`, `nfa.solvers` and `nfa.machines.kernel_agop` do on each of
the devices: floors, as if nothing but memory and products took time. Without rates these are measured here,
on one thread, and one product with a kernel matrix beside its formula says how far that is to be trusted.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from nfa.kernels import KernelOperator, make_kernel
from nfa.solvers.choice import preconditioner_rank

PASSED = (
    86  # bytes of memory read and written for each entry of K, evaluated in float32 and multiplied in float64
)
VECTORS = 8  # of points × outputs in float64, that conjugate gradients hold
ITEM, WIDE = 4, 8  # bytes of a float32 and of a float64


@dataclass(frozen=True)
class Rates:
    """Of one device: bytes and operations a second, bytes it has, and bytes a second between devices."""

    bandwidth: float
    float32: float
    float64: float
    capacity: float
    link: float
    source: str


@dataclass(frozen=True)
class Size:
    """A fit: points, coordinates, outputs, points of the AGOP, and devices that share it."""

    n: int = 10_000_000
    d: int = 64
    outputs: int = 10
    agop_points: int = 20_000
    devices: int = 8


def entries_seconds(entries: float, d: int, columns: float, rates: Rates) -> float:
    """Entries of K, evaluated and multiplied with ``columns``: the slower of memory and arithmetic."""
    arithmetic = entries * (2 * d / rates.float32 + 2 * columns / rates.float64)
    return max(entries * PASSED / rates.bandwidth, arithmetic)


def costs(size: Size, rates: Rates, iterations: int) -> dict[str, float]:
    """Seconds and bytes of one round, for each device."""
    rows = size.n / size.devices
    points, vectors = size.n * size.d * ITEM, WIDE * VECTORS * size.n * size.outputs
    spare = 0.8 * rates.capacity - vectors
    rank = preconditioner_rank(size.n, ITEM, spare)
    kept = max(0.9 * (spare - 2 * size.n * rank * ITEM), 0.0)
    share = min(kept / (rows * size.n * ITEM), 1.0)
    fresh = entries_seconds(rows * size.n * (1 - share), size.d, size.outputs, rates)
    held = rows * size.n * share * (ITEM + 3 * WIDE) / rates.bandwidth
    exchanged = size.n * size.outputs * WIDE * (1 - 1 / size.devices) / rates.link
    one = fresh + held + exchanged
    mine = size.agop_points / size.devices
    slopes = entries_seconds(mine * size.n, size.d, 0, rates)
    products = mine * size.n * 2 * size.d * size.outputs / rates.float32
    return {
        "points and vectors, bytes": points + vectors,
        "rank of the preconditioner": rank,
        "preconditioner, bytes": 2 * size.n * rank * ITEM,
        "rows of K, bytes": rows * size.n * ITEM,
        "share of them kept": share,
        "one product, seconds": one,
        "exchange in it, seconds": exchanged,
        f"system in {iterations} iterations, seconds": (iterations + 2) * one,
        "AGOP, seconds": slopes + products,
    }


def from_results(path: Path, capacity: float, link: float) -> Rates:
    """What `benchmarks.gpu` found on a card."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["what"].split(",")[0]: row for row in told["parts"]["floors"]["rows"]}
    float32, float64 = (rows[f"product in {name}"]["TFLOP_s"] * 1e12 for name in ("float32", "float64"))
    return Rates(rows["copy"]["GB_s"] * 1e9, float32, float64, capacity, link, f"measured: {told['card']}")


def measured_here(capacity: float, link: float, side: int = 1024) -> Rates:
    """One thread of this machine."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator) for _ in range(2))
    large = torch.randn(8 * side, side, generator=generator)
    copy = torch.empty_like(large)
    bandwidth = 2 * large.nbytes / _fastest(lambda: copy.copy_(large))
    float32 = 2 * side**3 / _fastest(lambda: a @ b)
    a, b = a.double(), b.double()
    return Rates(
        bandwidth, float32, 2 * side**3 / _fastest(lambda: a @ b), capacity, link, "measured here, one thread"
    )


def trusted(rates: Rates, n: int, d: int = 64, outputs: int = 10) -> tuple[float, float]:
    """Seconds of one product, found and by the formula; both triangles come from one evaluation."""
    generator = torch.Generator().manual_seed(0)
    X, V = torch.randn(n, d, generator=generator), torch.randn(n, outputs, generator=generator)
    operator = KernelOperator(make_kernel("laplace", 8.0), X)
    return _fastest(lambda: operator(V), 2), entries_seconds(n * n / 2, d, 2 * outputs, rates)


def _fastest(work, repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main(arguments: list[str] | None = None) -> int:
    """Print the rates and the costs; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, kind in Size.__annotations__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(Size, name))
    parser.add_argument(
        "--iterations", type=int, default=100, help="of conjugate gradients: not known before"
    )
    parser.add_argument("--rates", type=Path, help="JSON of benchmarks.gpu")
    parser.add_argument("--bandwidth", type=float, help="bytes a second, not measured")
    parser.add_argument("--float32", type=float, help="operations a second of it")
    parser.add_argument("--float64", type=float, help="operations a second of it")
    parser.add_argument("--capacity", type=float, default=16e9, help="bytes of a device")
    parser.add_argument("--link", type=float, default=1e9, help="bytes a second between devices")
    args = parser.parse_args(arguments)
    size = Size(**{name: getattr(args, name) for name in Size.__annotations__})
    assumed = (args.bandwidth, args.float32, args.float64)
    if args.rates is not None:
        rates = from_results(args.rates, args.capacity, args.link)
    elif all(assumed):
        rates = Rates(*assumed, args.capacity, args.link, "assumed, not measured")
    else:
        rates = measured_here(args.capacity, args.link)
        found, told = trusted(rates, 4000)
        print(
            f"one product of 4000 points: {found:.3f} s, by the formula {told:.3f} s = {found / told:.2f} ×"
        )
    print(
        f"{rates.source}: {rates.bandwidth:.3g} B/s, {rates.float32:.3g} and {rates.float64:.3g} FLOP/s; "
        f"assumed: {rates.capacity:.3g} B a device, {rates.link:.3g} B/s between them"
    )
    print(f"{size.n} points × {size.d} → {size.outputs}, {size.devices} devices, each:")
    for what, number in costs(size, rates, args.iterations).items():
        print(f"  {what:42s} {number:12.4g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
