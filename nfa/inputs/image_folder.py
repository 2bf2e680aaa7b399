"""The image files of a folder and their classes."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.inputs.image_files import ENDINGS, is_image

_PARTS = {"train": ("train",), "test": ("test", "val")}


class Listing(NamedTuple):
    """Image files of a folder.

    Attributes:
        name: of the folder, with ``/train`` or the like where one of its parts was taken.
        paths: the files.
        labels: their class indices int64 (n,), by sorted names of class folders; None without such folders.
    """

    name: str
    paths: list[Path]
    labels: Tensor | None


def list_images(root: Path, split: str) -> Listing:
    """List the images in ``root/CLASS/``, or in ``root`` itself, or in either way in ``root/train/``.

    Folders inside class folders belong to the class. Where there are ``root/train/`` and ``root/test/`` (or
    ``val``), `split` says which of them to take.

    Args:
        root: an existing folder.
        split: ``train`` or ``test``.

    Raises:
        NfaError: there are no images, or images beside class folders, or no such split.
    """
    folder = _part(root, split)
    name = root.resolve().name or str(root)
    if folder == root:
        names = class_folders(root)
    else:
        name = f"{name}/{folder.name}"
        names = _shared_classes(root / "train", folder)
    return _list(name, folder, names)


def _list(name: str, folder: Path, names: list[str]) -> Listing:
    loose = sorted(f for f in folder.iterdir() if is_image(f) and f.is_file())
    found = [images_below(folder / n) for n in names]
    paths = [path for files in found for path in files]
    if loose and paths:
        raise NfaError(
            f"expected images in {folder} or in its class folders, found both ({loose[0].name} and "
            f"{paths[0].relative_to(folder)}): put the ones without a class elsewhere"
        )
    if not loose and not paths:
        raise NfaError(
            f"no images in {folder}: expected files ending in {' '.join(ENDINGS)}, there or in class folders"
        )
    if loose:
        return Listing(name, loose, None)
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(files) for files in found]))
    return Listing(name, paths, labels)


def _part(root: Path, split: str) -> Path:
    """Return the folder that `split` names, `root` itself where it is not divided."""
    folders = set(class_folders(root))
    train_is_part = "train" in folders and (folders & {"test", "val"} or class_folders(root / "train"))
    if not train_is_part and not (folders and folders <= {"test", "val"}):
        if split == "test":
            raise NfaError(f"{root} is not divided into train and test: leave out --split test")
        return root
    for name in _PARTS[split]:
        if name in folders:
            return root / name
    other = "test" if split == "train" else "train"
    raise NfaError(f"{root} has no folder {' or '.join(_PARTS[split])}: add it, or pass --split {other}")


def _shared_classes(train: Path, folder: Path) -> list[str]:
    """Class names of both parts, so that a class has one index in the two of them."""
    names = class_folders(folder)
    if not train.is_dir() or not names:
        return names
    known = class_folders(train)
    unknown = sorted(set(names).difference(known))
    if unknown:
        raise NfaError(
            f"expected the class folders of {train} in {folder}, found others ({', '.join(unknown[:5])}): "
            "make them equal"
        )
    return known


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are none."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def images_below(folder: Path) -> list[Path]:
    """Images of a class folder and of the folders in it, sorted; none where it does not exist."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [p for p in (Path(place, f) for f in files) if is_image(p) and p.is_file()]  # no pipes
    return sorted(found)
