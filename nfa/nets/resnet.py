"""torchvision's residual networks, adapted to small images."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import resnet as tv

from nfa.checks import choice
from nfa.errors import NfaError
from nfa.nets.checks import image_shape

ARCHITECTURES = {
    "resnet10": (tv.BasicBlock, [1, 1, 1, 1]),
    "resnet18": (tv.BasicBlock, [2, 2, 2, 2]),
    "resnet34": (tv.BasicBlock, [3, 4, 6, 3]),
    "resnet50": (tv.Bottleneck, [3, 4, 6, 3]),
    "resnet101": (tv.Bottleneck, [3, 4, 23, 3]),
}
_SMALL = 64  # pixels of the shorter side


class ResNet(tv.ResNet):
    """A torchvision ResNet with any number of channels; below 64 px a 3 × 3 stem and no max-pool.

    Args:
        input_shape: (channels, height, width).
        num_outputs: outputs.
        arch: ``resnet10``, ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101``.
        width: channels of the first stage; 64 is the published network, the other stages follow.
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int, arch: str = "resnet18", width: int = 64):
        channels, height, side = image_shape(input_shape, "ResNet")
        choice("model.arch", arch, ARCHITECTURES)
        if width < 1:
            raise NfaError(f"model.width must be at least 1, got {width}")
        self._width = width
        super().__init__(*ARCHITECTURES[arch])
        small = min(height, side) < _SMALL
        kernel, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(width)
        if small:
            self.maxpool = nn.Identity()
        self.fc = nn.Linear(self.inplanes, num_outputs)

    def _make_layer(
        self, block: type, planes: int, blocks: int, *args: int, **kwargs: object
    ) -> nn.Sequential:
        """A stage of torchvision's, scaled from 64 channels in the first stage to ``width``."""
        if planes == 64:
            self.inplanes = self._width
        return super()._make_layer(block, planes * self._width // 64, blocks, *args, **kwargs)
