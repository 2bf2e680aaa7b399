"""Image files to one uint8 tensor, decoded once, by a few threads."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from nfa.device import free_memory
from nfa.errors import NfaError
from nfa.inputs.image_files import THREADS, common_shape, decode, read_header

_ADVICE = "pass data.size=SIDE to resize all"


def decode_files(paths: Sequence[Path], size: int | None = None) -> Tensor:
    """Decode image files, all to one shape.

    Args:
        paths: files, at least one.
        size: side of the square images wanted: the shorter side is resized to it, then the centre is cut out.
            None keeps the images as they are, which must then have one shape.

    Returns:
        uint8 (n, 3, h, w), RGB; (n, 1, h, w) if every file is grey. Transparency is dropped.

    Raises:
        NfaError: a file is not an image of 8 bits a channel, shapes differ, or memory does not suffice.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        headers = list(pool.map(read_header, paths))
        shape = (size, size) if size else common_shape(paths, [h.shape for h in headers], _ADVICE)
        mode, channels = ("L", 1) if all(h.grey for h in headers) else ("RGB", 3)
        x = allocate(len(paths), channels, *shape)
        rows = x.permute(0, 2, 3, 1).numpy()

        def fill(i: int) -> None:
            rows[i] = _pixels(paths[i], mode, size).reshape(rows.shape[1:])

        for _ in pool.map(fill, range(len(paths))):
            pass
    return x


def resize(x: Tensor, size: int) -> Tensor:
    """Resize square images x uint8 (n, c, h, h) to uint8 (n, c, size, size)."""
    out = allocate(len(x), x.shape[1], size, size)
    for source, target in zip(x.split(1024), out.split(1024), strict=True):
        target.copy_(functional.resize(source, [size, size], antialias=True))
    return out


def allocate(n: int, c: int, h: int, w: int) -> Tensor:
    """Make room for images: uint8 (n, c, h, w).

    Raises:
        NfaError: it takes more than half of the free memory (splitting the samples takes a copy).
    """
    needed, free = n * c * h * w, _memory()
    if needed > free / 2:
        raise NfaError(
            f"{n} images of {c}x{h}x{w} need {needed / 1e9:.2f} GB, more than half of the "
            f"{free / 1e9:.2f} GB of free memory: pass a smaller data.size, or data.n_train and data.n_test"
        )
    return torch.empty(n, c, h, w, dtype=torch.uint8)


def check_room(n: int, values: int, options: str) -> None:
    """Refuse to draw n samples of so many float32 values that do not fit in half of the free memory.

    Raises:
        NfaError: it names the options to lower.
    """
    needed, free = 4 * n * values, _memory()
    if needed > free / 2:
        raise NfaError(
            f"{n} samples of {values} numbers need {needed / 1e9:.2f} GB, more than half of the "
            f"{free / 1e9:.2f} GB of free memory: lower {options}"
        )


def _memory() -> float:
    """Bytes that are free; all there are where the system does not say."""
    free = free_memory(torch.device("cpu"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else free


def _pixels(path: Path, mode: str, size: int | None) -> np.ndarray:
    image = decode(path, mode)
    return np.asarray(image if size is None else _fit(image, size))


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` and centre crop, in one resampling."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
