"""Image files to one uint8 tensor, decoded once, by a few threads."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from nfa.errors import NfaError

_GREY_MODES = {"1", "L", "LA"}
_DEEP_MODES = re.compile(r"I|I;.*|F")  # more than 8 bits a pixel: Pillow would clip them without a word
_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside the interpreter lock


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
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(_read_header, paths))
        shape = _common_shape(paths, [h[:2] for h in headers]) if size is None else (size, size)
        mode, channels = ("L", 1) if all(h[2] for h in headers) else ("RGB", 3)
        x = allocate(len(paths), channels, *shape)
        rows = x.permute(0, 2, 3, 1).numpy()

        def fill(i: int) -> None:
            rows[i] = _decode(paths[i], mode, size).reshape(rows.shape[1:])

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
    needed, free = n * c * h * w, available_memory()
    if needed > free / 2:
        raise NfaError(
            f"{n} images of {c}x{h}x{w} need {needed / 1e9:.2f} GB, more than half of the "
            f"{free / 1e9:.2f} GB of free memory: pass a smaller data.size, or data.n_train and data.n_test"
        )
    return torch.empty(n, c, h, w, dtype=torch.uint8)


def available_memory() -> int:
    """Return the bytes of memory to be had without swapping; all there are where the system does not say."""
    try:
        kilobytes = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except FileNotFoundError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1024 * int(kilobytes[1])


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if _DEEP_MODES.fullmatch(image.mode):
                raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
            yield image
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NfaError(
            f"expected an 8-bit image, could not decode {path} ({reason}): replace or remove the file"
        ) from None


def _read_header(path: Path) -> tuple[int, int, bool]:
    """Height, width, and whether the file is grey."""
    with _open(path) as image:
        return image.height, image.width, image.mode in _GREY_MODES


def _decode(path: Path, mode: str, size: int | None) -> np.ndarray:
    with _open(path) as image:
        if "transparency" in image.info:
            image = image.convert("RGBA")  # what Pillow asks for before a palette loses its transparency
        pixels = image.convert(mode)
        return np.asarray(pixels if size is None else _fit(pixels, size))


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` and centre crop, in one resampling."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _common_shape(paths: Sequence[Path], shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    for path, shape in zip(paths, shapes, strict=True):
        if shape != shapes[0]:
            (h0, w0), (h, w) = shapes[0], shape
            raise NfaError(
                f"expected images of one shape, got {h0}x{w0} ({paths[0]}) and {h}x{w} ({path}): "
                "pass data.size=SIDE to resize all"
            )
    return shapes[0]
