"""torchvision's VGG convolutions, adapted to small images."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import vgg as tv

from nfa.checks import choice
from nfa.errors import NfaError
from nfa.nets.checks import image_shape

ARCHITECTURES = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


class VGG(nn.Sequential):
    """The convolutions of a VGG with as many of its max-pools as the image allows, and a linear head.

    Args:
        input_shape: (channels, height, width).
        num_outputs: outputs.
        arch: ``vgg11``, ``vgg13``, ``vgg16`` or ``vgg19``.
        width: channels of the first stage; 64 is the published network, the others follow.
        batch_norm: normalise after each convolution.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        arch: str = "vgg11",
        width: int = 64,
        batch_norm: bool = True,
    ):
        channels, height, side = image_shape(input_shape, "VGG")
        choice("model.arch", arch, ARCHITECTURES)
        if width < 1:
            raise NfaError(f"model.width must be at least 1, got {width}")
        plan = _fit(tv.cfgs[ARCHITECTURES[arch]], min(height, side), width)
        features = tv.make_layers(plan, batch_norm)
        widths = [step for step in plan if isinstance(step, int)]
        if channels != 3:
            features[0] = nn.Conv2d(channels, widths[0], 3, padding=1)
        super().__init__()
        self.features = features
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.output = nn.Linear(widths[-1], num_outputs)
        for module in features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _fit(plan: Sequence[int | str], side: int, width: int) -> list[int | str]:
    """Scale the channels and drop the max-pools for which no two pixels are left."""
    fitted: list[int | str] = []
    for step in plan:
        if isinstance(step, int):
            fitted.append(max(1, step * width // 64))
        elif side >= 2:
            fitted.append("M")
            side //= 2
    return fitted
