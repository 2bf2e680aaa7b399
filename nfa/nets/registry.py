"""What a file may name: the networks that are built from a name and plain values, and from nothing else.

A checkpoint comes from anywhere, so a name in it is looked up here and never imported. Known are the networks
of `nfa.nets`, those of the kernel machines, the layers of ``torch.nn``, and the named constructors of
torchvision and timm as they are installed, without weights of theirs. Their arguments are numbers, booleans,
short words, lists and dictionaries of these; layers of ``torch.nn`` may hold one another, and what makes a
network of another one that.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType

from torch import nn

from nfa.errors import NfaError
from nfa.nets.allowance import Allowance
from nfa.nets.imports import import_installed, is_installed, without_network

TARGET = "_target_"
_NETS = {"MLP": "mlp", "CNN": "cnn", "ResNet": "resnet", "VGG": "vgg"}  # class -> module of nfa.nets
_OF_NETS = {  # what makes a network of another
    "Expansion": "expansion",
    "ntk": "parameterization",
    "balanced": "balance",
}
_NAMED = "nfa.machines.named"
_MACHINES = ("radial_network", "deep_radial_network", "conv_network", "deep_conv_network")
_BEFORE = {  # names of version 0.1
    "nfa.machines.network.KernelNetwork": "radial_network",
    "nfa.machines.deep_network.DeepKernelNetwork": "deep_radial_network",
    "nfa.machines.conv_network.ConvKernelNetwork": "conv_network",
    "nfa.machines.deep_conv_network.DeepConvNetwork": "deep_conv_network",
}
_OPTIONS = (TARGET, "_args_", "_partial_", "_convert_", "_recursive_")
_WEIGHTS = {  # of constructors: the checkpoint brings the weights
    "torchvision": ("weights", "weights_backbone", "progress"),
    "timm": ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
}
Arguments = tuple[list[object], dict[str, object]]  # positional, and by name
_WORD = re.compile(r"[A-Za-z0-9_+-]{0,64}")  # no dots, slashes or colons: no path, address or dotted name
_LARGEST = 10**6  # of a number that may count something, such as layers
_HUGE = 2**63  # of any number
_FREE = "seed"  # a number that counts nothing
_DEEPEST = 32  # layers within layers
_ADVICE = "nfa audit my_module:build --weights FILE"


def build(config: Mapping[str, object], path: str | os.PathLike) -> nn.Module:
    """Build the network that a file names, from this registry and plain values.

    Args:
        config: ``_target_`` and its keyword arguments; ``_args_``: positional ones.
        path: of the file, for messages.

    Raises:
        NfaError: a name that is not in the registry, arguments that are not plain or do not fit, or a network
            that would not fit into memory. Nothing is imported from the working directory, and nothing is
            called that is not in the registry.
    """
    with Allowance("building the network"), without_network(path):
        return _build(config, path, 0)


def canonical(name: str) -> str:
    """The name by which a network goes now: before version 0.2 those of `nfa.nets` stood in ``models``."""
    if name in _BEFORE:
        return f"{_NAMED}.{_BEFORE[name]}"
    parts = name.split(".")
    last = parts[-1]
    if last in _NETS and parts[:-1] in (["models"], ["models", _NETS[last]], ["nfa", "nets", _NETS[last]]):
        return f"nfa.nets.{last}"
    return name


def _build(config: Mapping[str, object], path: str | os.PathLike, depth: int) -> nn.Module:
    name = _name(config.get(TARGET), path)
    constructor = _constructor(name, path)
    positional, arguments = _arguments(config, path, depth, holds=_held_by(name))
    if name.split(".")[0] in _WEIGHTS and len(positional) > isinstance(constructor, _Named):
        raise NfaError(f"{path}: arguments of {name} must be given by name, not under _args_")
    try:
        built = constructor(*positional, **arguments)
    except NfaError as error:
        raise NfaError(f"{path}: {name} cannot be built ({error})") from None
    except Exception as error:
        line = (str(error).splitlines() or ["no message"])[0]
        raise NfaError(
            f"{path}: {name} cannot be built with the arguments kept there ({type(error).__name__}: {line}); "
            "has it changed since?"
        ) from error
    if not isinstance(built, nn.Module):
        raise NfaError(f"{path}: {name} must give an nn.Module, got {type(built).__name__}")
    return built


# ---- names -------------------------------------------------------------------------------------------------


def _name(name: object, path: str | os.PathLike) -> str:
    if not isinstance(name, str) or "." not in name or not all(map(str.isidentifier, name.split("."))):
        raise NfaError(f"{path}: expected the dotted name of a network under {TARGET}, got {name!r:.80}")
    return name


def _held_by(name: str) -> str | None:
    """How the names begin of what may be an argument of this one; None where nothing may."""
    package, _, last = name.rpartition(".")
    if package == "nfa.nets" and last in _OF_NETS:
        return ""  # all that a file may name
    return "torch.nn." if name.startswith("torch.nn.") else None


def _constructor(name: str, path: str | os.PathLike) -> Callable[..., object]:
    found = _own(canonical(name), path) or _layer(name) or _torchvision(name, path) or _timm(name, path)
    if found is None:
        raise NfaError(_unknown(name, path))
    return found


def _own(name: str, path: str | os.PathLike) -> Callable[..., nn.Module] | None:
    package, _, last = name.rpartition(".")
    if package == "nfa.nets" and last in _NETS | _OF_NETS:
        module = f"{package}.{(_NETS | _OF_NETS)[last]}"
    elif package == _NAMED and last in _MACHINES:
        module = package
    else:
        return None
    return getattr(_zoo(module, path), last)


def _layer(name: str) -> type[nn.Module] | None:
    package, _, last = name.rpartition(".")
    found = getattr(nn, last, None) if package == "torch.nn" else None
    known = isinstance(found, type) and issubclass(found, nn.Module) and found is not nn.Module
    return found if known and found.__module__.startswith("torch.nn.modules.") else None


def _torchvision(name: str, path: str | os.PathLike) -> Callable[..., nn.Module] | None:
    if not name.startswith("torchvision.models."):
        return None
    models = _zoo("torchvision.models", path)
    builders = {known: models.get_model_builder(known) for known in models.list_models()}
    if name == "torchvision.models.get_model":
        return _Named({known: _without_weights(builder) for known, builder in builders.items()}, "name")
    for builder in builders.values():
        module = builder.__module__
        if name in (f"{module}.{builder.__name__}", f"{module.rpartition('.')[0]}.{builder.__name__}"):
            return _without_weights(builder)
    return None


def _without_weights(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    takes = inspect.signature(builder).parameters
    return partial(builder, **{name: None for name in ("weights", "weights_backbone") if name in takes})


def _timm(name: str, path: str | os.PathLike) -> Callable[..., nn.Module] | None:
    if not name.startswith("timm."):
        return None
    timm = _zoo("timm", path)
    create: dict[str, Callable[..., nn.Module]] = {
        known: partial(timm.create_model, known, pretrained=False) for known in timm.list_models()
    }
    if name in ("timm.create_model", "timm.models.create_model"):
        return _Named(create, "model_name")
    return create.get(name.rpartition(".")[2]) if name.startswith("timm.models.") else None


@dataclass
class _Named:
    """A constructor that takes the name of a network, which is one of a zoo's own."""

    known: dict[str, Callable[..., nn.Module]]
    key: str

    def __call__(self, *args: object, **options: object) -> nn.Module:
        name = args[0] if args else options.pop(self.key, None)
        if not isinstance(name, str) or name not in self.known:
            raise NfaError(f"the installed zoo has no network {name!r:.80}")
        return self.known[name](*args[1:], **options)


def _zoo(package: str, path: str | os.PathLike) -> ModuleType:
    try:
        return import_installed(package)
    except Exception as error:  # a torchvision built for another torch raises a RuntimeError
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise NfaError(
            f"{path} names a network that needs {package}, which cannot be imported ({line}): "
            'pip install "neural-feature-ansatz[zoo]"'
        ) from None


def _unknown(name: str, path: str | os.PathLike) -> str:
    module, _, last = name.rpartition(".")
    root = module.split(".")[0]
    own = root not in sys.stdlib_module_names and not is_installed(root)
    advice = f"nfa audit {module}:{last} --weights {path}" if own else _ADVICE
    return (
        f"{path} names {name}, of which nothing was imported: a file may name networks of nfa.nets, "
        "torch.nn, torchvision.models and timm alone. If it stands for code that you trust, name that "
        f"yourself: {advice}"
    )


# ---- arguments ---------------------------------------------------------------------------------------------


def plain_arguments(config: Mapping[str, object], path: str | os.PathLike) -> Arguments:
    """Positional and keyword arguments of a ``_target_``, where they are plain values.

    Raises:
        NfaError: some are not.
    """
    return _arguments(config, path, 0, holds=None)


def _arguments(
    config: Mapping[str, object], path: str | os.PathLike, depth: int, *, holds: str | None
) -> Arguments:
    name, positional = str(config[TARGET]), config.get("_args_", ())
    if config.get("_partial_"):
        raise NfaError(f"{path}: a file may not leave a call to others, as _partial_ of {name} does")
    if not isinstance(positional, list | tuple):
        raise NfaError(f"{path}: expected a list under _args_ of {name}, got {type(positional).__name__}")

    def value(entry: object, key: str = "") -> object:
        return _value(entry, f"{name} {key}".strip(), path, depth + 1, holds, key == _FREE)

    left_out = (*_OPTIONS, *_WEIGHTS.get(name.split(".")[0], ()))
    named = {k: value(v, _key(k, path)) for k, v in config.items() if k not in left_out}
    return [value(entry) for entry in positional], named


def _key(key: object, path: str | os.PathLike) -> str:
    if not isinstance(key, str) or not key.isidentifier() or key.startswith("__"):
        raise NfaError(f"{path}: expected names of arguments, got {key!r:.80}")
    return key


def _value(
    value: object, what: str, path: str | os.PathLike, depth: int, holds: str | None, free: bool = False
) -> object:
    """A plain value as it is, layers and networks built where they may be; everything else is refused."""
    if depth > _DEEPEST:
        raise NfaError(f"{path}: the arguments of {what} are nested more than {_DEEPEST} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not -_HUGE < value < _HUGE or (not free and abs(value) > _LARGEST):
            raise NfaError(f"{path}: expected a number up to {_LARGEST:.0e} for {what}, got {value!r:.40}")
        return value
    if isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise NfaError(f"{path}: expected a word without dots and slashes for {what}, got {value!r:.80}")
        return value
    if isinstance(value, list | tuple):
        return [_value(entry, what, path, depth + 1, holds) for entry in value]
    if isinstance(value, Mapping) and TARGET in value:
        if holds is None or not str(value[TARGET]).startswith(holds):
            raise NfaError(
                f"{path}: a file may give layers of torch.nn to layers of torch.nn alone, not "
                f"{value[TARGET]!r:.80} to {what}; name a function that builds it: {_ADVICE}"
            )
        return _build(value, path, depth)
    if isinstance(value, Mapping):
        return {_key(k, path): _value(v, what, path, depth + 1, None, k == _FREE) for k, v in value.items()}
    raise NfaError(f"{path}: expected plain values for {what}, got {type(value).__name__}")
