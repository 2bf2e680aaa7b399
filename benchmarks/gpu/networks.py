"""The networks that are measured, in torch alone: as wide and as deep as published, with random weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block: two 3 × 3 convolutions, or a bottleneck; projected where shapes change."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        if not bottleneck:
            sizes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        self.convs = nn.ModuleList(_convolution(*size) for size in sizes)
        self.skip = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h/stride, w/stride)."""
        h = x
        for i, conv in enumerate(self.convs):
            h = conv(F.relu(h) if i else h)
        return F.relu(h + self.skip(x))


def _convolution(inputs: int, outputs: int, side: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def resnet(
    blocks: tuple[int, ...], outputs: int, width: int, *, bottleneck: bool, small: bool
) -> nn.Sequential:
    """A residual network of four stages; ``small`` images get a 3 × 3 stem and no pooling behind it."""
    stem = [_convolution(3, width, 3, 1), nn.ReLU()]
    if not small:
        stem = [_convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    stages, inputs = [], width
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and not block else 1
            stages.append(Block(inputs, width * 2**stage, stride, bottleneck))
            inputs = (4 if bottleneck else 1) * width * 2**stage
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def resnet18(outputs: int = 10, width: int = 64) -> nn.Sequential:
    """For images of CIFAR's size."""
    return resnet((2, 2, 2, 2), outputs, width, bottleneck=False, small=True)


def resnet50(outputs: int = 1000, width: int = 64) -> nn.Sequential:
    """For images of ImageNet's size."""
    return resnet((3, 4, 6, 3), outputs, width, bottleneck=True, small=False)


class Encoder(nn.Module):
    """A layer of a vision transformer, normalised before attention and before its two linear maps."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) to the same shape."""
        h = self.before(x)
        q, k, v = (
            layer(h).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.between(x))))


class VisionTransformer(nn.Module):
    """ViT-B/16 by default."""

    def __init__(self, side: int, outputs: int = 1000, patch: int = 16, width: int = 768, depth: int = 12):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.02)
        self.layers = nn.Sequential(*(Encoder(width, width // 64) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, side, side) to (n, outputs)."""
        tokens = self.patches(x).flatten(2).mT
        x = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1) + self.places
        return self.head(self.norm(self.layers(x))[:, 0])
