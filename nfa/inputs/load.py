"""What the command line calls DATA, turned into batches for a network."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from nfa.errors import NfaError
from nfa.inputs.preprocessing import Preprocessing
from nfa.inputs.sampling import Inputs, Sampling

if TYPE_CHECKING:
    from nfa.inputs.image_sources import Images

__all__ = ["Inputs", "load_inputs"]

DIGITS = "digits"
TORCHVISION_SETS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "stl10": "STL10",
    "gtsrb": "GTSRB",
}
_ARRAYS = (".npz", ".safetensors")
TABLES = (".csv", ".tsv", ".data", ".parquet", ".pq", ".xlsx", ".xlsm")
_PACKAGES = {
    "PIL": "pillow",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "torchvision": "torchvision",
}


def load_inputs(
    data: str,
    *,
    preprocessing: Preprocessing | None = None,
    max_samples: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    split: str = "train",
    root: str = "data",
    rgb: bool = False,
    tokenize: Callable[[str], list[int]] | None = None,
    tokens: int = 128,
    batch_dim: int = 0,
    table: Path | None = None,
) -> Inputs:
    """Find the samples that `data` names; they are read batch by batch, in a seeded, stratified order.

    Args:
        data: a folder of images, with or without class folders, or divided into ``train`` and ``test`` (or
            ``val``); ``digits``; a name in `TORCHVISION_SETS`; a .npz or .safetensors file of ready inputs;
            a .txt file; a table in a file. A name comes before a folder of that name in the working folder.
        preprocessing: how the network wants its images; ready inputs and text are passed as they are.
        max_samples: at most so many; None means all. Fewer of one seed are a prefix of more.
        batch_size: samples a batch.
        seed: of choice and order.
        split: ``train`` or ``test``, of what is divided so.
        root: folder of the torchvision sets, which are downloaded if they are not there.
        rgb: repeat the channel of grey images.
        tokenize: text to token ids; the tokenizer of the network.
        tokens: length of the blocks that text is cut into.
        batch_dim: axis of the samples in a file of ready inputs.
        table: ``table.json`` of the run of the network, which says how rows of a table become inputs.

    Raises:
        NfaError: `data` names nothing that can be read, or it does not suit the options or the network.
    """
    _check_counts(max_samples=max_samples, batch_size=batch_size, tokens=tokens)
    if split not in ("train", "test"):
        raise NfaError(f"unknown split {split!r}: expected train or test")
    sampling = Sampling(max_samples, batch_size, seed)
    path = Path(os.path.expanduser(data))
    with _optional_packages(data):
        if data == DIGITS or data in TORCHVISION_SETS or (data and path.is_dir()):
            from nfa.inputs.preprocessed import image_inputs

            return image_inputs(_open_images(path, data, split, root), preprocessing, sampling, rgb=rgb)
        if path.is_file() and ending_of(path) in (TABLES if table is None else (*TABLES, ".txt")):
            return _table_inputs(path, split, sampling, table)
        return _file_inputs(path, data, split, sampling, tokenize, tokens, batch_dim)


def _open_images(path: Path, data: str, split: str, root: str) -> "Images":
    from nfa.inputs.image_sources import open_digits, open_folder, open_torchvision

    if data == DIGITS:
        return open_digits(split)
    if data in TORCHVISION_SETS:
        return open_torchvision(TORCHVISION_SETS[data], Path(os.path.expanduser(root)), split)
    return open_folder(path, split)


def ending_of(path: Path) -> str:
    """What the name of a file ends with, ``.csv`` for a packed ``.csv.gz`` too."""
    packed = path.suffix.lower() in (".gz", ".bz2", ".xz")
    return (Path(path.stem) if packed else path).suffix.lower()


def _table_inputs(path: Path, split: str, sampling: Sampling, table: Path | None) -> Inputs:
    from nfa.inputs.tables import load_encoder

    if table is None:
        raise NfaError(
            f"{path} is a table, and nothing says how its rows become inputs of this network: give a run of "
            "train.py on a table, or ready inputs (.npz, .safetensors)"
        )
    _check_undivided(path, split)
    x = load_encoder(table).transform(path)
    return sampling.inputs(f"{path.name}: {{}} rows", len(x), None, (x.shape[1],), lambda index: x[index])


def _file_inputs(
    path: Path,
    data: str,
    split: str,
    sampling: Sampling,
    tokenize: Callable[[str], list[int]] | None,
    tokens: int,
    batch_dim: int,
) -> Inputs:
    from nfa.inputs.arrays import array_inputs, text_inputs

    ending = path.suffix.lower()
    if not path.is_file() or ending not in (*_ARRAYS, ".txt"):
        raise NfaError(_unknown(path, data))
    _check_undivided(path, split)
    if ending in _ARRAYS:
        return array_inputs(path, sampling, batch_dim)
    return text_inputs(path, sampling, tokenize, tokens)


def _check_undivided(path: Path, split: str) -> None:
    if split == "test":
        raise NfaError(f"{path} is not divided into train and test: leave out --split test")


def _unknown(path: Path, data: str) -> str:
    found = f"cannot read {path}" if data and path.exists() else f"found no data {data!r}"
    names = [DIGITS, *TORCHVISION_SETS]
    try:
        beside = [f.name for f in path.parent.iterdir() if f != path]
    except (OSError, ValueError):
        beside = []
    near = get_close_matches(data.lower(), names, 3)
    near += [str(path.with_name(name)) for name in get_close_matches(path.name, beside, 3)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return (
        f"{found}: expected {', '.join(names)}, a folder of images, a .npz or .safetensors file of ready "
        f"inputs, a table of a run on tables, or a .txt file{hint}"
    )


def _check_counts(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            option = name.replace("_", "-")
            raise NfaError(f"expected --{option} to be a whole number of at least 1, got {value!r}")


@contextmanager
def _optional_packages(data: str) -> Iterator[None]:
    """Say in one sentence which package is missing; nfa itself needs PyTorch alone."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _PACKAGES:
            raise
        package = "scikit-learn" if name == "sklearn" else '"neural-feature-ansatz[zoo]"'
        raise NfaError(f"{data} needs {_PACKAGES[name]}: pip install {package}") from None
