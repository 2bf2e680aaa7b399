"""What the library costs on a GPU, each part against its floor, in one call of at most eight minutes.

    python -m benchmarks.gpu                                # on the first card
    python -m benchmarks.gpu --device cpu --scale 0.01      # all at a hundredth of the sizes, without one
    python -m benchmarks.gpu --only rfm --only cg           # some parts; --skip NAME leaves one out

Parts run the cheapest first, each within a budget in seconds; what a part found is written whenever it has
found something, so that a run that is cut short keeps what it had. Floors come first: the bandwidth and the
rates of matrix products that this card reaches in PyTorch, by which a part's bytes and flops become seconds.
It needs torch and the library; a part that needs more is left out with a line where that is not installed.
"""

from benchmarks.gpu import (
    conv_kernels,
    deep_conv,
    exact_audits,
    floors,
    iterative,
    kernel_machines,
    lab,
    monitoring,
    side_by_side,
    tolerance,
)
from benchmarks.gpu.parts import Part

PARTS = (
    Part("floors", 20, floors.measure),
    Part("conv", 40, conv_kernels.measure),
    Part("monitor", 40, monitoring.measure),
    Part("cg", 45, iterative.measure),
    Part("lab", 45, lab.measure, needs=lab.NEEDS),
    Part("tolerance", 50, tolerance.measure),
    Part("exact", 60, exact_audits.measure),
    Part("deep_conv", 60, deep_conv.measure),
    Part("side_by_side", 60, side_by_side.measure),
    Part("rfm", 60, kernel_machines.measure),
)
