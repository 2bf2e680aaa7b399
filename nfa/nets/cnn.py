"""Plain convolutional networks: a stack of equal convolutions, pooled or strided, and a linear head."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from nfa.checks import choice
from nfa.errors import NfaError
from nfa.nets.activations import activation_layer
from nfa.nets.checks import image_shape

_Mode = Literal["zeros", "circular", "reflect", "replicate"]
_MODES: dict[str, _Mode] = {
    "zeros": "zeros", "circular": "circular", "reflect": "reflect", "replicate": "replicate",
}  # fmt: skip
_PADDINGS = (*_MODES, "none")
_DOWNSAMPLING = ("max_pool", "stride", "none")
_HEADS = ("pool", "flatten")


class CNN(nn.Sequential):
    """``depth`` convolutions of equal width without skip connections.

    Args:
        input_shape: (channels, height, width).
        num_outputs: outputs.
        depth: convolutions, at least 1.
        width: channels of each.
        patch_size: side of the kernels.
        padding: ``zeros``, ``circular``, ``reflect`` or ``replicate`` keep the size of the map; ``none``
            shrinks it by patch_size - 1.
        downsample: ``max_pool`` (2 × 2) or ``stride`` (2) halves the map after the first layer, as
            long as a side of 4 is left; or ``none``.
        head: ``pool`` averages over positions before the linear output; ``flatten`` keeps them.
        activation: see `nfa.nets.activations.ACTIVATIONS`.
        batch_norm: normalise after each convolution.
        bias: whether the convolutions have a bias (never with batch_norm, which has its own).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        depth: int = 3,
        width: int = 64,
        patch_size: int = 3,
        padding: str = "zeros",
        downsample: str = "max_pool",
        head: str = "pool",
        activation: str = "relu",
        batch_norm: bool = False,
        bias: bool = True,
    ):
        channels, height, side = image_shape(input_shape, "CNN")
        _check(depth, width, patch_size, padding, downsample, head)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, depth + 1):
            halve = i > 1 and downsample != "none" and min(height, side) >= 4
            if halve and downsample == "max_pool":
                layers[f"pool{i}"] = nn.MaxPool2d(2)
                height, side = height // 2, side // 2
            stride = 2 if halve and downsample == "stride" else 1
            conv = _convolution(channels, width, patch_size, stride, padding, bias and not batch_norm)
            layers[f"conv{i}"] = conv
            height, side = _size_after(height, conv), _size_after(side, conv)
            if min(height, side) < 1:
                raise NfaError(
                    f"convolution {i} of {depth} has no position left on inputs {tuple(input_shape)}: "
                    "lower model.depth or model.patch_size, or use padding=zeros and downsample=none"
                )
            if batch_norm:
                layers[f"norm{i}"] = nn.BatchNorm2d(width)
            layers[f"activation{i}"] = activation_layer(activation)
            channels = width
        if head == "pool":
            layers["average"] = nn.AdaptiveAvgPool2d(1)
            height = side = 1
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(width * height * side, num_outputs)
        super().__init__(layers)


def _convolution(inputs: int, outputs: int, patch: int, stride: int, padding: str, bias: bool) -> nn.Conv2d:
    if padding == "none":
        return nn.Conv2d(inputs, outputs, patch, stride, bias=bias)
    if stride == 1:
        return nn.Conv2d(inputs, outputs, patch, padding="same", padding_mode=_MODES[padding], bias=bias)
    return nn.Conv2d(inputs, outputs, patch, stride, patch // 2, padding_mode=_MODES[padding], bias=bias)


def _size_after(size: int, conv: nn.Conv2d) -> int:
    if isinstance(conv.padding, str):  # "same"
        return size
    return (size + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1


def _check(depth: int, width: int, patch_size: int, padding: str, downsample: str, head: str) -> None:
    if min(depth, width, patch_size) < 1:
        raise NfaError(
            f"a CNN needs depth, width and patch_size of at least 1, got {depth}, {width} and {patch_size}"
        )
    for name, value, known in (
        ("padding", padding, _PADDINGS),
        ("downsample", downsample, _DOWNSAMPLING),
        ("head", head, _HEADS),
    ):
        choice(f"model.{name}", value, known)
