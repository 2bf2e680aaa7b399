"""The small image sets of torchvision: open one below a folder, or say which files belong there."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets

from nfa.errors import NfaError

NETWORK_TIMEOUT = 10.0  # seconds without an answer after which a download counts as impossible


@dataclass(frozen=True)
class Source:
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
        """Let torchvision read it, and raise whatever it does where it cannot."""
        split = train if self.split_argument == "train" else ("train" if train else "test")
        return self.dataset(root, download=download, **{self.split_argument: split})


def _mnist(dataset: type[datasets.MNIST]) -> Source:
    archives = tuple(name for name, _ in dataset.resources)
    return Source(dataset, "train", archives, dataset.mirrors[0], f"{dataset.__name__}/raw")


def _parent(url: str) -> str:
    return url.rpartition("/")[0] + "/"


def _one_archive(dataset: type[datasets.CIFAR10 | datasets.STL10], split_argument: str) -> Source:
    return Source(dataset, split_argument, (dataset.filename,), _parent(dataset.url))


SOURCES = {
    "MNIST": _mnist(datasets.MNIST),
    "FashionMNIST": _mnist(datasets.FashionMNIST),
    "CIFAR10": _one_archive(datasets.CIFAR10, "train"),
    "CIFAR100": _one_archive(datasets.CIFAR100, "train"),
    "SVHN": Source(
        datasets.SVHN,
        "split",
        tuple(datasets.SVHN.split_list[split][1] for split in ("train", "test")),
        _parent(datasets.SVHN.split_list["train"][0]),
    ),
    "STL10": _one_archive(datasets.STL10, "split"),
    "GTSRB": Source(
        datasets.GTSRB,
        "split",
        ("GTSRB-Training_fixed.zip", "GTSRB_Final_Test_Images.zip", "GTSRB_Final_Test_GT.zip"),
        "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/",  # as inside GTSRB.download
        "gtsrb",
    ),
}


def open_set(
    name: str, root: Path, *, train: bool, download: bool, then: str = "run again"
) -> datasets.VisionDataset:
    """Open one of `SOURCES`.

    Args:
        name: spelled as in torchvision.
        root: folder that torchvision's own loaders use.
        train: its training samples, else its test samples.
        download: fetch what is missing there, and unpack archives that were put there by hand.
        then: what to do after the files were put there, for the message.

    Raises:
        NfaError: the files are missing or damaged and cannot be fetched: the message says which belong where.
    """
    try:
        with network_timeout(NETWORK_TIMEOUT):
            dataset = SOURCES[name].open(root, train=train, download=download)
            _check(dataset)
            return dataset
    except Exception as error:  # readers raise nearly anything on damaged files
        # MNIST reports a line a mirror, the last with the cause; a second sentence is about torchvision's API
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].split(". ")[0]
    source, root = SOURCES[name], root.absolute()
    state = "and cannot be downloaded" if download else "and was not downloaded"
    raise NfaError(
        f"{name} is missing or damaged in {root} {state} ({reason}): put "
        f"{', '.join(source.archives)} from {source.url} into {root / source.folder} and {then}"
    )


def _check(dataset: datasets.VisionDataset) -> None:
    """Refuse files that were read, and hold something else: those of MNIST and GTSRB have no checksum.

    Raises:
        ValueError: there are no images, or not as many labels.
    """
    found = len(labels(dataset))
    x = None if files(dataset) is not None else images(dataset)
    if found == 0 or (x is not None and (x.dtype != torch.uint8 or x.ndim != 4 or len(x) != found)):
        what = "no images" if x is None else f"images of {x.dtype} {tuple(x.shape)}"
        raise ValueError(f"it holds {what} and {found} labels")


def labels(dataset: datasets.VisionDataset) -> Tensor:
    """Return the class indices, int64 (n,), whatever the set calls them."""
    if isinstance(dataset, datasets.GTSRB):
        return torch.tensor([label for _, label in dataset._samples])
    return torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels).long()


def files(dataset: datasets.VisionDataset) -> list[Path] | None:
    """Return the image files of a set that keeps its images in files (GTSRB), else None.

    Raises:
        NfaError: a table of the set names files elsewhere.
    """
    if not isinstance(dataset, datasets.GTSRB):
        return None
    found, home = [Path(path) for path, _ in dataset._samples], Path(dataset._base_folder).resolve()
    for path in found:
        if not path.resolve().is_relative_to(home):
            raise NfaError(
                f"the set in {dataset._base_folder} names {path}, a file elsewhere, which is not read"
            )
    return found


def images(dataset: datasets.VisionDataset) -> Tensor:
    """Return the images, uint8 (n, c, h, w), of a set that is in memory, whatever their layout."""
    x = torch.as_tensor(dataset.data)
    if x.ndim == 3:  # the MNIST family is grey
        return x.unsqueeze(1)
    return x.permute(0, 3, 1, 2) if isinstance(dataset, datasets.CIFAR10) else x


@contextlib.contextmanager
def network_timeout(seconds: float) -> Iterator[None]:
    """Let sockets made inside give up after `seconds` of silence: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
