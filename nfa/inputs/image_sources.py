"""Where images come from: files, or a tensor in memory; opened one by one as Pillow images."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from PIL import Image
from torch import Tensor

from nfa.errors import NfaError
from nfa.inputs.image_files import THREADS, Header, decode, read_header
from nfa.inputs.image_folder import list_images

_HEADERS_AT_ONCE = 256


class Images(ABC):
    """Labelled images, to be opened one by one.

    Attributes:
        name: of the whole, for messages and reports.
        labels: int64 (n,), or None.
    """

    name: str
    labels: Tensor | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def title(self, i: int) -> str:
        """What messages call image `i`."""

    @abstractmethod
    def headers(self, index: Sequence[int]) -> Iterator[Header | None]:
        """Headers of the images at `index`; None for what cannot be decoded."""

    @abstractmethod
    def open(self, i: int, channels: int) -> Image.Image:
        """Image `i` in mode ``RGB``, ``L``, or ``F`` with values in [0, 1]; grey ones for one channel."""


class ImageFiles(Images):
    """Images in files; at most one batch of them is in memory."""

    def __init__(self, name: str, paths: Sequence[Path], labels: Tensor | None) -> None:
        self.name, self.paths, self.labels = name, paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def title(self, i: int) -> str:
        """Return the path."""
        return str(self.paths[i])

    def headers(self, index: Sequence[int]) -> Iterator[Header | None]:
        """Read the headers, some ahead."""
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(index), _HEADERS_AT_ONCE):
                yield from pool.map(self._header, index[start : start + _HEADERS_AT_ONCE])

    def open(self, i: int, channels: int) -> Image.Image:
        """Decode a file; a grey one becomes RGB where three channels are asked for."""
        return decode(self.paths[i], "L" if channels == 1 else "RGB")

    def _header(self, i: int) -> Header | None:
        try:
            return read_header(self.paths[i])
        except NfaError:  # it is reported when its batch is decoded, which may never be
            return None


class ImageTensor(Images):
    """Images in memory: x uint8 (n, c, h, w), or floating in [0, 1] with one channel."""

    def __init__(self, name: str, x: Tensor, labels: Tensor) -> None:
        self.name, self.x, self.labels = name, x, labels

    def __len__(self) -> int:
        return len(self.x)

    def title(self, i: int) -> str:
        """Return name and number."""
        return f"image {i} of {self.name}"

    def headers(self, index: Sequence[int]) -> Iterator[Header]:
        """Repeat what is the same for all."""
        _, channels, height, width = self.x.shape
        return repeat(Header(height, width, channels == 1), len(index))

    def open(self, i: int, channels: int) -> Image.Image:
        """Wrap the pixels."""
        pixels = self.x[i].permute(1, 2, 0).contiguous().numpy()
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def open_folder(folder: Path, split: str) -> ImageFiles:
    """List the images of a folder; see `nfa.inputs.image_folder.list_images`.

    Raises:
        NfaError: the folder cannot be read as described there, or not at all.
    """
    try:
        return ImageFiles(*list_images(folder, split))
    except OSError as error:
        raise NfaError(f"expected a folder of images at {folder}, could not read it ({error})") from None


def open_digits(split: str) -> ImageTensor:
    """Read scikit-learn's digits; a fixed fifth of them is the test set."""
    from nfa.inputs.digits import digits

    train, test = digits()
    return ImageTensor(f"digits/{split}", *(train if split == "train" else test))


def open_torchvision(name: str, root: Path, split: str) -> Images:
    """Open a set of torchvision, downloaded if it is not below `root`.

    Raises:
        NfaError: the files are missing or damaged and cannot be fetched.
    """
    from nfa.inputs.torchvision_sets import files, images, labels, open_set

    dataset = open_set(name, root, train=split == "train", download=True)
    paths, title, y = files(dataset), f"{name}/{split}", labels(dataset)
    return ImageTensor(title, images(dataset), y) if paths is None else ImageFiles(title, paths, y)
