"""Images with something small somewhere in noise: which of it to look at has to be learned.

To a fixed kernel on patches all directions of a patch are alike, and most of them hold noise. A kernel that
learns the few directions that matter, or a convolutional network, does better on as many images.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.base import TensorDataModule
from datamodules.images import check_room
from datamodules.splits import Split
from lab.options import DATA, LOCAL_SIGNAL, check_all
from nfa.errors import NfaError
from nfa.inputs.digits import digits
from nfa.inputs.stratify import generator, stratified_order


class LocalSignal(TensorDataModule):
    """Square images of Gaussian noise of mean 0; a subclass replaces a few pixels of it by a signal.

    Images are float32 (n, channels, size, size), a pure function of the seed. Training and test images have
    no draw in common.

    Args:
        n: number of training images drawn, validation included.
        n_test: number of test images drawn.
        size: height and width of the images.
        noise: standard deviation of the pixels.
        strength: value of the (brightest) pixels of the signal.
        normalize: see `TensorDataModule`; nothing to do by default, the noise has mean 0 already.
        base: other options of `TensorDataModule`.

    Raises:
        NfaError: an option is out of range.
    """

    key: str  # of the random streams
    channels = 1

    def __init__(
        self,
        n: int,
        n_test: int,
        size: int,
        noise: float,
        strength: float,
        *,
        normalize: str = "none",
        **base: Any,
    ) -> None:
        super().__init__(n_test=n_test, normalize=normalize, **base)
        given = {"n": n, "n_test": n_test, "size": size, "noise": noise, "strength": strength}
        check_all("data", DATA.get(type(self).__name__, LOCAL_SIGNAL), given)
        check_room(max(n, n_test), self.channels * size**2, "data.n, data.n_test or data.size")
        self.n, self.size, self.noise, self.strength = n, size, noise, strength

    @abstractmethod
    def place(self, x: Tensor, part: str, rng: torch.Generator) -> Tensor:
        """Put signals into the noise x float32 (n, channels, size, size), in place.

        Args:
            x: noise; images with their signals afterwards.
            part: ``train`` or ``test``.
            rng: of classes and places.

        Returns:
            Classes int64 (n,).
        """

    def load(self) -> tuple[Split, Split]:
        """Draw x float32 (n, channels, size, size) and classes."""
        return self._draw(self.n, "train"), self._draw(self.n_test, "test")

    def _draw(self, n: int, part: str) -> Split:
        rng = generator(self.seed, f"{self.key} {part}")
        x = self.noise * torch.randn(n, self.channels, self.size, self.size, generator=rng)
        return Split(x, self.place(x, part, rng))

    def _check_side(self, option: str, side: int) -> None:
        check_all("data", DATA.get(type(self).__name__, {}), {option: side})
        if side > self.size:
            raise NfaError(f"data.{option} must be at most data.size={self.size}, got {side}: change either")


class Star(LocalSignal):
    """A star at a random place in noise of three channels (class 1), or noise alone (class 0).

    As published with the Science paper on the AGOP (Radhakrishnan et al. 2024, arXiv 2212.13881): the star is
    in the first two channels, where its pixels are 1 instead of noise of standard deviation 0.3; 50 images
    for training, half of them with a star. The star is drawn anew: five points, 29 pixels in a square of 9
    (28 in a square of 7 there), so that the fixed kernel (patch 11, depth 1, ridge 1e-3) is as far from what
    one round of ConvRFM makes of it: 73 % and 90 % of test images right, means of 5 seeds (there 78 and 95).

    Args:
        n: see `LocalSignal`, also for the other arguments.
        n_test: number of test images.
        size: height and width of the images.
        star: height and width of the star, at least 5.
        noise: standard deviation.
        strength: value of the pixels of the star.
        base: other options.
    """

    key = "star"
    channels = 3

    def __init__(
        self,
        n: int = 50,
        n_test: int = 1000,
        size: int = 32,
        star: int = 9,
        noise: float = 0.3,
        strength: float = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(n, n_test, size, noise, strength, **base)
        self._check_side("star", star)
        self.star = star
        self.class_names = ("noise", "star")

    def place(self, x: Tensor, part: str, rng: torch.Generator) -> Tensor:
        """Draw a star, anywhere, in every second image; see `LocalSignal.place`."""
        y, shape = _alternate(len(x), rng), star_shape(self.star)
        places = torch.randint(0, self.size - self.star + 1, (len(x), 2), generator=rng)
        for window, label in zip(_windows(x, places, self.star, self.star), y, strict=True):
            if label:
                window[:2].masked_fill_(shape, self.strength)
        return y


class PastedDigits(LocalSignal):
    """A digit of scikit-learn (10 classes), enlarged, at a random place on a grey canvas of noise.

    The set of noisy digits of the ConvRFM paper (Beaglehole, Radhakrishnan, Pandit and Belkin,
    arXiv 2309.00570), with bundled digits instead of MNIST: the canvas is 42 x 42, its noise has standard
    deviation 0.5 (√σ/2 there, σ = 1), and the square of the digit, 28 x 28 in [0, 1], replaces it. From
    1000 training images the fixed kernel (patch 3, depth 3, ridge 1e-5) has 51.5 % of 500 test images right
    and ConvRFM 62.2 % after four rounds, means of 2 seeds (there 52 and, after three, 59 from 4000 images).

    The 1438 training and 359 test digits are those of `Digits`, whatever the seed: no digit is in both. They
    are taken in a stratified order, again from its beginning, at other places, where there are too few.

    Args:
        n: see `LocalSignal`, also for the other arguments.
        n_test: number of test images.
        size: height and width of the images.
        digit: height and width of the pasted digits; 8 leaves them as they are.
        noise: standard deviation.
        strength: value of the brightest pixels of a digit.
        base: other options.
    """

    key = "pasted digits"

    def __init__(
        self,
        n: int = 1000,
        n_test: int = 1000,
        size: int = 42,
        digit: int = 28,
        noise: float = 0.5,
        strength: float = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(n, n_test, size, noise, strength, **base)
        self._check_side("digit", digit)
        self.digit = digit

    def place(self, x: Tensor, part: str, rng: torch.Generator) -> Tensor:
        """Paste a digit, anywhere, into each image; see `LocalSignal.place`."""
        images, labels = digits()[part == "test"]
        order = stratified_order(labels, rng)
        chosen = order.repeat(math.ceil(len(x) / len(order)))[: len(x)]
        enlarged = functional.interpolate(images[chosen], size=(self.digit, self.digit), mode="bilinear")
        places = torch.randint(0, self.size - self.digit + 1, (len(x), 2), generator=rng)
        for window, image in zip(_windows(x, places, self.digit, self.digit), enlarged, strict=True):
            window[:] = self.strength * image
        return labels[chosen]


class Bars(LocalSignal):
    """A vertical bar, one pixel wide, in the left (class 0) or the right half (class 1) of a grey canvas.

    Row and column are uniform in the half; where `size` is odd, no bar is in the middle column. The class is
    a place: a network that averages over positions before its output (``model.head=pool``) knows it only
    from the padding at the borders, and misses more of them than one with ``model.head=flatten``.

    Args:
        n: see `LocalSignal`, also for the other arguments.
        n_test: number of test images.
        size: height and width of the images, at least 2.
        bar: height of the bar.
        noise: standard deviation.
        strength: value of the pixels of the bar.
        base: other options.
    """

    key = "bars"

    def __init__(
        self,
        n: int = 500,
        n_test: int = 1000,
        size: int = 32,
        bar: int = 9,
        noise: float = 0.3,
        strength: float = 1.0,
        **base: Any,
    ) -> None:
        super().__init__(n, n_test, size, noise, strength, **base)
        self._check_side("bar", bar)
        self.bar = bar
        self.class_names = ("left", "right")

    def place(self, x: Tensor, part: str, rng: torch.Generator) -> Tensor:
        """Draw one bar in each image, as often left as right; see `LocalSignal.place`."""
        y, half = _alternate(len(x), rng), self.size // 2
        rows = torch.randint(0, self.size - self.bar + 1, (len(x),), generator=rng)
        columns = torch.randint(0, half, (len(x),), generator=rng) + y * (self.size - half)
        for window in _windows(x, torch.stack([rows, columns], 1), self.bar, 1):
            window[:] = self.strength
        return y


def star_shape(side: int) -> Tensor:
    """Draw a filled five-pointed star, one point up, as wide as the square that holds it.

    Returns:
        bool (side, side).
    """
    tip = side / (2 * math.cos(math.pi / 10))  # distance of a tip from the middle
    notch = (3 - math.sqrt(5)) / 2 * tip  # and of a notch between two
    turn = math.pi / 5  # from a tip to the next notch
    middle = (side + tip * (1 - math.cos(turn))) / 2  # row: as much room above as below
    pixels = torch.arange(side, dtype=torch.float64) + 0.5
    up, right = torch.meshgrid(middle - pixels, pixels - side / 2, indexing="ij")
    from_tip = torch.atan2(right, up) % (2 * turn)
    from_tip = torch.minimum(from_tip, 2 * turn - from_tip)
    edge = tip * notch * math.sin(turn) / (tip * from_tip.sin() + notch * (turn - from_tip).sin())
    return torch.hypot(up, right) <= edge


def _alternate(n: int, rng: torch.Generator) -> Tensor:
    """As many zeros as ones, up to one, in random order: int64 (n,)."""
    return torch.randperm(n, generator=rng) % 2


def _windows(x: Tensor, places: Tensor, height: int, width: int) -> Iterator[Tensor]:
    """View a rectangle (channels, height, width) of each image, its corner at `places` int64 (n, 2)."""
    for image, (row, column) in zip(x, places.tolist(), strict=True):
        yield image[:, row : row + height, column : column + width]
