"""Networks of machines by what files call them: plain arguments in the place of objects.

A checkpoint holds such a name and its arguments, and nothing else is built from it (`nfa.nets.registry`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nfa.kernels.conv import ConvKernel
from nfa.machines.deep_conv_rfm import stacked
from nfa.machines.deep_rfm import alike
from nfa.machines.layer import Layer
from nfa.machines.network import DeepNetwork, KernelNetwork
from nfa.machines.options import point_kernel
from nfa.machines.patches import Patches
from nfa.machines.points import Points
from nfa.machines.random_features import RandomFeatures
from nfa.machines.random_filters import ConvFeatures
from nfa.machines.system import Solver


def radial_network(kernel: str, in_features: int, outputs: int, **kernel_options: Any) -> KernelNetwork:
    """The network of an RFM; see `KernelNetwork` and `nfa.kernels.make_kernel`."""
    return KernelNetwork(point_kernel(kernel, kernel_options=kernel_options), (in_features,), outputs)


def deep_radial_network(
    kernel: str,
    in_features: int,
    outputs: int,
    depth: int,
    features: Mapping[str, Any],
    seed: int = 0,
    unit_norm: bool = True,
    last: bool = True,
    **kernel_options: Any,
) -> DeepNetwork:
    """The network of a Deep RFM; see `DeepNetwork`. ``last``: whether the last layer has features, too."""
    layer = Layer(
        point_kernel(kernel, kernel_options=kernel_options),
        lift=RandomFeatures(**features),
        solver=Solver(seed=seed),
        unit_norm=unit_norm,
        keeps="last",
    )
    return DeepNetwork(alike(layer, depth, last=last), (in_features,), outputs)


def conv_network(kernel: Mapping[str, Any], shape: Sequence[int], outputs: int) -> KernelNetwork:
    """The network of a ConvRFM; see `KernelNetwork` and `ConvKernel`."""
    return KernelNetwork(Patches(ConvKernel(**kernel)), tuple(shape), outputs)


def deep_conv_network(
    kernel: Mapping[str, Any],
    shape: Sequence[int],
    outputs: int,
    layers: int,
    features: Mapping[str, Any],
    seed: int = 0,
) -> DeepNetwork:
    """The network of a Deep ConvRFM; see `DeepNetwork`."""
    layer = Layer(Patches(ConvKernel(**kernel)), solver=Solver(seed=seed))
    stack = stacked(layer, ConvFeatures(**features), layers)
    return DeepNetwork(stack, tuple(shape), outputs)


def described(layers: Sequence[Layer], shape: Sequence[int], outputs: int, *, deep: bool) -> dict[str, Any]:
    """What builds the network of these layers anew: a name of a function here, and plain arguments."""
    first, options = layers[0], layers[0].kernel.options
    if isinstance(first.kernel, Points):
        kind, own = "radial", {"depth": len(layers), "unit_norm": first.unit_norm}
        found = {name: value for name, value in options.items() if name != "bandwidth"}
        found |= {"in_features": shape[0], "outputs": outputs}
    else:
        kind, own = "conv", {"layers": len(layers)}
        found = {"kernel": options, "shape": list(shape), "outputs": outputs}
    if deep:
        lift = first.lift or ConvFeatures()
        found |= own | {"features": asdict(lift), "seed": first.solver.seed}
    name = f"deep_{kind}_network" if deep else f"{kind}_network"
    return {"_target_": f"{__name__}.{name}", **found}
