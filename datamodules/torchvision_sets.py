"""The small image sets of torchvision, read whole: one class for all of them."""

from pathlib import Path
from typing import Any

from torchvision import datasets

from datamodules.base import TensorDataModule
from datamodules.images import decode_files, resize
from datamodules.splits import Split
from lab.options import TORCHVISION, check_all
from nfa.inputs.torchvision_sets import files, images, labels, open_set


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
        check_all("data", TORCHVISION, {"name": name, "root": root, "download": download, "size": size})
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
        self.class_names = tuple(getattr(train, "classes", map(str, range(int(labels(train).max()) + 1))))
        return self._read(train, self.n_train, "n_train"), self._read(test, self.n_test, "n_test")

    def _read(self, dataset: datasets.VisionDataset, n: int | None, option: str) -> Split:
        y = labels(dataset)
        chosen = self.subset(y, n, option)
        paths = files(dataset)
        if paths is not None:
            x = decode_files([paths[i] for i in chosen], self.size)
        else:
            x = images(dataset)[chosen]
            x = x if self.size is None else resize(x, self.size)
        return Split(x, y[chosen])

    def _open(self, *, train: bool, download: bool) -> datasets.VisionDataset:
        then = "pass data.download=true"
        return open_set(self.name, self.root, train=train, download=download, then=then)
