"""A user's own images: one folder a class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.base import TensorDataModule
from datamodules.images import decode_files
from datamodules.splits import Split, cut
from lab.options import IMAGE_FOLDER, check_all
from nfa.errors import NfaError
from nfa.inputs.image_files import ENDINGS
from nfa.inputs.image_folder import class_folders, images_below
from nfa.inputs.stratify import generator


@dataclass(frozen=True)
class _Files:
    """Image files and their class indices y int64 (n,)."""

    paths: list[Path]
    y: Tensor

    def take(self, index: Tensor) -> "_Files":
        return _Files([self.paths[i] for i in index], self.y[index])


class ImageFolderData(TensorDataModule):
    """Images in ``root/train/CLASS/`` and ``root/test/CLASS/``, or all of them in ``root/CLASS/``.

    Where there is no test folder, ``root/val/`` takes its place; in the second layout, a seeded, stratified
    `test_fraction` does. Files are chosen (`n_train`, `n_test`) before they are decoded, each once: to RGB,
    or to grey if all of them are grey. Folders inside class folders belong to the class.

    Args:
        root: the folder.
        size: side of the square images wanted (shorter side resized, centre cut out); None keeps their shape.
        test_fraction: in (0, 1), used in the second layout only.
        base: options of `TensorDataModule`.

    Raises:
        NfaError: an option is out of range, or (in `setup`) the folder cannot be read as described.
    """

    def __init__(
        self, root: str | Path, size: int | None = None, test_fraction: float = 0.2, **base: Any
    ) -> None:
        super().__init__(**base)
        check_all("data", IMAGE_FOLDER, {"root": root, "size": size, "test_fraction": test_fraction})
        self.root, self.size, self.test_fraction = Path(root).expanduser(), size, test_fraction

    def load(self) -> tuple[Split, Split]:
        """List the files, choose among them, decode those chosen."""
        train, test = self._list()
        train = train.take(self.subset(train.y, self.n_train, "n_train"))
        test = test.take(self.subset(test.y, self.n_test, "n_test"))
        x = decode_files(train.paths + test.paths, self.size)  # together: grey or RGB is one decision
        n = len(train.paths)
        return Split(x[:n], train.y), Split(x[n:], test.y)

    def _list(self) -> tuple[_Files, _Files]:
        """All training and test files; sets `class_names`."""
        if not self.root.is_dir():
            raise NfaError(
                f"expected a folder of images at {self.root.absolute()}, found none: pass data.root=FOLDER"
            )
        train_folder = self.root / "train"
        test_folder = next((f for f in (self.root / "test", self.root / "val") if f.is_dir()), None)
        if train_folder.is_dir() and test_folder is not None:
            return self._list_pair(train_folder, test_folder)
        if train_folder.is_dir() and class_folders(train_folder):
            raise NfaError(
                f"expected test or val beside {train_folder}, found neither: add one, or pass "
                f"data.root={train_folder} to set data.test_fraction of it aside"
            )
        self.class_names = _class_names(self.root)
        return self._cut(_list_files(self.root, self.class_names))

    def _list_pair(self, train: Path, test: Path) -> tuple[_Files, _Files]:
        self.class_names = _class_names(train)
        differing = set(self.class_names).symmetric_difference(_class_names(test))
        if differing:
            raise NfaError(
                f"expected the same class folders in {train} and {test}, only one of them has "
                f"{', '.join(sorted(differing))}: make them equal"
            )
        return _list_files(train, self.class_names), _list_files(test, self.class_names)

    def _cut(self, files: _Files) -> tuple[_Files, _Files]:
        train, test = cut(files.y, self.test_fraction, generator(self.seed, "test"))
        return files.take(train), files.take(test)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(class_folders(folder))
    if not names:
        raise NfaError(f"expected one sub-folder of images for each class in {folder}, found no sub-folder")
    return names


def _list_files(folder: Path, class_names: tuple[str, ...]) -> _Files:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = images_below(folder / name)
        if not found:
            raise NfaError(
                f"expected images in the class folder {folder / name}, found no file with one of the endings "
                f"{' '.join(ENDINGS)}: add some or remove the folder"
            )
        paths += found
        labels += [label] * len(found)
    return _Files(paths, torch.tensor(labels))
