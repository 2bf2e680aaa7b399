"""Fitted machines in safetensors files: their tensors, and the rest as JSON in the header.

Reading one runs nothing and imports nothing that it names: options go through the checks of the machine, and
tensors must have the sizes that belong to them before anything of these sizes is made.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfa.checks import device_of_name, told
from nfa.device import size_words
from nfa.errors import NfaError
from nfa.files import replaced_whole
from nfa.solvers import room

Saved = tuple[dict[str, Tensor], dict[str, Any]]


def save_machine(
    path: str | os.PathLike, form: str, tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write a file, whole or not at all.

    Args:
        path: of the file.
        form: what is in it, ``nfa.<class> <version>``.
        tensors: by name.
        state: what JSON can hold.

    Raises:
        NfaError: it cannot be written there.
    """
    from safetensors.torch import save_file

    path = _path_of(path)
    if not path.parent.is_dir():
        raise NfaError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise NfaError(f"cannot write {path}: it is a folder; give the name of a file in it")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replaced_whole(path) as partial:
            save_file(plain, partial, {"format": form, "state": json.dumps(state)})
    except OSError as error:
        raise NfaError(f"cannot write {path} ({error.strerror or error})") from None


@contextmanager
def opened_machine(
    path: str | os.PathLike, form: str, device: torch.device | str | None = None
) -> Iterator[Saved]:
    """Tensors and state of a file that `save_machine` wrote; what its contents break in here is told of it.

    Raises:
        NfaError: the file is missing, or holds something else, or is damaged.
    """
    path, writer = _path_of(path), form.partition(" ")[0].removeprefix("nfa.")
    try:
        yield _read(path, form, writer, device_of_name(device))
    except _OtherFile as error:
        raise NfaError(str(error)) from None
    except Exception as error:  # anything may be in there
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise NfaError(f"{path} is no intact machine saved by {writer}.save ({reason})") from error


def expect(what: str, tensor: Tensor | None, *shape: int | None) -> Tensor:
    """A tensor of a file, of a shape of which None leaves a size open; all sizes are 1 or more.

    Raises:
        NfaError: it is missing, or has other sizes, or values that are not finite.
    """
    if tensor is None:
        raise NfaError(f"{what} is missing")
    right = tensor.dim() == len(shape) and tensor.numel()
    if not right or any(s not in (None, t) for s, t in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("…" if size is None else str(size) for size in shape)
        raise NfaError(f"{what} must have the shape ({wanted}), it is {told(tensor)}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise NfaError(f"{what} must be float32 or float64, it is {told(tensor)}")
    if not bool(torch.isfinite(tensor).all()):
        raise NfaError(f"{what} has values that are not finite")
    return tensor


def expect_room(numbers: int) -> None:
    """Refuse a machine that is larger than the memory."""
    if 8 * numbers > room(torch.device("cpu"), None):
        raise NfaError(f"it takes {size_words(8 * numbers)}, more than the memory that is free")


def history_of(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The history in a file."""
    history = state["history"]
    if not (isinstance(history, list) and history and all(isinstance(row, dict) for row in history)):
        raise NfaError("its history must be a list of dictionaries, one a round or layer")
    return history


class _OtherFile(Exception):
    """Not a damaged machine but none at all."""


def _path_of(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise NfaError(f"expected the path of a file, got {told(path)}")
    return Path(path)


def _read(path: Path, form: str, writer: str, device: torch.device | None) -> Saved:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise _OtherFile(f"no file at {path}: expected a machine saved by {writer}.save")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != form:
                raise _OtherFile(f"{path} is no machine saved by {writer}.save: its format is not {form!r}")
            tensors = {name: file.get_tensor(name).to(device or "cpu") for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _OtherFile(f"{path} cannot be read as a safetensors file ({error})") from None
    state = json.loads(metadata["state"])
    if not isinstance(state, dict) or not isinstance(state.get("options"), dict):
        raise NfaError("its state must be a dictionary with the options of the machine")
    state["options"].setdefault("offset", "none")  # version 0.1 knew of none
    return tensors, state
