"""An audit to a standard error of .01, against the forward and backwards it needed, and its statistics."""

import torch
from torch.nn import functional as F

from benchmarks.gpu.exact_audits import OUTPUTS, SIDE, bare_seconds
from benchmarks.gpu.networks import resnet50
from benchmarks.gpu.parts import Bench, over
from nfa.audit import audit

IMAGES, TOLERANCE = 64, 0.01


def measure(bench: Bench) -> None:
    outputs, side = bench.size(OUTPUTS, 10), bench.side(SIDE)
    torch.manual_seed(0)
    net = resnet50(outputs, bench.width(64)).to(bench.device).eval()
    x = smooth_images(bench, IMAGES, side)
    audit(net, x[:2], probes=1, nulls=0)  # kernels are loaded, and chosen
    with bench.peak() as peak:
        seconds, report = bench.timed(lambda: audit(net, x.split(IMAGES // 8), tolerance=TOLERANCE))
        told = peak()
    samples, backwards = report.meta["samples"], report.meta["backwards a sample"]
    bare = bare_seconds(bench, net, x[:samples], backwards, max(backwards // 16, 2), True)
    errors = [row.stderr for row in report.rows if row.measured and row.stderr is not None]
    bench.row(
        f"ResNet-50, {samples} of {IMAGES} × {side}², {outputs} logits",
        seconds=seconds,
        mode=report.meta["mode"],
        largest_error=max(errors),
        peak_MB=None if told is None else told / 1e6,
    )
    sweep, statistics = (report.meta[f"{name}_seconds"] for name in ("sweep", "statistics"))
    bench.row("over bare forward and backwards", bare=bare, sweep=sweep, over_bare=over(sweep, bare))
    bench.row("statistics", seconds=statistics, share=statistics / seconds, layers=len(report.rows))


def smooth_images(bench: Bench, n: int, side: int) -> torch.Tensor:
    """Made-up pictures with structure at all scales, normalised (n, 3, side, side)."""
    x = bench.normal(n, 3, side, side) / side**0.5
    coarse = 4
    while coarse < side:
        parts = bench.normal(n, 3, coarse, coarse, seed=coarse) / coarse**0.5
        x += F.interpolate(parts, size=(side, side), mode="bilinear", align_corners=False)
        coarse *= 2
    return (x - x.mean()) / x.std()
