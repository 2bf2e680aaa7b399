"""Which modules of a network are linear maps ``z = W p``, and their weights as (groups, out, in) blocks.

A map takes vectors ``p`` (inputs, activations, tokens, or image patches) to ``z``. Whatever else a
convolution does (stride, padding, dilation) decides which patches there are, not what the map is. Several
maps may share one tensor: the queries, keys and values of attention are rows of one packed weight.
"""

import difflib
import fnmatch
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from nfa.errors import NfaError
from nfa.layers import attention as heads
from nfa.layers.turns import turn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_CONVOLUTIONS: dict[type[nn.Module], str] = {nn.Conv1d: "conv1d", nn.Conv2d: "conv2d", nn.Conv3d: "conv3d"}
_MEASURABLE = (torch.float32, torch.float64)
_FUSED = "its {name} acts inside a fused call that is not followed here"

_REASONS = {
    torch.jit.ScriptModule: "the calls of a scripted layer cannot be watched; measure it before torch.jit",
    nn.Embedding: "its input is an index, not a vector",
    nn.EmbeddingBag: "its input is an index, not a vector",
    nn.Bilinear: "it is not linear in one input",
    _ConvTransposeNd: "a transposed convolution has no single patch per output",
    nn.LayerNorm: "its weight is elementwise, not a map",
    nn.RMSNorm: "its weight is elementwise, not a map",
}


@dataclass(frozen=True)
class LinearMap:
    """One linear map of a network: a weight, or some rows of it.

    Attributes:
        name: dotted module name; for a part of a packed weight, what it is stands after it
            (``encoder.self_attention.q``, ``attn.qkv.v.head3``, ``lstm.weight_hh_l0``).
        module: the module that owns the weight.
        kind: ``linear``, ``conv1d``, ``conv2d`` or ``conv3d``.
        in_features: length of ``p`` per group; for a convolution (in_channels / groups) · prod(kernel_size).
        out_features: length of ``z``, all groups together.
        groups: independent blocks: 1, or ``module.groups`` for a convolution.
        parameter: name of the weight in the module.
        rows: (start, stop) of the weight's rows, where the map is a part of it.
        called: whether the map acts where the module is called; else only where its weight is used by a
            function (``F.linear``, ``F.multi_head_attention_forward``, …).
        unseen: why it is skipped when the forward pass did not use it in a way that can be followed.
    """

    name: str
    module: nn.Module
    kind: str
    in_features: int
    out_features: int
    groups: int = 1
    parameter: str = "weight"
    rows: tuple[int, int] | None = None
    called: bool = True
    unseen: str = "not called in the forward pass"

    @property
    def arbitrary_rows(self) -> bool:
        """Whether the rows of the weight are coordinates without a meaning, which may change in number.

        A module says so by a class attribute ``arbitrary_rows = True``; such a map has no ``W - W₀``.
        """
        return getattr(type(self.module), "arbitrary_rows", False)

    def weight(self) -> Tensor:
        """Effective weight, detached, (groups, out / groups, in); parametrisations are applied."""
        return self.as_blocks(_effective(self.module, self.parameter))

    @property
    def trained(self) -> Tensor | None:
        """The parameter behind the weight, or in proportion to it; None where the weight is computed."""
        stored = self.module._parameters.get(self.parameter)
        if stored is not None or not parametrize.is_parametrized(self.module, self.parameter):
            return stored
        steps = self.module.get_submodule(f"parametrizations.{self.parameter}")
        proportional = all(getattr(type(step), "proportional", False) for step in steps.children())
        return steps.get_parameter("original") if proportional else None

    def as_blocks(self, stored: Tensor) -> Tensor:
        """A tensor of the shape of the stored weight, its gradient say, as (groups, out / groups, in)."""
        W = stored.mT if heads.is_transposed(self.module) else stored
        if self.rows is not None:
            W = W[slice(*self.rows)]
        return W.reshape(self.groups, -1, W[0].numel())


@dataclass(frozen=True)
class SkippedModule:
    """A module with a 2-D or larger weight that is no linear map known here, and why."""

    name: str
    kind: str
    shape: tuple[int, ...]
    reason: str


def weight_blocks(module: nn.Module) -> Tensor:
    """Effective weight of a module that is one linear map as (groups, out / groups, in), detached.

    Patch vectors are ordered (channel, *kernel), as ``weight.reshape(out, -1)`` orders them.

    Raises:
        NfaError: the module is no ``nn.Linear`` or ``nn.Conv1d/2d/3d``.
    """
    kind = map_kind(module)
    if kind is None:
        raise NfaError(
            f"expected an nn.Linear or nn.Conv1d/2d/3d, got {type(module).__name__}: pass one layer"
        )
    if has_unbuilt(module):
        raise NfaError(f"this {type(module).__name__} has no weight yet: call it with an input first")
    W = _whole("", module, kind).weight()
    if W.device.type == "meta" or not W.is_floating_point():
        raise NfaError(f"expected a weight of floating values, got {W.dtype} on the device {W.device.type!r}")
    return W


def map_kind(module: nn.Module) -> str | None:
    """``linear``, ``conv1d``, ``conv2d``, ``conv3d``, or None for what is not a linear map."""
    if isinstance(module, nn.Linear) or heads.is_transposed(module):
        return "linear"
    if isinstance(module, _ConvTransposeNd):
        return None
    return next((kind for cls, kind in _CONVOLUTIONS.items() if isinstance(module, cls)), None)


def has_unbuilt(model: nn.Module) -> bool:
    """Whether a lazily built module still waits for its first input."""
    return any(is_lazy(t) for t in (*model.parameters(), *model.buffers()))


def find_maps(
    model: nn.Module, layers: str | Sequence[str] | None = None, *, per_head: bool = False
) -> tuple[list[LinearMap], list[SkippedModule]]:
    """List the linear maps of a network in registration order, and the weights that are skipped.

    Args:
        model: any module whose lazily built parts have seen an input.
        layers: glob pattern or patterns on dotted names (``"layer1.*"``), of maps or of the modules that
            own them; None takes every map.
        per_head: one map for each head of the queries, keys and values of attention.

    Returns:
        The maps, and one `SkippedModule` for every other module that owns a 2-D or larger parameter.

    Raises:
        NfaError: a pattern matches no weight of the network.
    """
    patterns = patterns_of(layers)
    maps: list[LinearMap] = []
    skipped: list[SkippedModule] = []
    owners: dict[str, str] = {}  # name of a map -> name of its module
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, ParametrizationList) or ".parametrizations." in f".{name}.":
            continue
        for found in _classify(name, module, modules, per_head):
            entry = _measurable(found) if isinstance(found, LinearMap) else found
            if isinstance(entry, LinearMap):
                maps.append(entry)
            else:
                skipped.append(entry)
            owners[entry.name] = name
    return (maps, skipped) if patterns is None else _select(maps, skipped, owners, patterns)


def patterns_of(layers: object) -> list[str] | None:
    """Patterns of layer names as a list; None stands for all layers.

    Raises:
        NfaError: something that holds no patterns.
    """
    if layers is None:
        return None
    given = [*layers] if isinstance(layers, Iterable) and not isinstance(layers, Mapping | str) else [layers]
    patterns = [pattern for pattern in given if isinstance(pattern, str) and pattern]
    if not patterns or len(patterns) < len(given):
        raise NfaError(
            f"layers must be a pattern of layer names such as 'layer1.*', or several, got {layers!r}"
        )
    return patterns


def check_any(maps: Sequence[LinearMap], skipped: Sequence[SkippedModule]) -> None:
    """Refuse a network whose weights are all skipped, and say why the first one is."""
    if not maps and skipped:
        first = skipped[0]
        raise NfaError(
            f"no linear map to measure: of {len(skipped)} weights of two or more dimensions all are skipped, "
            f"the first ({first.name or type(first).__name__}) because of this: {first.reason}"
        )


def in_order(
    model: nn.Module, maps: Sequence[LinearMap], skipped: Sequence[SkippedModule]
) -> list[LinearMap | SkippedModule]:
    """Maps and skipped modules in the order of the network."""
    position = {name: i for i, (name, _) in enumerate(model.named_modules())}

    def of_module(entry: LinearMap | SkippedModule) -> int:
        name = entry.name
        while name not in position:  # a part of the weight of the module it is named after
            name = name.rpartition(".")[0]
        return position[name]

    return sorted((*maps, *skipped), key=of_module)


def _classify(
    name: str, module: nn.Module, modules: dict[str, nn.Module], per_head: bool
) -> Iterator[LinearMap | SkippedModule]:
    kind = map_kind(module)
    parent = modules[name.rpartition(".")[0]] if name else None
    if kind is not None:
        yield from _parts_of(_whole(name, module, kind), parent, per_head)
    elif isinstance(module, nn.MultiheadAttention):
        yield from _attention(name, module, per_head)
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        yield from _recurrent(name, module)
    elif _is_quantised(module):
        weight = getattr(module, "weight", None)
        shape = tuple(weight().shape) if callable(weight) else (0, 0)
        reason = "quantised weights have no gradient; measure the network before it is quantised"
        yield SkippedModule(name, type(module).__name__, shape, reason)
    else:
        yield from _other(name, module)


def _whole(name: str, module: nn.Module, kind: str) -> LinearMap:
    out, inputs = _size(module)
    whole = LinearMap(name, module, kind, inputs, out, getattr(module, "groups", 1))
    if not _overrides_forward(module):
        return whole
    reason = f"{type(module).__name__} replaces the forward of its base class"
    return replace(whole, called=False, unseen=reason)


def _parts_of(whole: LinearMap, parent: nn.Module | None, per_head: bool) -> Iterator[LinearMap]:
    """The queries, keys and values in a packed projection, and the heads of each; else the map itself."""
    if whole.groups > 1:
        yield whole
        return
    for suffix, rows in heads.parts(whole.name, whole.out_features, whole.in_features, parent, per_head):
        if suffix:
            yield replace(whole, name=whole.name + suffix, out_features=rows[1] - rows[0], rows=rows)
        else:
            yield whole


def _measurable(entry: LinearMap) -> LinearMap | SkippedModule:
    """The map, or why its dtype rules it out."""
    dtype = next((p.dtype for p in entry.module.parameters()), None)
    if dtype in _MEASURABLE:
        return entry
    advice = "" if dtype is None or dtype.is_complex else "; convert the model with .float()"
    shape = (entry.out_features, entry.in_features)
    return SkippedModule(entry.name, type(entry.module).__name__, shape, f"weight of dtype {dtype}{advice}")


def _attention(name: str, module: nn.MultiheadAttention, per_head: bool) -> Iterator[LinearMap]:
    """The three input projections; ``out_proj`` is a module of its own."""
    E = module.embed_dim
    widths = {"q": E, "k": module.kdim, "v": module.vdim}
    packed = module.in_proj_weight is not None
    for i, (part, width) in enumerate(widths.items()):
        parameter = "in_proj_weight" if packed else f"{part}_proj_weight"
        start = i * E if packed else 0
        for suffix, (a, b) in heads.split(E, module.num_heads if per_head else 1):
            rows = (start + a, start + b) if packed or per_head else None
            yield LinearMap(
                _join(name, part) + suffix, module, "linear", width, b - a, parameter=parameter, rows=rows,
                called=False, unseen=_FUSED.format(name=parameter),
            )  # fmt: skip


def _recurrent(name: str, module: nn.Module) -> Iterator[LinearMap]:
    for parameter, tensor in module.named_parameters(recurse=False):
        if tensor.dim() == 2:
            out, inputs = tensor.shape
            yield LinearMap(
                _join(name, parameter), module, "linear", inputs, out, parameter=parameter,
                called=False, unseen=_FUSED.format(name=parameter),
            )  # fmt: skip


def _other(name: str, module: nn.Module) -> Iterator[SkippedModule]:
    """A module that owns a matrix but is no linear map; a vector shaped (c, 1, 1) is no matrix."""
    wide = [
        (k, p) for k, p in module.named_parameters(recurse=False) if sum(size > 1 for size in p.shape) >= 2
    ]
    if wide:
        kind = type(module).__name__
        known = next((reason for cls, reason in _REASONS.items() if isinstance(module, cls)), None)
        if type(module) is nn.Module:
            known = "torch.export keeps weights and no layers; measure the network before it is exported"
        known = getattr(type(module), "unmeasured", known)
        reason = known or f"{kind}.{wide[0][0]} is not the weight of a linear map known to nfa"
        yield SkippedModule(name, kind, tuple(wide[0][1].shape), reason)


def _is_quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"))


def _effective(module: nn.Module, parameter: str) -> Tensor:
    stored = module._parameters.get(parameter)
    if stored is not None:
        return gathered(stored.detach())
    with turn():
        return _computed(module, parameter)


def gathered(weight: Tensor) -> Tensor:
    """A weight whose parts are on several processes (``fully_shard``), whole on each of them."""
    return weight.full_tensor() if is_shared_out(weight) else weight


def is_shared_out(weight: Tensor | None) -> "TypeGuard[DTensor]":
    """Whether its parts are on several processes."""
    return hasattr(weight, "full_tensor")


def _computed(module: nn.Module, parameter: str) -> Tensor:
    modes = [(m, m.training) for m in module.modules()]
    try:
        for m, _ in modes:  # in training mode reading a spectral norm moves its power iteration on
            m.training = False
        with torch.no_grad():
            return getattr(module, parameter).detach()
    finally:
        for m, training in modes:
            m.training = training


def _size(module: nn.Module) -> tuple[int, int]:
    """(out, in per group) of a linear map, without touching a weight that may be computed on access."""
    if heads.is_transposed(module):
        return module.weight.shape[1], module.weight.shape[0]
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    assert isinstance(module, _ConvNd)  # see `map_kind`
    return module.out_channels, module.in_channels // module.groups * math.prod(module.kernel_size)


def _overrides_forward(module: nn.Module) -> bool:
    """A subclass with a forward of its own (weight standardisation, masks) may not compute ``W p + b``.

    One that does says so by a class attribute ``computes_linear_map = True``.
    """
    if heads.is_transposed(module) or getattr(type(module), "computes_linear_map", False):
        return False
    bases: tuple[type[nn.Module], ...] = (nn.Linear, *_CONVOLUTIONS)
    base = next(cls for cls in bases if isinstance(module, cls))
    cls = type(module)
    replaced = "forward" in vars(module) or cls.forward is not base.forward
    if replaced or not issubclass(cls, _ConvNd) or not issubclass(base, _ConvNd):
        return replaced
    return cls._conv_forward is not base._conv_forward


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _select(
    maps: list[LinearMap], skipped: list[SkippedModule], owners: dict[str, str], patterns: list[str]
) -> tuple[list[LinearMap], list[SkippedModule]]:
    for pattern in patterns:
        if not any(_matches(name, owners, [pattern]) for name in owners):
            names = list(owners)
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
            if any(name.startswith(f"{pattern}.") for name in names):
                near = [f"{pattern}.*"]
            raise NfaError(
                f"layer pattern {pattern!r} matches none of the {len(names)} weights of the network; "
                f"near ones: {', '.join(near) or 'none at all'}"
            )
    chosen = functools.partial(_matches, owners=owners, patterns=patterns)
    return [m for m in maps if chosen(m.name)], [s for s in skipped if chosen(s.name)]


def _matches(name: str, owners: dict[str, str], patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(n, pattern) for n in (name, owners[name]) for pattern in patterns)
