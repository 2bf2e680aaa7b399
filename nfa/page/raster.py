"""Feature matrices, filters and eigenvectors as pictures: colour table, grid and PNG, with PyTorch alone."""

import base64
import math
import struct
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

# Nine points of viridis (Smith and van der Walt, CC0): luminance rises all along, also for colour-blind eyes.
_VIRIDIS = (
    (0x44, 0x01, 0x54),
    (0x47, 0x2C, 0x7A),
    (0x3B, 0x51, 0x8B),
    (0x2C, 0x71, 0x8E),
    (0x21, 0x90, 0x8D),
    (0x27, 0xAD, 0x81),
    (0x5C, 0xC8, 0x63),
    (0xAA, 0xDC, 0x32),
    (0xFD, 0xE7, 0x25),
)
_UNDEFINED = 128  # grey: a colour that the table does not hold
_GAP = 0.3


def color_table(size: int = 256) -> Tensor:
    """Sequential colours from dark violet to yellow, of rising luminance.

    Args:
        size: number of colours, at least 2.

    Returns:
        uint8 tensor of shape ``(size, 3)``.
    """
    anchors = torch.tensor(_VIRIDIS, dtype=torch.float64)
    position = torch.linspace(0, len(anchors) - 1, size, dtype=torch.float64)
    left = position.long().clamp(max=len(anchors) - 2)
    return torch.lerp(anchors[left], anchors[left + 1], (position - left)[:, None]).round().to(torch.uint8)


def heatmap(matrix: Tensor, *, max_size: int = 256) -> Tensor:
    """Colour a matrix; entries are area-averaged down to at most ``max_size`` pixels a side.

    Colours run from the 1st to the 99th percentile of the finite entries, or from the least to the greatest
    where those coincide (a diagonal matrix). The scale of the matrix has no influence. A constant matrix has
    the middle colour; pixels that average a NaN or an infinity are grey.

    Args:
        matrix: real tensor of shape ``(d, d)``, of any dtype and on any device.
        max_size: greatest side of the picture, in pixels.

    Returns:
        uint8 tensor of shape ``(min(d, max_size), min(d, max_size), 3)`` on the CPU.

    Raises:
        ValueError: if ``matrix`` has not two dimensions or no entries.
    """
    if matrix.ndim != 2 or not matrix.numel():
        raise ValueError(f"heatmap expects a non-empty matrix, got shape {tuple(matrix.shape)}")
    pooled = _pool(matrix.detach()[None], max_size)[0]
    defined = pooled.isfinite()
    level = _stretch(pooled, *_robust_range(pooled[defined]), rounding=_rounding(matrix))
    rgb = color_table()[(level.nan_to_num(0.0) * 255).round().long()]
    rgb[~defined] = _UNDEFINED
    return rgb


def tile(images: Tensor, *, scale: int = 4, gap: int = 2) -> Tensor:
    """Lay out small images in a nearly square grid, each stretched to full contrast on its own.

    One channel is drawn grey and three as RGB. Of any other number the leading principal component over the
    channels is drawn, grey, with the sign that makes its sum positive. Undefined pixels count as zero, a
    constant image is mid-grey.

    Args:
        images: real tensor of shape ``(k, c, h, w)``, of any dtype and on any device.
        scale: each pixel is repeated so many times both ways.
        gap: pixels of the result between neighbours.

    Returns:
        uint8 tensor of shape ``(H, W, 3)`` on the CPU.

    Raises:
        ValueError: if ``images`` has not four dimensions or no entries.
    """
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"tile expects non-empty images (k, c, h, w), got shape {tuple(images.shape)}")
    pixels = images.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
    if pixels.shape[1] not in (1, 3):
        pixels = _principal_channel(pixels)
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    level = _stretch(pixels, low, high, rounding=_rounding(images)).expand(-1, 3, -1, -1)
    level = level.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return (_grid(level, gap) * 255).round().to(torch.uint8)


def shrink(images: Tensor, max_size: int) -> Tensor:
    """Area-average images ``(k, c, h, w)`` to at most ``max_size`` pixels a side, as float64 on the CPU."""
    count, channels = images.shape[:2]
    pooled = _pool(images.detach().flatten(0, 1), max_size)
    return pooled.reshape(count, channels, *pooled.shape[1:])


def png(rgb: Tensor) -> bytes:
    """Encode a picture as PNG, with a palette where it has at most 256 colours (a third of the size).

    Args:
        rgb: uint8 tensor of shape ``(h, w, 3)``.

    Raises:
        ValueError: if shape or dtype differ from that.
    """
    if rgb.dtype != torch.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.numel():
        raise ValueError(f"png expects a uint8 tensor (h, w, 3), got {rgb.dtype} {tuple(rgb.shape)}")
    height, width, _ = rgb.shape
    rgb = rgb.cpu()
    bytes_of = torch.tensor([1 << 16, 1 << 8, 1])
    colors, index = (rgb.long() * bytes_of).sum(-1).unique(return_inverse=True)
    indexed = len(colors) <= 256
    palette = (colors[:, None] // bytes_of % 256).to(torch.uint8)
    rows = (index.to(torch.uint8) if indexed else rgb).reshape(height, -1)
    chunks = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3 if indexed else 2, 0, 0, 0)),
        _chunk(b"PLTE", _raw(palette)) if indexed else b"",
        _chunk(b"IDAT", zlib.compress(_raw(_scanlines(rows)), 9)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def data_uri(png_bytes: bytes) -> str:
    """Write a PNG as an address, with which an ``<img>`` carries the picture inside the page."""
    return "data:image/png;base64," + base64.b64encode(png_bytes).decode("ascii")


def _pool(images: Tensor, max_size: int) -> Tensor:
    """Area-average ``(k, h, w)`` where a side exceeds ``max_size``; float64, CPU."""
    h, w = images.shape[-2:]
    size = min(h, max_size), min(w, max_size)
    if size != (h, w):
        wide_enough = images if images.dtype in (torch.float32, torch.float64) else images.float()
        images = F.adaptive_avg_pool2d(wide_enough, size)
    return images.cpu().double()


def _robust_range(values: Tensor) -> tuple[Tensor, Tensor]:
    if not values.numel():
        return torch.tensor(math.nan), torch.tensor(math.nan)
    low, high = values.quantile(torch.tensor([0.01, 0.99], dtype=values.dtype))
    return (low, high) if low < high else (values.min(), values.max())


def _rounding(values: Tensor) -> float:
    """Relative spread below which values of this dtype differ by rounding only."""
    return 8 * torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0


def _stretch(values: Tensor, low: Tensor, high: Tensor, *, rounding: float) -> Tensor:
    """Map ``[low, high]`` to [0, 1] and clip; 0.5 where the two differ by rounding only."""
    spread = high - low
    flat = spread <= rounding * torch.maximum(low.abs(), high.abs())
    return torch.where(flat, 0.5, ((values - low) / torch.where(flat, 1.0, spread)).clamp(0, 1))


def _principal_channel(pixels: Tensor) -> Tensor:
    """Leading right singular vector of each ``(c, h·w)`` matrix: ``(k, c, h, w)`` to ``(k, 1, h, w)``."""
    count, _, height, width = pixels.shape
    flat = pixels.flatten(2)
    peak = flat.abs().amax((1, 2), keepdim=True)
    leading = torch.linalg.svd(flat / torch.where(peak > 0, peak, 1.0), full_matrices=False).Vh[:, :1]
    leading = torch.where(leading.sum(-1, keepdim=True) < 0, -leading, leading)
    return torch.where(peak > 0, leading, 0.0).reshape(count, 1, height, width)


def _grid(images: Tensor, gap: int) -> Tensor:
    """``(k, 3, h, w)`` in [0, 1] to one picture ``(H, W, 3)`` with a gap between neighbours."""
    count, _, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    lines = math.ceil(count / columns)
    cells = F.pad(images, (0, gap, 0, gap), value=_GAP)
    cells = torch.cat([cells, cells.new_full((lines * columns - count, *cells.shape[1:]), _GAP)])
    cells = cells.unflatten(0, (lines, columns)).permute(0, 3, 1, 4, 2)  # line, y, column, x, channel
    grid = cells.reshape(lines * (height + gap), columns * (width + gap), 3)
    return grid[: grid.shape[0] - gap, : grid.shape[1] - gap]


def _scanlines(rows: Tensor) -> Tensor:
    """Prefix each row with its filter: "up" and zeros where it repeats the one above, else "none"."""
    repeats = F.pad((rows[1:] == rows[:-1]).all(1), (1, 0))[:, None]
    return torch.cat([repeats.to(torch.uint8) * 2, rows.masked_fill(repeats, 0)], 1)


def _raw(values: Tensor) -> bytes:
    return bytes(values.flatten().tolist())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
