"""Ready inputs as batches: arrays in a .npz or .safetensors file, and text through a tokenizer."""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.inputs.headers import check_npz, check_size
from nfa.inputs.sampling import Inputs, Sampling
from nfa.sweep.batches import Batch

SINGLE = ("x", "inputs", "images", "input")
TARGETS = ("y", "labels", "targets", "label", "target")
_MAIN = ("input_ids", "pixel_values", "inputs_embeds")  # whose shape stands for a dictionary's
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_NUMBERED = re.compile(r"arr_\d+")  # numpy's names for arrays that were given none
_ROWS = 1024  # samples looked through at a time
_TEXT = 20  # bytes that a byte of text takes as text, tokens and numbers


def array_inputs(path: Path, sampling: Sampling, batch_dim: int = 0) -> Inputs:
    """Turn the arrays of a file into batches; their dimension ``batch_dim`` counts samples.

    It is the first one of arrays whose length along the other is another, and of targets.

    An array named as in `SINGLE` is the network's only argument: batches are x, or (x, y) with an array named
    as in `TARGETS`. Arrays of other names are keyword arguments: batches are dictionaries, the target is
    ``labels``. Floats become float32, integers int64; booleans stay.

    Raises:
        NfaError: the file or an array of it cannot be used as they are.
    """
    stored = _read_npz(path) if path.suffix.lower() == ".npz" else _read_safetensors(path)
    single, targets = _roles(path, list(stored))
    arrays = {
        name: _checked(f"{name!r} in {path}", t, masks=not single, target=name in targets)
        for name, t in stored.items()
    }
    inputs = {name: t for name, t in arrays.items() if name not in targets}
    y = next((arrays[name] for name in targets), None)
    main = next((name for name in _MAIN if name in inputs), next(iter(inputs)))
    axes = _axes(path, inputs, main, batch_dim)
    n = _common_length(path, {name: t.movedim(axes.get(name, 0), 0) for name, t in arrays.items()})
    if single and inputs[main].dim() < 2:
        raise NfaError(
            f"expected {main!r} in {path} of shape (samples, ...) with two dimensions or more, got "
            f"{tuple(inputs[main].shape)}"
        )

    def read(index: Tensor) -> Batch:
        batch = {name: _numbers(t.index_select(axes[name], index)) for name, t in inputs.items()}
        if not single:
            return batch if y is None else {**batch, "labels": _numbers(y[index])}
        return batch[main] if y is None else (batch[main], _numbers(y[index]))

    names = "" if single else f" ({', '.join(inputs)})"
    shape = tuple(inputs[main].movedim(axes[main], 0).shape[1:])
    return sampling.inputs(f"{path.name}: {{}} inputs{names}", n, y, shape, read)


def _axes(path: Path, inputs: Mapping[str, Tensor], main: str, batch_dim: int) -> dict[str, int]:
    """The axis of each array that counts samples."""
    if inputs[main].dim() <= batch_dim:
        raise NfaError(
            f"--batch-dim {batch_dim} is no axis of {main!r} in {path}, of shape {tuple(inputs[main].shape)}"
        )
    n = inputs[main].shape[batch_dim]
    along = {name for name, t in inputs.items() if t.dim() > batch_dim and t.shape[batch_dim] == n}
    return {name: batch_dim if name in along else 0 for name in inputs}


def text_inputs(
    path: Path, sampling: Sampling, tokenize: Callable[[str], list[int]] | None, tokens: int
) -> Inputs:
    """Cut a text into blocks of `tokens` ids: batches {"input_ids": int64 (b, tokens)}; the rest is left out.

    Raises:
        NfaError: there is no tokenizer; the text is not UTF-8, or shorter than one block.
    """
    if tokenize is None:
        raise NfaError(
            f"{path} is text, which needs a network with a tokenizer: name one of the form hf:NAME"
        )
    check_size(path, _TEXT)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NfaError(f"expected UTF-8 text, could not read {path} ({error})") from None
    ids = torch.tensor(tokenize(text), dtype=torch.int64)
    n = len(ids) // tokens
    if n == 0:
        raise NfaError(
            f"expected text of at least {tokens} tokens, got {len(ids)} in {path}: pass a longer text or "
            "smaller --tokens"
        )
    blocks = ids[: n * tokens].view(n, tokens)
    description = f"{path.name}: {{}} blocks of {tokens} tokens"
    return sampling.inputs(description, n, None, (tokens,), lambda index: {"input_ids": blocks[index]})


def _roles(path: Path, names: list[str]) -> tuple[bool, list[str]]:
    """Whether there is one argument only; and the names of targets, one at most."""
    single = [name for name in names if name.lower() in SINGLE]
    targets = [name for name in names if name.lower() in TARGETS]
    others = [name for name in names if name not in single and name not in targets]
    listed = ", ".join(names) or "none"
    if not single and not others:
        raise NfaError(f"no inputs in {path}: expected an array named x, or keyword arguments, got {listed}")
    if any(_NUMBERED.fullmatch(name) for name in others):
        raise NfaError(f"the arrays in {path} have no names ({listed}): save them as np.savez(FILE, x=ARRAY)")
    if len(single) + bool(others) > 1 or len(targets) > 1:
        raise NfaError(
            f"ambiguous arrays in {path} ({listed}): expected one of {', '.join(SINGLE)}, or keyword "
            "arguments of other names, and one target at most"
        )
    return bool(single), targets


def _common_length(path: Path, arrays: Mapping[str, Tensor]) -> int:
    lengths = {name: len(t) for name, t in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{n} of {name}" for name, n in lengths.items())
        raise NfaError(f"expected as many samples in every array of {path}, got {listed}")
    return next(iter(lengths.values()))


def _read_npz(path: Path) -> dict[str, Tensor]:
    import numpy as np

    if not zipfile.is_zipfile(path):
        raise NfaError(f"expected a .npz archive at {path}, found something else: save it with np.savez")
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            check_npz(path, archive)
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = _from_numpy(f"{name!r} in {path}", archive[name])
    except NfaError:
        raise
    except Exception as error:  # zipfile and numpy raise nearly anything on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NfaError(f"expected arrays of numbers in {path}, could not read them ({reason})") from None
    return arrays


def _from_numpy(title: str, array: object) -> Tensor:
    """Numbers as torch has them; other kinds are refused."""
    import numpy as np

    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        found = getattr(array, "dtype", type(array).__name__)
        raise NfaError(f"expected numbers, got {found} for {title}")
    kind = array.dtype.kind
    if kind == "f" and array.dtype.itemsize > 8:
        array = array.astype("float64")
    if kind in "iu" and array.dtype != "uint8":  # torch can hardly compute with unsigned integers
        array = array.astype("int64")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_size(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise NfaError(f"expected a .safetensors file at {path}, could not read it ({error})") from None


def _checked(title: str, t: Tensor, *, masks: bool, target: bool) -> Tensor:
    """Refuse what no network takes; integers become int64. Flat uint8 may be `masks`, else it is an image."""
    if t.dim() == 0 or t.numel() == 0:
        raise NfaError(f"expected samples along the first dimension of {title}, got shape {tuple(t.shape)}")
    if t.is_complex():
        raise NfaError(f"expected real numbers, got {t.dtype} for {title}")
    if t.dtype == torch.uint8 and not target and (t.dim() > 2 or not masks):
        raise NfaError(
            f"{title} is uint8 of shape {tuple(t.shape)}: expected inputs as the network takes them, "
            "normalised and floating; or pass a folder of images"
        )
    if not t.is_floating_point():
        return t if t.dtype == torch.bool else t.long()
    if t.dtype not in _FLOATS:
        t = t.float()
    if any(bool(rows.isnan().any()) for rows in t.split(_ROWS)):
        raise NfaError(f"{title} has values that are not finite (NaN): remove or repair them")
    return t


def _numbers(t: Tensor) -> Tensor:
    return t.float() if t.is_floating_point() else t
