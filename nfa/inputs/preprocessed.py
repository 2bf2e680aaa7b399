"""Images as batches: decoded when their batch is asked for, and prepared as the network wants them."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nfa.device import check_fits
from nfa.errors import NfaError
from nfa.inputs.image_files import THREADS, common_shape
from nfa.inputs.image_sources import Images
from nfa.inputs.preprocessing import Preprocessing
from nfa.inputs.sampling import Inputs, Sampling

_COPIES = 3  # of a batch or an image, while it is made
_INTERPOLATIONS = ("bilinear", "bicubic")


def image_inputs(
    images: Images, preprocessing: Preprocessing | None, sampling: Sampling, *, rgb: bool = False
) -> Inputs:
    """Turn images into batches x float32 (b, c, h, w), or (x, y) with y int64 (b,).

    An image is resized and cut as by torchvision's ``Resize`` and ``CenterCrop`` of a Pillow image, divided
    by 255 and normalised. Only headers are read here.

    Args:
        images: the images.
        preprocessing: how the network wants them.
        sampling: which of them come.
        rgb: repeat the channel of grey images.

    Raises:
        NfaError: preprocessing is unknown or out of range; channels are not those of the network; shapes
            differ and no size is given. While iterating: an image cannot be decoded or is too small.
    """
    if preprocessing is None:
        raise NfaError(
            f"{images.name}: how the network wants its images is not known: pass --mean and --std "
            "(--mean 0 --std 1 for pixels in [0, 1]), and --size"
        )
    found, channels = _channels(images, preprocessing, rgb)
    mean, std = (
        _constants(images.name, option, values, channels)
        for option, values in (("--mean", preprocessing.mean), ("--std", preprocessing.std))
    )
    if not (std > 0).all():
        raise NfaError(f"expected --std above 0, got {preprocessing.std}")
    _check_geometry(preprocessing)

    def read(index: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if preprocessing.size is not None:
            title = f"a batch of {len(index)} images of {preprocessing.size[0]}x{preprocessing.size[1]}"
            _check_memory(len(index), *preprocessing.size, channels, title, "--size or --batch-size")
        with ThreadPoolExecutor(THREADS) as pool:
            pixels = list(pool.map(lambda i: _pixels(images, i, found, preprocessing), index.tolist()))
        x = torch.stack(pixels).contiguous()
        x = x.float().div_(255) if x.dtype == torch.uint8 else x
        x = (x.expand(-1, channels, -1, -1) - mean) / std
        return x if images.labels is None else (x, images.labels[index])

    n, y = len(images), images.labels
    shape = (channels, *(preprocessing.size or _shape(images, sampling.order(n, y).tolist())))
    return sampling.inputs(f"{images.name}: {{}} images", n, y, shape, read)


def _channels(images: Images, preprocessing: Preprocessing, rgb: bool) -> tuple[int, int]:
    """Channels of the images (1 only if all are grey), and of the batches."""
    wanted, name = preprocessing.channels, images.name
    if wanted not in (None, 1, 3):
        raise NfaError(
            f"{name}: images for a network with {wanted} input channels: expected a .npz or .safetensors "
            "file of ready inputs"
        )
    color = _first_in_color(images)
    if wanted == 1 and color is not None:
        raise NfaError(
            f"{name}: RGB images ({images.title(color)}) for a network with 1 input channel: convert them "
            "to grey"
        )
    if wanted == 1 and rgb:
        raise NfaError(f"{name}: --rgb makes 3 channels, the network has 1 input channel: leave it out")
    if wanted == 3 and color is None and not rgb:
        raise NfaError(
            f"{name}: grey images for a network with 3 input channels: convert them, or pass --rgb to "
            "repeat the grey channel"
        )
    found = 1 if color is None else 3
    return found, 3 if rgb else found


def _first_in_color(images: Images) -> int | None:
    readable = False
    for i, header in enumerate(images.headers(range(len(images)))):
        if header is not None and not header.grey:
            return i
        readable |= header is not None
    if not readable:
        images.open(0, 1)  # raises: says what is wrong with it
    return None


def _shape(images: Images, order: list[int]) -> tuple[int, int]:
    """(height, width) of the images at `order`, as far as they can be read."""
    shapes = {i: h.shape for i, h in zip(order, images.headers(order), strict=True) if h is not None}
    if not shapes:
        images.open(order[0], 1)
    titles = [images.title(i) for i in shapes]
    return common_shape(titles, list(shapes.values()), "pass --size SIDE to resize all")


def _constants(name: str, option: str, values: Sequence[float], channels: int) -> Tensor:
    """Float32 (c or 1, 1, 1)."""
    if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
        raise NfaError(
            f"{name}: expected {option} of one finite number, or of {channels} for images with {channels} "
            f"channel{'s' if channels > 1 else ''}, got {', '.join(map(str, values))}"
        )
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _check_geometry(preprocessing: Preprocessing) -> None:
    for side in (*(preprocessing.size or ()), preprocessing.resize):
        if side is not None and side < 1:
            raise NfaError(f"expected --size of at least 1, got {side}")
    if preprocessing.interpolation not in _INTERPOLATIONS:
        raise NfaError(
            f"unknown interpolation {preprocessing.interpolation!r}: expected {' or '.join(_INTERPOLATIONS)}"
        )


def _check_memory(samples: int, height: int, width: int, channels: int, what: str, option: str) -> None:
    check_fits(_COPIES * samples * height * width * channels * 4, what, f"pass a smaller {option}")


def _pixels(images: Images, i: int, channels: int, preprocessing: Preprocessing) -> Tensor:
    """Image `i`, resized and cut: uint8 or float32 (c, h, w)."""
    image = _cut(images.open(i, channels), preprocessing, images.title(i))
    pixels = torch.from_numpy(np.array(image))
    if pixels.is_floating_point():
        pixels = pixels.clamp(0, 1)  # bicubic overshoots; Pillow itself clips uint8
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def _cut(image: Image.Image, preprocessing: Preprocessing, title: str) -> Image.Image:
    if preprocessing.size is None:
        return image
    height, width = preprocessing.size
    size = _resized(image.width, image.height, preprocessing.size, preprocessing.resize)
    if size[0] < width or size[1] < height:
        raise NfaError(
            f"{title} is {size[1]}x{size[0]} once resized, too small to cut out {height}x{width}: pass a "
            "smaller --size"
        )
    title = f"{title}, {size[1]}x{size[0]} once resized,"
    _check_memory(1, size[1], size[0], len(image.getbands()), title, "--resize or --size")
    image = image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _resized(width: int, height: int, cut: tuple[int, int], side: int | None) -> tuple[int, int]:
    """(width, height) with the shorter side at ``side``; without it, the least that covers the cut."""
    cut_height, cut_width = cut
    if side is None:
        if cut_height * width >= cut_width * height:
            return int(cut_height * width / height), cut_height
        return cut_width, int(cut_width * height / width)
    return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
