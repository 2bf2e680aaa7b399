"""Whether two reported errors hold the truth: with probes against all outputs, with few samples against many.

    python benchmarks/coverage.py        # about ten minutes on two cores
    python benchmarks/coverage.py --weights resnet20-cifar10.th --data FOLDER --seeds 5

An MLP that is trained here, and, with ``--weights`` and ``--data`` (a folder of images a class), the
ResNet-20 of CIFAR-10 (arXiv 1512.03385). Random probes are held against the exact numbers of the same 40
samples, and 20 of 200 samples in batches of two against all of them. Before is C as measured with the plain
jackknife over its groups, which knows nothing of the bias; after is what a row says.
"""

import argparse
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import nfa
from nfa.inputs import load_inputs
from nfa.inputs.preprocessing import Preprocessing
from nfa.layers.maps import find_maps
from nfa.sweep.accumulate import Sensitivity
from nfa.sweep.measure import measure_sensitivities
from nfa.sweep.tolerance import layer_pair
from nfa.zoo.weights import load_weights

SAMPLES, MANY, FEW, BATCH = 40, 200, 20, 2
PROBES = (2, 4, 8)
STATISTICS = ("cosine", "alignment")
Found = dict[str, dict[str, tuple[float, float]]]  # layer -> statistic -> value and standard error


def trained_mlp() -> tuple[nn.Module, Tensor]:
    """An MLP of five linear maps that tells which of ten products is largest, and its inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    x = torch.randn(512, 64)
    y = (x[:, :10] * x[:, 10:20]).argmax(1)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, x


def resnet20(weights: str, folder: str) -> tuple[nn.Module, Tensor]:
    """The published network, and 500 images."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.resnet20 import ResNet20

    net = ResNet20()
    load_weights(net, weights)
    cifar = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (32, 32))
    inputs = load_inputs(folder, preprocessing=cifar, max_samples=500)
    return net, torch.cat([batch[0] if isinstance(batch, tuple) else batch for batch in inputs])


def reported(report: nfa.AnsatzReport) -> Found:
    """What the rows say."""
    return {
        row.layer: {
            "cosine": (row.cosine, row.stderr),
            "alignment": (row.alignment, row.alignment_stderr),
        }
        for row in report.rows
        if row.measured
    }


def plainly(net: nn.Module, batches: list[Tensor], power: float, probes: int | None, seed: int) -> Found:
    """C as it was measured, and the delete-a-group jackknife over its groups."""
    maps, _ = find_maps(net)
    sensitivities = measure_sensitivities(
        net, batches, maps, probes=probes, replicates=8, seed=seed
    ).sensitivities

    def values(sensitivity: Sensitivity, weight: Tensor) -> tuple[float, float]:
        pair = layer_pair(sensitivity, weight)
        return pair.cosine(power), pair.alignment

    found: Found = {}
    for m in maps:
        whole, weight = sensitivities[m.name], m.weight()
        if whole.passes:
            continue
        left = [values(_without(whole, slot), weight) for slot in whole.sums]
        found[m.name] = {
            name: (value, _jackknife([reduced[i] for reduced in left]))
            for i, (name, value) in enumerate(zip(STATISTICS, values(whole, weight), strict=True))
        }
    return found


def _without(sensitivity: Sensitivity, slot: int) -> Sensitivity:
    sums = {other: part for other, part in sensitivity.sums.items() if other != slot}
    counts = [0 if other == slot else count for other, count in enumerate(sensitivity.counts)]
    return Sensitivity(sums, counts, resolution=sensitivity.resolution, factored=sensitivity.factored)


def _jackknife(left: list[float]) -> float:
    values = torch.tensor(left, dtype=torch.float64)
    return float((values - values.mean()).square().mean().mul(len(left) - 1).sqrt())


def inside(found: Found, truth: Found, statistic: str) -> list[bool]:
    """For each layer whether two standard errors reach the truth."""
    pairs = [(found[layer][statistic], truth[layer][statistic][0]) for layer in truth]
    return [abs(value - true) <= 2 * error for (value, error), true in pairs if true == true]


def drawn(x: Tensor, count: int, seed: int) -> Tensor:
    """Some of the samples."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:count]]


def cases(
    net: nn.Module, x: Tensor, power: float, seeds: int
) -> Iterator[tuple[str, str, list[bool], list[bool]]]:
    """(what, statistic, inside before, inside after) of probes and of few samples."""
    same = x[:SAMPLES]
    exact = reported(nfa.audit(net, [same], power=power, nulls=0))
    for probes in PROBES:
        before, after = [], []
        for seed in range(seeds):
            before.append(plainly(net, [same], power, probes, seed))
            after.append(reported(nfa.audit(net, [same], power=power, probes=probes, seed=seed, nulls=0)))
        yield from _compared(f"{probes} probes", before, after, exact)
    many = x[:MANY]
    exact = reported(nfa.audit(net, [many], power=power, nulls=0))
    samples = [list(drawn(many, FEW, seed).split(BATCH)) for seed in range(seeds)]
    yield from _compared(
        f"{FEW} of {MANY} samples",
        [plainly(net, few, power, None, 0) for few in samples],
        [reported(nfa.audit(net, few, power=power, nulls=0)) for few in samples],
        exact,
    )


def _compared(
    what: str, before: list[Found], after: list[Found], truth: Found
) -> Iterator[tuple[str, str, list[bool], list[bool]]]:
    for statistic in STATISTICS:
        hits = [
            [hit for found in side for hit in inside(found, truth, statistic)] for side in (before, after)
        ]
        yield what, statistic, *hits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", help="of ResNet-20 for CIFAR-10")
    parser.add_argument("--data", help="folder of CIFAR-10 images, a folder a class")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--powers", type=float, nargs="+", default=[0.5, 1.0])
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads, "
        f"{platform.machine()}; {arguments.seeds} seeds"
    )
    start = time.perf_counter()
    nets = {"MLP": trained_mlp()}
    if arguments.weights and arguments.data:
        nets["ResNet-20"] = resnet20(arguments.weights, arguments.data)
    for name, (net, x) in nets.items():
        net.eval()
        for power in arguments.powers:
            print(
                f"\n{name}, exponent {power:g}: share of layers × seeds within two errors, before and after"
            )
            for what, statistic, before, after in cases(net, x, power, arguments.seeds):
                shares = [100 * sum(hits) / len(hits) for hits in (before, after)]
                print(f"  {what:20} {statistic:10} {shares[0]:5.0f} % {shares[1]:5.0f} %", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
