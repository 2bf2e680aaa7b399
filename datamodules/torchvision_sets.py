"""The small image sets of torchvision, read whole: one class for all of them."""

import contextlib
import pickle
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from datamodules.base import TensorDataModule
from datamodules.checks import check_choice, check_count
from datamodules.images import decode_files, resize
from datamodules.splits import Split
from nfa.errors import NfaError

NETWORK_TIMEOUT = 10.0  # seconds without an answer after which a download counts as impossible
_UNREADABLE = (
    OSError,  # no such file, no network, time out
    RuntimeError,  # torchvision's own "not found or corrupted"
    HTTPException,
    ValueError,
    AssertionError,
    EOFError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class _Source:
    """Where a set of torchvision comes from.

    Attributes:
        dataset: its class.
        split_argument: ``train`` if its constructor takes ``train=True``, ``split`` if ``split="train"``.
        archives: files as they are downloaded.
        url: where they come from.
        folder: where under root they go.
    """

    dataset: type[datasets.VisionDataset]
    split_argument: str
    archives: tuple[str, ...]
    url: str
    folder: str = ""

    def open(self, root: Path, *, train: bool, download: bool) -> datasets.VisionDataset:
        split = train if self.split_argument == "train" else ("train" if train else "test")
        return self.dataset(root, download=download, **{self.split_argument: split})


def _mnist(dataset: type[datasets.MNIST]) -> _Source:
    archives = tuple(name for name, _ in dataset.resources)
    return _Source(dataset, "train", archives, dataset.mirrors[0], f"{dataset.__name__}/raw")


def _parent(url: str) -> str:
    return url.rpartition("/")[0] + "/"


def _one_archive(dataset: type[datasets.CIFAR10 | datasets.STL10], split_argument: str) -> _Source:
    return _Source(dataset, split_argument, (dataset.filename,), _parent(dataset.url))


SOURCES = {
    "MNIST": _mnist(datasets.MNIST),
    "FashionMNIST": _mnist(datasets.FashionMNIST),
    "CIFAR10": _one_archive(datasets.CIFAR10, "train"),
    "CIFAR100": _one_archive(datasets.CIFAR100, "train"),
    "SVHN": _Source(
        datasets.SVHN,
        "split",
        tuple(datasets.SVHN.split_list[split][1] for split in ("train", "test")),
        _parent(datasets.SVHN.split_list["train"][0]),
    ),
    "STL10": _one_archive(datasets.STL10, "split"),
    "GTSRB": _Source(
        datasets.GTSRB,
        "split",
        ("GTSRB-Training_fixed.zip", "GTSRB_Final_Test_Images.zip", "GTSRB_Final_Test_GT.zip"),
        "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/",  # as inside GTSRB.download
        "gtsrb",
    ),
}


class TorchvisionSet(TensorDataModule):
    """MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN, STL10 or GTSRB as uint8 (n, channels, height, width).

    Args:
        name: which of them, spelled as in torchvision.
        root: folder that torchvision's own loaders use.
        download: fetch what is missing there, and unpack archives that were put there by hand.
        size: side to resize images to; None keeps them (32 for GTSRB, whose images all differ).
        base: options of `TensorDataModule`.

    Raises:
        NfaError: an option is out of range; or the files are missing or damaged and cannot be fetched: the
            message says which belong where.
    """

    def __init__(
        self,
        name: str,
        root: str | Path = "data",
        download: bool = True,
        size: int | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        check_choice("data.name", name, tuple(SOURCES))
        if size is not None:
            check_count("data.size", size)
        self.name, self.root, self.download = name, Path(root).expanduser(), download
        self.size = 32 if size is None and name == "GTSRB" else size

    def prepare_data(self) -> None:
        """Download and unpack if allowed and needed; find out whether the files can be read."""
        for train in (True, False):
            self._open(train=train, download=self.download)

    def load(self) -> tuple[Split, Split]:
        """Read both splits; samples are chosen (`n_train`, `n_test`) before they are decoded or resized."""
        train = self._open(train=True, download=False)
        test = self._open(train=False, download=False)
        self.class_names = tuple(getattr(train, "classes", map(str, range(int(_labels(train).max()) + 1))))
        return self._read(train, self.n_train, "n_train"), self._read(test, self.n_test, "n_test")

    def _read(self, dataset: datasets.VisionDataset, n: int | None, option: str) -> Split:
        y = _labels(dataset)
        chosen = self.subset(y, n, option)
        if isinstance(dataset, datasets.GTSRB):
            x = decode_files([Path(dataset._samples[i][0]) for i in chosen], self.size)
        else:
            x = _images(dataset)[chosen]
            x = x if self.size is None else resize(x, self.size)
        return Split(x, y[chosen])

    def _open(self, *, train: bool, download: bool) -> datasets.VisionDataset:
        source = SOURCES[self.name]
        try:
            with _network_timeout(NETWORK_TIMEOUT):
                return source.open(self.root, train=train, download=download)
        except _UNREADABLE as error:
            raise NfaError(self._advice(error, download)) from None

    def _advice(self, error: Exception, download: bool) -> str:
        source, root = SOURCES[self.name], self.root.absolute()
        # MNIST reports a line a mirror, the last with the cause; a second sentence is about torchvision's API
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].split(". ")[0]
        state = "and cannot be downloaded" if download else "and was not downloaded"
        return (
            f"{self.name} is missing or damaged in {root} {state} ({reason}): put "
            f"{', '.join(source.archives)} from {source.url} into {root / source.folder} "
            "and pass data.download=true"
        )


def _labels(dataset: datasets.VisionDataset) -> Tensor:
    """Return the class indices, int64 (n,), whatever the data set calls them."""
    if isinstance(dataset, datasets.GTSRB):
        return torch.tensor([label for _, label in dataset._samples])
    return torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels).long()


def _images(dataset: datasets.VisionDataset) -> Tensor:
    """Return the images, uint8 (n, c, h, w), whatever their layout."""
    x = torch.as_tensor(dataset.data)
    if x.ndim == 3:  # the MNIST family is grey
        return x.unsqueeze(1)
    return x.permute(0, 3, 1, 2) if isinstance(dataset, datasets.CIFAR10) else x


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Let sockets made inside give up after `seconds` of silence: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
