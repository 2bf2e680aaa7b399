"""Files of weights: read without running anything in them, and loaded whole or not at all."""

import argparse
import importlib
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nfa.checks import near
from nfa.device import check_fits
from nfa.errors import NfaError
from nfa.machines.fitted_sizes import make_room
from nfa.zoo.ties import contradiction, filled_by

SUFFIXES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".safetensors")
PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "net.")
_HOLDERS = (
    "state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "params", "weights",
    "state_dict_ema", "model_ema", "ema",
)  # fmt: skip
_UNUSED = "num_batches_tracked"  # came with PyTorch 0.4.1; BatchNorm reads it only while training
_VARIANTS = 32


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the state dict in a file of weights, names as they are there, on the CPU.

    Args:
        path: what ``torch.save`` wrote (``.pth``, ``.pt``, ``.th``, ``.bin``, ``.ckpt``), or
            ``.safetensors``. The state dict is the file itself or is found in it under ``state_dict``,
            ``model_state_dict``, ``model``, ``net``, ``ema``, ….

    Returns:
        Tensors by name; those of a large file may be mapped from it and are not to be written to.

    Raises:
        NfaError: no such file, a damaged one, one that would run code, or one without a state dict.
    """
    return find_state(read_file(path), path)


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Load a file of weights into a network, in place; every name and shape must fit.

    Prefixes that wrappers add (``module.``, ``_orig_mod.``, ``network.``, ``model.``, ``net.``) are taken
    off where the names fit then. Half precision becomes the dtype of the network. What is one tensor in the
    network under several names need stand in the file under one.

    Raises:
        NfaError: as `read_weights`, or the weights do not fit; the network is as it was then.
    """
    load_state(model, read_weights(path), path)


# ---- files -----------------------------------------------------------------------------------------------


def read_file(path: str | os.PathLike) -> object:
    """Read whatever a file of weights or a checkpoint holds: tensors and plain types, nothing that runs.

    Raises:
        NfaError: see `read_weights`.
    """
    path = Path(path)
    _check_file(path)
    check_fits(path.stat().st_size, f"{path}", "give a smaller file, or more memory")
    return _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)


def _check_file(path: Path) -> None:
    """Refuse what is no file with contents, or is plainly something else."""
    kinds = ", ".join(SUFFIXES)
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)[:3]
        raise NfaError(
            f"expected a file of weights ({kinds}), {path} is a folder"
            + (f": give a file in it, such as {', '.join(inside)}" if inside else " with none in it")
        )
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise NfaError(
            f"no file {path}: give the path of a file of weights ({kinds}){near(path.name, beside)}"
        )
    try:
        with path.open("rb") as handle:
            head = handle.read(64)
    except OSError as error:
        raise NfaError(f"cannot read {path}: {error.strerror}") from None
    if not head:
        raise NfaError(f"{path} is empty: expected a file of weights ({kinds})")
    if head.startswith(b"version https://git-lfs"):
        raise NfaError(f"{path} is a Git LFS pointer, not the weights: fetch them with git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise NfaError(f"{path} is a web page, not a file of weights: download the file itself")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        safetensors = importlib.import_module("safetensors.torch")
    except ImportError:
        raise NfaError(
            f'{path} needs the package safetensors: pip install "neural-feature-ansatz[zoo]"'
        ) from None
    try:
        return safetensors.load_file(path)
    except Exception as error:
        raise NfaError(f"{path} is cut off or damaged, or no safetensors file ({_line(error)})") from None


def _read_torch(path: Path) -> object:
    archive = _check_archive(path)
    allowed = [argparse.Namespace, *_numpy_scalars()]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        warnings.simplefilter("ignore")  # of old formats; whether the file is good is checked here
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
        except Exception as error:
            raise NfaError(_unreadable(path, error)) from None


def _check_archive(path: Path) -> bool:
    """Whether the file is the zip archive of today's ``torch.save``, whole: torch checks no checksum."""
    with path.open("rb") as handle:
        if handle.read(4) != b"PK\x03\x04":
            return False  # the format before PyTorch 1.6
    try:
        with zipfile.ZipFile(path) as archive:
            names, size = archive.namelist(), path.stat().st_size
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            claimed = sum(entry.file_size for entry in archive.infolist())
            damaged = None if packed or claimed > size else archive.testzip()
    except Exception as error:  # zipfile raises nearly anything on damaged files
        raise NfaError(f"{path} is cut off or damaged ({_line(error)}): fetch or save it again") from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise NfaError(
            f"{path} is a TorchScript archive: expected weights, torch.save(model.state_dict(), path)"
        )
    if packed or claimed > size:
        raise NfaError(
            f"{path} was not written by torch.save: its entries are compressed, or tell of {claimed} bytes "
            f"in a file of {size}; save the weights again"
        )
    if damaged is not None:
        raise NfaError(f"{path} is damaged (checksum of {damaged}): fetch or save it again")
    return True


def _numpy_scalars() -> list[Any]:
    """What a number of numpy's in a checkpoint (a best accuracy, often) is built from; it runs nothing."""
    try:
        import numpy
    except ImportError:
        return []
    core = getattr(numpy, "_core", None) or numpy.core
    kinds = {type(numpy.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")}
    return [
        (core.multiarray.scalar, "numpy.core.multiarray.scalar"),
        core.multiarray.scalar,
        numpy.dtype,
        *kinds,
    ]


def _unreadable(path: Path, error: Exception) -> str:
    """Why torch refused a file, in one sentence."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+)", text) or re.search(r"(?:class|function) (\S+)", text)
    if "Weights only load failed" in text and named:
        return (
            f"{path} was refused: reading it would run code ({named[1].rstrip('.,')}); expected tensors and "
            "plain types alone, as torch.save(model.state_dict(), path) writes them"
        )
    if "EOF" in text or isinstance(error, EOFError) or "corrupted" in text:
        return f"{path} is cut off or damaged ({_line(error)}): fetch or save it again"
    return (
        f"{path} is no file of weights that torch can read safely ({_line(error)}); expected what "
        "torch.save(model.state_dict(), path) writes, or .safetensors"
    )


def _line(error: BaseException) -> str:
    """The end of an error's message that says something, in one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("Unsupported", "unexpected"))), None)
    return f"{type(error).__name__}: {(told or (lines or ['no message'])[0])[:120]}"


# ---- the state dict in a file ------------------------------------------------------------------------------


def find_state(content: object, path: str | os.PathLike) -> dict[str, Tensor]:
    """Find the state dict in what a file holds.

    Raises:
        NfaError: there is none.
    """
    found = _find(content, depth=3)
    if found is None:
        holds = (
            f"the entries {', '.join(map(str, list(content)[:6])) or 'none'}"
            if isinstance(content, Mapping)
            else f"a {type(content).__name__}"
        )
        raise NfaError(
            f"{path} has no state dict: expected tensors by name, at the top or under state_dict, got {holds}"
        )
    for name, t in found.items():
        if t.is_nested or t.is_meta or t.layout != torch.strided:
            what = "no values" if t.is_meta else "no dense values"
            raise NfaError(f"{path} has {what} in {name}: expected plain tensors, dense and on the CPU")
    # a stride of 0 claims any number of entries with one
    claimed = sum(t.numel() * t.element_size() for t in found.values())
    check_fits(claimed, f"the state dict of {path}", "it claims more than such a file can hold")
    return found


def _find(content: object, depth: int) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping) or depth == 0:
        return None
    likely = [content[key] for key in _HOLDERS if isinstance(content.get(key), Mapping)]
    for entry in likely:
        found = _find(entry, depth - 1)
        if found is not None:
            return found
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        return tensors
    others = [v for v in content.values() if isinstance(v, Mapping) and any(map(_is_tensor, v.values()))]
    return _find(others[0], depth - 1) if len(others) == 1 else None


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


# ---- into a network ----------------------------------------------------------------------------------------


def load_state(model: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Load a state dict read from ``path`` into a network, in place; see `load_weights`."""
    own = own_tensors(model)
    fitted = fit_names(own, state)
    make_room(model, fitted)
    own = own_tensors(model)
    tied = filled_by(own, fitted)
    differences = [
        *(f"{k} is {theirs} in the file, {mine} in the network" for k, theirs, mine in _shapes(own, fitted)),
        *(f"{k} is missing in the file" for k in own if k not in tied and _needed(k, fitted)),
        *(f"{k} is only in the file" for k in fitted if k not in own),
    ]
    if differences:
        raise NfaError(
            f"{path} does not fit the network ({len(differences)} of {len(own)} tensors differ): "
            f"{'; '.join(differences[:3])}. Give the weights of this architecture, or name theirs"
        )
    for name, tensor in fitted.items():
        _check_kind(name, own[name], tensor, path)
    torn = contradiction(own, fitted)
    if torn:
        raise NfaError(
            f"{path} does not fit the network: {torn[0]} and {torn[1]} are one tensor in the network, and "
            "have different values in the file. Give the weights of this architecture, or untie them"
        )
    model.load_state_dict(fitted, strict=False)
    for module in model.modules():
        _size_lazy(module)


def _needed(name: str, fitted: Mapping[str, Tensor]) -> bool:
    return name not in fitted and not name.endswith(_UNUSED)


def _size_lazy(module: nn.Module) -> None:
    """Tell a lazily built map whose weight came from a file its number of inputs, set at the first call."""
    if isinstance(module, nn.LazyLinear) and not module.has_uninitialized_params():
        module.in_features = module.weight.shape[1]
    elif isinstance(module, nn.LazyConv1d | nn.LazyConv2d | nn.LazyConv3d) and not is_lazy(module.weight):
        module.in_channels = module.weight.shape[1] * module.groups


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network without what is no tensor."""
    return {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}


def fit_names(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of the network, as far as taking wrappers' prefixes off gets there.

    Where a prefix is taken off, what does not have it (a loss, metrics) is the wrapper's and is left out.
    """

    def misfits(variant: Mapping[str, Tensor]) -> int:
        return len(own.keys() ^ variant.keys())

    return min(_variants(dict(state)), key=misfits)  # of equals the first: the fewest changes


def _variants(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state dict, and the same without one, two, … prefixes."""
    queue = [state, {k.replace("_orig_mod.", ""): v for k, v in state.items()}]
    for count, variant in enumerate(queue):  # grows while it is read
        yield variant
        if count < _VARIANTS:
            for prefix in PREFIXES:
                inner = {k[len(prefix) :]: v for k, v in variant.items() if k.startswith(prefix)}
                queue.extend([inner] if inner else [])


def _shapes(
    own: Mapping[str, Tensor], fitted: Mapping[str, Tensor]
) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """(name, shape in the file, shape in the network) of all tensors whose shapes differ."""
    return [
        (k, tuple(fitted[k].shape), tuple(mine.shape))
        for k, mine in own.items()
        if k in fitted and not is_lazy(mine) and fitted[k].shape != mine.shape
    ]


def other_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Number of classes of a state dict that differs from the network in that number alone, else None."""
    own = own_tensors(model)
    shapes = _shapes(own, fit_names(own, state))
    if not shapes or any(not a or not b or a[1:] != b[1:] for _, a, b in shapes):
        return None
    counts = {(theirs[0], mine[0]) for _, theirs, mine in shapes}
    return counts.pop()[0] if len(counts) == 1 else None


def _check_kind(name: str, mine: Tensor, theirs: Tensor, path: str | os.PathLike) -> None:
    """Refuse what is no floating number where the network has one, and the other way round."""
    if theirs.is_floating_point() == mine.is_floating_point() and not (
        theirs.is_quantized or theirs.is_complex()
    ):
        return
    if theirs.is_complex() and mine.is_complex():
        return
    kind = "quantised " if theirs.is_quantized else ""
    raise NfaError(
        f"{path} has {kind}{theirs.dtype} in {name}, the network {mine.dtype}: "
        "give the weights in floating point"
    )
