"""What an audit of a network with many outputs costs, in training steps and against the published route.

    python benchmarks/audit.py           # about six minutes on two cores
    python benchmarks/audit.py --widths 512 1024 2048      # the statistics of wide layers in its place

ResNet-18 of torchvision at 224 × 224 with 1000 logits, 64 images, to a standard error of 0.01 in every
layer; random weights, or those of ``--weights FILE``, and images of ``--data FOLDER`` or made up.
"""

import argparse
import copy
import platform
import statistics
import sys
from pathlib import Path

import torch
import torchvision
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from agop import jacobian_route, seconds, training_step

import nfa
from nfa.inputs import load_inputs
from nfa.inputs.preprocessing import Preprocessing
from nfa.zoo.weights import load_weights

IMAGES, SIDE, OUTPUTS, TOLERANCE = 64, 224, 1000, 0.01
GROUP = IMAGES // 8
ROWS = 128  # samples of the wide layers
CHUNK = 10  # outputs of one vmap(jacrev) in the published code
LAYER = "layer2.0.conv2"


def smooth_images() -> torch.Tensor:
    """Made-up pictures with structure at all scales, normalised (64, 3, 224, 224)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(IMAGES, 3, SIDE, SIDE)
    for side in (4, 8, 16, 32, 64, 128):
        coarse = torch.randn(IMAGES, 3, side, side, generator=generator) / side**0.5
        x += nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return (x - x.mean()) / x.std()


def folder_images(folder: str) -> torch.Tensor:
    imagenet = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (SIDE, SIDE), 256)
    inputs = load_inputs(folder, preprocessing=imagenet, max_samples=IMAGES)
    return torch.cat([batch[0] if isinstance(batch, tuple) else batch for batch in inputs])


def jacobian_seconds(net: nn.Module, image: torch.Tensor) -> float:
    """One layer, one image, one chunk of outputs by the published route."""
    few = copy.deepcopy(net).requires_grad_(False)
    few.fc = nn.Linear(few.fc.in_features, CHUNK)
    few.fc.weight.data, few.fc.bias.data = net.fc.weight[:CHUNK].data, net.fc.bias[:CHUNK].data
    return min(seconds(lambda: jacobian_route(few, image[None], LAYER)) for _ in range(3))


def statistics_of_width(width: int, repeats: int) -> None:
    """Three equal layers: the statistics beside the sweep, and those of a layer in ``eigh`` of its size."""
    layers = [part for _ in range(3) for part in (nn.Linear(width, width), nn.ReLU())]
    net, x = nn.Sequential(*layers, nn.Linear(width, 10)), torch.randn(ROWS, width)
    square = torch.randn(width, width, dtype=torch.float64)
    square = square @ square.mT
    sweeps, found, eigh = [], [], []
    for _ in range(repeats):
        eigh.append(seconds(lambda: torch.linalg.eigh(square)))
        meta = nfa.audit(net, x.split(ROWS // 8)).meta
        sweeps.append(meta["sweep_seconds"])
        found.append(meta["statistics_seconds"])
    sweep, all_layers, one = (statistics.median(times) for times in (sweeps, found, eigh))
    print(
        f"  width {width:5}: sweep {sweep:6.2f} s, statistics {all_layers:7.2f} s, eigh {one:6.3f} s; "
        f"a layer's statistics / eigh {all_layers / 3 / one:5.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", help="of ResNet-18")
    parser.add_argument("--data", help="folder of images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--widths", type=int, nargs="+", help="of three layers, whose statistics are timed")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    torch.manual_seed(0)
    if arguments.widths:
        print(f"\n{ROWS} samples, 10 outputs, medians of {arguments.repeats} repeats in turns")
        for width in arguments.widths:
            statistics_of_width(width, arguments.repeats)
        return
    net = torchvision.models.resnet18(weights=None)
    if arguments.weights:
        load_weights(net, arguments.weights)
    x = folder_images(arguments.data) if arguments.data else smooth_images()
    training_step(copy.deepcopy(net), x[:8])  # warm-up
    steps, audits, reports = [], [], []
    for _ in range(arguments.repeats):
        trained = copy.deepcopy(net)
        steps.append(seconds(lambda trained=trained: training_step(trained, x)))
        audits.append(seconds(lambda: reports.append(nfa.audit(net, x.split(GROUP), tolerance=TOLERANCE))))
    step, audit = statistics.median(steps), statistics.median(audits)
    report, meta = reports[0], reports[0].meta
    worst = max(row.stderr for row in report.rows if row.measured)
    print(f"\nResNet-18 at {SIDE}×{SIDE}, {OUTPUTS} logits, {len(x)} images at most, tolerance {TOLERANCE}")
    print(f"  training step on {len(x)} images {step:8.2f} s")
    print(
        f"  audit                     {audit:8.2f} s  ({meta['mode']} on {meta['samples']} images, largest "
        f"standard error {worst:.4f})"
    )
    print(f"    sweep {meta['sweep_seconds']:.1f} s, statistics {meta['statistics_seconds']:.1f} s")
    print(f"  audit / training step     {audit / step:8.2f}    (target ≤ 15)")
    one = jacobian_seconds(net, x[0])
    layers = len(report.rows) - 1
    whole = one * OUTPUTS / CHUNK * len(x) * layers
    print(
        f"\nvmap(jacrev) over explicit patches, {LAYER}: {one:.2f} s for one image and {CHUNK} outputs; "
        f"all outputs, {len(x)} images and {layers} layers, extrapolated: {whole / 3600:.1f} h"
    )
    print(f"  that / audit              {whole / audit:8.0f}")


if __name__ == "__main__":
    main()
