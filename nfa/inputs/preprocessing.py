"""How a network wants its pictures: what stands between an image file and the tensor it is called with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, cut out the centre, scale to [0, 1], subtract `mean`, divide by `std`.

    Attributes:
        mean: of each channel, in units of [0, 1]; one number stands for every channel.
        std: likewise.
        size: (height, width) of the centre cut out; None keeps the images as they are.
        resize: length the shorter side is resized to before; None resizes it to the cut.
        interpolation: ``bilinear`` or ``bicubic``.
        channels: 3 for RGB, 1 for grey; None where it is not known.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    channels: int | None = None
