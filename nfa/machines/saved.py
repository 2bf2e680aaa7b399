"""Fitted machines in safetensors files: their tensors, and the rest as JSON in the header."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.files import replaced_whole


def save_machine(
    path: str | os.PathLike, form: str, tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write a file, whole or not at all.

    Args:
        path: of the file.
        form: what is in it, ``nfa.<class> <version>``.
        tensors: by name.
        state: what JSON can hold.
    """
    from safetensors.torch import save_file

    if not Path(path).parent.is_dir():
        raise NfaError(f"cannot write {path}: there is no folder {Path(path).parent}")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replaced_whole(path) as partial:
        save_file(plain, partial, {"format": form, "state": json.dumps(state)})


def load_machine(
    path: str | os.PathLike, form: str, device: torch.device | str | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a file that `save_machine` wrote.

    Raises:
        NfaError: the file is missing, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    writer = form.partition(" ")[0].removeprefix("nfa.")
    if not Path(path).is_file():
        raise NfaError(f"no file at {path}: expected a machine saved by {writer}.save")
    try:
        with safe_open(path, "pt", device=str(device or "cpu")) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise NfaError(f"{path} cannot be read as a safetensors file ({error})") from None
    if metadata.get("format") != form:
        raise NfaError(f"{path} is no machine saved by {writer}.save: its format is not {form!r}")
    return tensors, json.loads(metadata["state"])
