"""Image files through Pillow: names, headers, pixels, and clear words for what is damaged."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import (  # those of the formats below; Pillow has more, and reads them by what they hold
    BmpImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from nfa.device import check_fits
from nfa.errors import NfaError

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP")  # and no PostScript that ends in .png
THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside the interpreter lock
_COPIES, _LESS = 3, "give smaller images"
_GREY_MODES = {"1", "L", "LA"}
_DEEP_MODES = re.compile(r"I|I;.*|F")  # more than 8 bits a pixel: Pillow would clip them without a word


class Header(NamedTuple):
    """What an image file says of itself before its pixels are decoded."""

    height: int
    width: int
    grey: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def is_image(path: Path) -> bool:
    """Whether the name of a file is that of an image; hidden files are none."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def read_header(path: Path) -> Header:
    """Read height, width, and whether the file is grey.

    Raises:
        NfaError: the file is not an image of 8 bits a channel.
    """
    with _open(path) as image:
        return Header(image.height, image.width, image.mode in _GREY_MODES)


def decode(path: Path, mode: str) -> Image.Image:
    """Decode a file to mode ``RGB`` or ``L`` (grey); transparency is dropped.

    Raises:
        NfaError: the file is not an image of 8 bits a channel.
    """
    with _open(path) as image:
        if "transparency" in image.info:
            image = image.convert("RGBA")  # what Pillow asks for before a palette loses its transparency
        return image.convert(mode)


def common_shape(names: Sequence[object], shapes: Sequence[tuple[int, int]], advice: str) -> tuple[int, int]:
    """Return the one (height, width) of all images.

    Args:
        names: of the images, for the message.
        shapes: their (height, width), at least one.
        advice: what to do where they differ: the end of the message.

    Raises:
        NfaError: shapes differ; it names two images.
    """
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0]:
            (h0, w0), (h, w) = shapes[0], shape
            raise NfaError(
                f"expected images of one shape, got {h0}x{w0} ({names[0]}) and {h}x{w} ({name}): {advice}"
            )
    return shapes[0]


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            check_fits(
                _COPIES * image.height * image.width * 4, f"{path}, {image.height}x{image.width},", _LESS
            )
            if _DEEP_MODES.fullmatch(image.mode):
                raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
            yield image
    except NfaError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NfaError(
            f"expected an 8-bit image, could not decode {path} ({reason}): replace or remove the file"
        ) from None
