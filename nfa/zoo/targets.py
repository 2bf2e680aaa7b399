"""Dotted paths to code: what a user names on the command line, and the little that a checkpoint may name.

A checkpoint comes from anywhere, so the ``_target_`` in it may name only what builds networks and does
nothing else: classes of ``torch.nn``, torchvision, timm and nfa.machines, their builders (without downloads),
and the user's own code: an ``nn.Module`` class outside installed packages, or a function below the working
directory.
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from nfa.errors import NfaError
from nfa.zoo.names import near

_LIBRARIES = ("torch.nn", "torchvision.models", "torchvision.ops", "timm", "nfa.machines")
_DOWNLOADS = {"torchvision": {"weights": None, "weights_backbone": None}, "timm": {"pretrained": False}}
_FILES = (
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)  # of timm: names of files and addresses
_OPTIONS = ("_target_", "_args_", "_partial_", "_convert_", "_recursive_")


@contextmanager
def importable_from_here() -> Iterator[None]:
    """Context in which modules of the working directory can be imported."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def import_attribute(module: str, path: str) -> Any:
    """The attribute ``path`` (dotted) of a module.

    Raises:
        NfaError: the module cannot be imported or has no such attribute.
    """
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise NfaError(
            f"cannot import {module} ({type(error).__name__}: {_line(error)}); modules are looked for in the "
            f"working directory {os.getcwd()} and among the installed packages"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise NfaError(f"{module} has no {path!r}{near(name, [n for n in dir(found) if n[0] != '_'])}")
        found = getattr(found, name)
    return found


def build_target(config: Any, path: str | os.PathLike) -> Any:
    """Build what a ``_target_`` dictionary of a checkpoint describes, nested ones first.

    Args:
        config: ``_target_`` and its keyword arguments (``_args_``: positional ones; ``_partial_``: leave the
            call to others), plain types.
        path: of the checkpoint, for messages.

    Raises:
        NfaError: a target is not one a checkpoint may name, cannot be imported, or does not take its
            arguments.
    """
    if isinstance(config, list | tuple):
        return [build_target(entry, path) for entry in config]
    if not isinstance(config, Mapping):
        return config
    arguments = {k: build_target(v, path) for k, v in config.items() if k not in _OPTIONS}
    if "_target_" not in config:
        return arguments
    name = config["_target_"]
    target = _allowed(name, path)
    arguments = _without_downloads(target, arguments)
    positional = [build_target(entry, path) for entry in config.get("_args_", ())]
    if config.get("_partial_"):
        return functools.partial(target, *positional, **arguments)
    try:
        return target(*positional, **arguments)
    except NfaError:
        raise
    except Exception as error:
        raise NfaError(
            f"{path}: {name} cannot be built with the arguments kept there ({type(error).__name__}: "
            f"{_line(error)}); has it changed since?"
        ) from error


def _allowed(name: Any, path: str | os.PathLike) -> Any:
    """The class or function of that name, if a checkpoint may name it."""
    if (
        not isinstance(name, str)
        or "." not in name
        or not all(part.isidentifier() for part in name.split("."))
    ):
        raise NfaError(f"{path}: expected the dotted path of a network under _target_, got {name!r}")
    if not _may_import(name):
        raise _refused(name, path)
    target = _locate(name, path)
    if not (_is_class(target) or _is_function(target)):
        raise _refused(name, path)
    return target


def _refused(name: str, path: str | os.PathLike) -> NfaError:
    return NfaError(
        f"{path} names {name}, which was not called: a checkpoint may name classes of networks of torch.nn, "
        "torchvision, timm and of your own code, and functions below the working directory. If you trust it, "
        "give a function of yours that builds the network: my_module:build --weights FILE"
    )


def _may_import(name: str) -> bool:
    """Whether the modules of a dotted path may be imported at all: importing runs code too."""
    root = name.split(".")[0]
    if root in ("torch", "torchvision", "timm"):
        return name.startswith(tuple(f"{library}." for library in _LIBRARIES))
    if root in sys.stdlib_module_names or root == "__main__":
        return False
    try:
        spec = importlib.machinery.PathFinder.find_spec(root) or importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return True  # the import says what is missing
    files = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return all(_is_own(file) for file in files)


def _locate(name: str, path: str | os.PathLike) -> Any:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(error.name + ".")):
                continue  # the last part is no module: perhaps a class with attributes
            raise NfaError(f"{path}: cannot import {module} ({_line(error)})") from error
        except Exception as error:
            raise NfaError(
                f"{path}: cannot import {module} ({type(error).__name__}: {_line(error)})"
            ) from error
        try:
            return import_attribute(module, ".".join(parts[cut:]))
        except NfaError as error:
            raise NfaError(f"{path}: {error}") from None
    raise NfaError(
        f"{path}: cannot import {name}: run this in the folder where the network was trained, with its code"
    )


def _is_class(target: Any) -> bool:
    if not (isinstance(target, type) and issubclass(target, nn.Module)):
        return False
    module = target.__module__
    if module.startswith(tuple(f"{library}." for library in _LIBRARIES)):
        return True
    return _is_own(getattr(sys.modules.get(module), "__file__", None))


def _is_function(target: Any) -> bool:
    if not isinstance(target, types.FunctionType):
        return False
    module, name = target.__module__ or "", target.__name__
    root = module.split(".")[0]
    if root == "torchvision":
        models = importlib.import_module("torchvision.models")
        return target is models.get_model or (
            name in models.list_models() and models.get_model_builder(name) is target
        )
    if root == "timm":
        timm = importlib.import_module("timm")
        return target is timm.create_model or (timm.is_model(name) and timm.model_entrypoint(name) is target)
    file = target.__code__.co_filename
    return _is_own(file) and Path(file).resolve().is_relative_to(Path.cwd().resolve())


def _is_own(file: str | None) -> bool:
    """Whether a file is the user's: neither of the standard library nor of an installed package."""
    if not file or not Path(file).exists():
        return False
    place = Path(file).resolve()
    library = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]
    installed = {"site-packages", "dist-packages"} & set(place.parts)
    return not installed and not any(place.is_relative_to(folder) for folder in library)


def _without_downloads(target: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a builder of torchvision or timm that leave the weights to the checkpoint."""
    if isinstance(target, type):
        return arguments
    root = (target.__module__ or "").split(".")[0]
    takes = inspect.signature(target).parameters
    fixed = {
        k: v for k, v in _DOWNLOADS.get(root, {}).items() if k in takes or k in arguments or k == "pretrained"
    }
    kept = {k: v for k, v in arguments.items() if root != "timm" or k not in _FILES}
    return {**kept, **fixed}


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no message"])[0]
