"""What happens to a batch on its way to the model: augmentation of the raw values, then normalisation."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_VALUES = 2**20  # values cast to float64 at a time when statistics are fitted: 8 MB


class Normalize:
    """``(x / unit - mean) / std`` as float32, on whatever device the batch is.

    Args:
        mean: float64, broadcasts against one sample.
        std: float64, same shape; nowhere zero.
        unit: what raw values are divided by first: 255 for uint8 images, 1 for floats.
    """

    def __init__(self, mean: Tensor, std: Tensor, unit: float) -> None:
        self.mean, self.std, self.unit = mean, std, unit
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Map raw x (b, ...), uint8 or floating, to float32 (b, ...)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # float64 stays: its offsets may exceed float32
        key = (x.device, x.dtype)
        if key not in self._constants:
            self._constants[key] = tuple(
                (self.unit * c).to(x.dtype).to(x.device) for c in (self.mean, self.std)
            )
        offset, scale = self._constants[key]
        return ((x - offset) / scale).float()

    @classmethod
    def fit(cls, x: Tensor, kind: str) -> "Normalize":
        """Statistics of x (n, ...): one a channel (dimension 1), one a feature, or none at all.

        A channel or feature that is constant to the resolution of its dtype is centred and divided by 1.
        """
        unit = 255.0 if x.dtype == torch.uint8 else 1.0
        if kind == "none":
            return cls(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64), unit)
        dims = [0] if kind == "feature" else [d for d in range(x.ndim) if d != 1]
        mean, std = (moment.squeeze(0) / unit for moment in _moments(x, dims))
        resolution = max(torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps, 1e-12)
        constant = std <= resolution * mean.abs()
        return cls(mean, std.masked_fill(constant, 1.0), unit)


def _moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over `dims`, which are kept: two passes of float64, a chunk at a time."""

    def chunks() -> Iterator[Tensor]:
        rows = max(1, _CHUNK_VALUES * len(x) // x.numel())
        return (chunk.double() for chunk in x.split(rows))

    def total(parts: Iterator[Tensor]) -> Tensor:
        return torch.stack([part.sum(dims, keepdim=True) for part in parts]).sum(0)

    count = torch.tensor(x.shape)[dims].prod()
    mean = total(chunks()) / count
    return mean, (total((chunk - mean).square() for chunk in chunks()) / count).sqrt()


@dataclass(frozen=True)
class ShiftFlip:
    """Random translation, with zeros moving in, and optionally a random left-right flip of each image.

    Attributes:
        flip: whether half of the images are mirrored.
    """

    flip: bool

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Move images x (b, c, h, w), any dtype, by up to an eighth of their sides (4 pixels of 32)."""
        b, c, h, w = x.shape
        rows = _shifted(b, h, rng)
        columns = _shifted(b, w, rng)
        if self.flip:
            mirrored = torch.rand(b, 1, generator=rng) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        # one read per output pixel out of the zero-padded image, the same for all channels
        margin_h, margin_w = _margin(h), _margin(w)
        padded = functional.pad(x, (margin_w, margin_w, margin_h, margin_h)).flatten(2)
        source = rows[:, :, None] * (w + 2 * margin_w) + columns[:, None, :]
        source = source.view(b, 1, h * w).to(x.device)
        return padded.gather(2, source.expand(b, c, h * w)).view(b, c, h, w)


def _margin(side: int) -> int:
    return max(1, side // 8)


def _shifted(b: int, side: int, rng: torch.Generator) -> Tensor:
    """Draw b windows of a side with a margin at both ends: int64 indices (b, side)."""
    start = torch.randint(0, 2 * _margin(side) + 1, (b, 1), generator=rng)
    return start + torch.arange(side)


@dataclass(frozen=True)
class BatchTransform:
    """Augmentation, where a generator is given, then normalisation.

    Attributes:
        normalize: raw values to float32.
        augment: a random map of raw images, or None.
    """

    normalize: Normalize
    augment: ShiftFlip | None = None

    def __call__(self, x: Tensor, rng: torch.Generator | None) -> Tensor:
        """Map raw x (b, ...) to what the model sees, float32 (b, ...)."""
        if self.augment is not None and rng is not None:
            x = self.augment(x, rng)
        return self.normalize(x)
