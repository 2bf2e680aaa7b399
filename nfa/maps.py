"""Which modules of a network are linear maps ``z = W p``, and their weights as (groups, out, in) blocks.

A map takes vectors ``p`` (inputs, activations, tokens, or image patches) to ``z``. Whatever else a
convolution does (stride, padding, dilation) decides which patches there are, not what the map is.
"""

import difflib
import fnmatch
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from nfa.errors import NfaError

_CONVOLUTIONS = {nn.Conv1d: "conv1d", nn.Conv2d: "conv2d", nn.Conv3d: "conv3d"}

_REASONS = {
    nn.Embedding: "its input is an index, not a vector",
    nn.EmbeddingBag: "its input is an index, not a vector",
    nn.Bilinear: "it is not linear in one input",
    nn.RNNBase: "recurrent weights act inside a fused call",
    nn.RNNCellBase: "recurrent weights act inside a fused call",
    nn.MultiheadAttention: "its packed projections act inside a fused call",
    nn.modules.conv._ConvTransposeNd: "a transposed convolution has no single patch per output",
    nn.LayerNorm: "its weight is elementwise, not a map",
    nn.RMSNorm: "its weight is elementwise, not a map",
}


@dataclass(frozen=True)
class LinearMap:
    """One linear map of a network.

    Attributes:
        name: dotted module name.
        module: the module, an ``nn.Linear`` or ``nn.Conv1d/2d/3d``.
        kind: ``linear``, ``conv1d``, ``conv2d`` or ``conv3d``.
    """

    name: str
    module: nn.Module
    kind: str

    @property
    def groups(self) -> int:
        """Independent blocks: 1 for a linear layer, ``module.groups`` for a convolution."""
        return getattr(self.module, "groups", 1)

    @property
    def in_features(self) -> int:
        """Length of ``p`` per group; for a convolution (in_channels / groups) · prod(kernel_size)."""
        return _size(self.module)[1]

    @property
    def out_features(self) -> int:
        """Length of ``z``, all groups together."""
        return _size(self.module)[0]

    def weight(self) -> Tensor:
        """Effective weight, detached, (groups, out / groups, in); parametrisations are applied."""
        return weight_blocks(self.module)


@dataclass(frozen=True)
class SkippedModule:
    """A module with a 2-D or larger weight that is no linear map known here, and why."""

    name: str
    kind: str
    shape: tuple[int, ...]
    reason: str


def weight_blocks(module: nn.Module) -> Tensor:
    """Effective weight of a linear map as (groups, out / groups, in), detached.

    Patch vectors are ordered (channel, *kernel), as ``weight.reshape(out, -1)`` orders them.

    Raises:
        NfaError: the module is no ``nn.Linear`` or ``nn.Conv1d/2d/3d``.
    """
    if map_kind(module) is None:
        raise NfaError(f"expected an nn.Linear or nn.Conv1d/2d/3d, got {type(module).__name__}")
    modes = [(m, m.training) for m in module.modules()]
    try:
        for m, _ in modes:  # in training mode reading a spectral norm moves its power iteration on
            m.training = False
        with torch.no_grad():
            weight = module.weight.detach()
    finally:
        for m, training in modes:
            m.training = training
    return weight.reshape(getattr(module, "groups", 1), -1, weight[0].numel())


def _size(module: nn.Module) -> tuple[int, int]:
    """(out, in per group) of a linear map, without touching a weight that may be computed on access."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return module.out_channels, module.in_channels // module.groups * math.prod(module.kernel_size)


def map_kind(module: nn.Module) -> str | None:
    """``linear``, ``conv1d``, ``conv2d``, ``conv3d``, or None for what is not a linear map."""
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return None
    return next((kind for cls, kind in _CONVOLUTIONS.items() if isinstance(module, cls)), None)


def has_unbuilt(model: nn.Module) -> bool:
    """Whether a lazily built module still waits for its first input."""
    return any(is_lazy(t) for t in (*model.parameters(), *model.buffers()))


def find_maps(
    model: nn.Module, layers: str | Sequence[str] | None = None
) -> tuple[list[LinearMap], list[SkippedModule]]:
    """List the linear maps of a network in registration order, and the weights that are skipped.

    Args:
        model: any module whose lazily built parts have seen an input.
        layers: glob pattern or patterns on dotted names (``"layer1.*"``); None takes every map.

    Returns:
        The maps, and one `SkippedModule` for every other module that owns a 2-D or larger parameter.

    Raises:
        NfaError: a pattern matches no weight of the network.
    """
    maps: list[LinearMap] = []
    skipped: list[SkippedModule] = []
    fused: set[nn.Module] = set()  # sub-modules whose weight a fused parent reads without calling them
    for name, module in model.named_modules():
        if isinstance(module, ParametrizationList) or ".parametrizations." in f".{name}.":
            continue
        if isinstance(module, nn.MultiheadAttention):
            fused.add(module.out_proj)
        found = _classify(name, module, module in fused)
        if isinstance(found, LinearMap):
            maps.append(found)
        elif found is not None:
            skipped.append(found)
    if layers is None:
        return maps, skipped
    return _select(maps, skipped, [layers] if isinstance(layers, str) else list(layers))


def _classify(name: str, module: nn.Module, in_fused_parent: bool) -> LinearMap | SkippedModule | None:
    kind = map_kind(module)
    if kind is None:
        wide = [p for p in module.parameters(recurse=False) if p.dim() >= 2]
        return (
            SkippedModule(name, type(module).__name__, tuple(wide[0].shape), _reason(module))
            if wide
            else None
        )
    dtype = next((p.dtype for p in module.parameters()), None)
    if in_fused_parent:
        reason = _REASONS[nn.MultiheadAttention]
    elif _overrides_forward(module):
        reason = f"{type(module).__name__} replaces the forward of its base class"
    elif dtype not in (torch.float32, torch.float64):
        reason = f"weight of dtype {dtype}; convert the model with .float()"
    else:
        return LinearMap(name, module, kind)
    return SkippedModule(name, type(module).__name__, _size(module), reason)


def _reason(module: nn.Module) -> str:
    known = next((reason for cls, reason in _REASONS.items() if isinstance(module, cls)), None)
    return known or f"{type(module).__name__} is not a linear map known to nfa"


def _overrides_forward(module: nn.Module) -> bool:
    """A subclass with a forward of its own (weight standardisation, masks) may not compute ``W p + b``."""
    bases = (nn.Linear, *_CONVOLUTIONS)
    base = next(cls for cls in bases if isinstance(module, cls))
    cls = type(module)
    replaced = "forward" in vars(module) or cls.forward is not base.forward
    return replaced or (base is not nn.Linear and cls._conv_forward is not base._conv_forward)


def _select(
    maps: list[LinearMap], skipped: list[SkippedModule], patterns: list[str]
) -> tuple[list[LinearMap], list[SkippedModule]]:
    names = [entry.name for entry in (*maps, *skipped)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
            raise NfaError(
                f"layer pattern {pattern!r} matches none of the {len(names)} weights of the network; "
                f"near ones: {', '.join(near) or 'none at all'}"
            )
    matches = functools.partial(_matches_any, patterns=patterns)
    return [m for m in maps if matches(m.name)], [s for s in skipped if matches(s.name)]


def _matches_any(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
