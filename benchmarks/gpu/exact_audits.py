"""Exact audits of networks with a thousand outputs, against their bare forward and backwards."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.gpu.networks import VisionTransformer, resnet50
from benchmarks.gpu.parts import Bench, over
from benchmarks.gpu.round_trips import counted
from nfa.audit import audit
from nfa.layers.maps import find_maps
from nfa.sweep.footprint import survey
from nfa.sweep.measure import measure_sensitivities
from nfa.sweep.untouched import untouched

IMAGES, SIDE, OUTPUTS, SHARE = 8, 224, 1000, 16


def measure(bench: Bench) -> None:
    outputs, side = bench.size(OUTPUTS, 10), bench.side(SIDE)
    networks: dict[str, Callable[[], nn.Module]] = {
        "ResNet-50": lambda: resnet50(outputs, bench.width(64)),
        "ViT-B/16": lambda: VisionTransformer(side, outputs, width=bench.width(768, 64)),
    }
    for name, make in networks.items():
        torch.manual_seed(0)
        net = make().to(bench.device).eval()
        _measure(
            bench, f"{name}, {IMAGES} × {side}², {outputs} logits", net, bench.normal(IMAGES, 3, side, side)
        )
        del net


def _measure(bench: Bench, name: str, net: nn.Module, x: Tensor) -> None:
    maps = find_maps(net)[0]
    warm = max(len(net(x[:1])[0]) // SHARE, 2)
    backwards = survey(net, x, maps, {}).backwards
    tf32, floor = (bare_seconds(bench, net, x, backwards, warm, precise) for precise in (False, True))
    bench.row(f"{name}: bare", seconds=floor, backwards=backwards, with_tf32=tf32)
    with bench.peak() as peak:
        seconds, sweep = bench.timed(partial(measure_sensitivities, net, x, maps))
        told = peak()
    footprint = survey(net, x, maps, {})
    estimate = footprint.total(len(x), 1)
    bench.row(
        f"{name}: sweep of {len(maps)} layers",
        seconds=seconds,
        over_bare=over(seconds, floor),
        peak_MB=None if told is None else told / 1e6,
        estimate_MB=estimate / 1e6,
    )
    del sweep
    with counted(bench.device) as trips:
        report = audit(net, x[:1], probes=2, nulls=0)
    bench.row(
        f"{name}: round trips a layer of an audit of 2 probes",
        operations=trips.operations / len(maps),
        runtime=None if trips.runtime is None else trips.runtime / len(maps),
        statistics_seconds=report.meta["statistics_seconds"],
    )
    if bench.left() > 1.5 * seconds:
        more = bench.timed(partial(measure_sensitivities, net, x, maps, chunk=8))[0]
        bench.row(f"{name}: sweep, 8 outputs at once", seconds=more, over_bare=over(more, floor))


def bare_seconds(bench: Bench, net: nn.Module, x: Tensor, backwards: int, share: int, precise: bool) -> float:
    """Of a forward and so many input-gradient backwards without hooks, from a share of the backwards.

    Args:
        bench: of the device.
        net: in eval mode.
        x: images.
        backwards: to be told of.
        share: to be timed.
        precise: products in full float32, as they are measured; else in TF32 where the card has it.
    """
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    with untouched(net):
        before = [setting.fp32_precision for setting in settings]
        for setting in settings:
            setting.fp32_precision = "ieee" if precise else "tf32"
        try:
            few, many = (bench.seconds(partial(_bare, net, x, count), 1) for count in (1, 1 + share))
        finally:
            for setting, precision in zip(settings, before, strict=True):
                setting.fp32_precision = precision
    each = (many - few) / share
    return few + (backwards - 1) * each


def _bare(net: nn.Module, x: Tensor, backwards: int) -> None:
    leaf = x.clone().requires_grad_()
    out = net(leaf)
    for k in range(backwards):
        seed = torch.zeros_like(out)
        seed[:, k % out.shape[1]] = 1
        torch.autograd.grad(out, leaf, seed, retain_graph=k + 1 < backwards)
