"""Tiny float64 networks that between them meet every way a linear map can sit in a model.

Each case is data: how to build the model, its inputs (3 or 4 samples), which layers to measure, and how to
read outputs off what the model returns. Builders and inputs are seeded and leave the global generator alone.
Models are returned in eval mode, except where the case is about training mode (the name ends in
``train-mode``: the measurement belongs to the eval-mode function, whatever mode it is handed).
"""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Case:
    """One network to measure.

    Attributes:
        name: identifier; ``lazy-unbuilt...`` models have no weights before their first forward.
        build: makes the model, float64, the same one every time.
        inputs: makes a tensor ``(n, ...)``, or a tuple of them for ``model(*inputs)``.
        layers: dotted names to measure; None for every linear map.
        output_fn: takes what the model returns to a tensor ``(n, ...)``; None for the identity.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor | tuple[Tensor, ...]]
    layers: tuple[str, ...] | None = None
    output_fn: Callable[[Any], Tensor] | None = None

    def layer_names(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the layers to measure in ``model``."""
        if self.layers is not None:
            return self.layers
        return tuple(name for name, module in model.named_modules() if isinstance(module, MAPS))


def normal(*shape: int, seed: int = 1) -> Callable[[], Tensor]:
    """Thunk of a seeded standard normal tensor."""
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(
    make: Callable[[], nn.Module], seed: int = 0, *, training: bool = False
) -> Callable[[], nn.Module]:
    """Thunk that runs ``make`` under its own seed and returns the model in float64."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make().double().train(training)

    return build


def sequential(*makes: Callable[[], nn.Module], training: bool = False) -> Callable[[], nn.Module]:
    """Thunk of an ``nn.Sequential`` of freshly made modules."""
    return seeded(lambda: nn.Sequential(*[make() for make in makes]), training=training)


def linear(*args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(*args, **kwargs)


def conv2d(*args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(*args, **kwargs)


def in_place_relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def one_conv(
    *args: Any, pixels: int = 3, tail: Callable[[], nn.Module] = nn.Tanh, **kwargs: Any
) -> Callable[[], nn.Module]:
    """Thunk of conv → tail → means over a ``pixels`` × ``pixels`` grid → linear with 3 outputs."""
    return sequential(
        conv2d(*args, **kwargs),
        tail,
        lambda: nn.AdaptiveAvgPool2d(pixels),
        nn.Flatten,
        linear(args[1] * pixels**2, 3),
    )


class Square(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z**2


class MeanTokens(nn.Module):
    """Mean over all axes between the first and the last."""

    def forward(self, z: Tensor) -> Tensor:
        return z.flatten(1, -2).mean(dim=1)


class LargeBias(nn.Module):
    """Both layers carry a bias that decides which units are on."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.last = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        for layer in (self.first, self.conv, self.last):
            nn.init.normal_(layer.bias, std=3.0)

    def forward(self, x: Tensor) -> Tensor:
        z = F.softplus(self.conv(F.softplus(self.first(x))))
        return self.last(z.mean(dim=(2, 3))) ** 2


class SamePadding(nn.Module):
    """Even kernels with padding='same' put the odd pixel at the end; torch warns that it has to copy."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, (4, 2), padding="same"), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")
            z = self.conv(x)
        return self.head(torch.tanh(z).mean(dim=(2, 3)))


class ResidualNet(nn.Module):
    """Convolutional block with a strided projection on the skip path, batch norm and in-place activations."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.skip, self.act = nn.Conv2d(2, 4, 1, stride=2), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)
        randomise_batch_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        z += self.skip(x)
        return self.head(self.act(z).mean(dim=(2, 3)))


def randomise_batch_norm(model: nn.Module) -> nn.Module:
    """Give every batch norm of ``model`` random statistics, scales and shifts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


def batch_norm_net() -> nn.Module:
    return randomise_batch_norm(
        nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 5),
            nn.BatchNorm1d(5),
            nn.Tanh(),
            nn.Linear(5, 3),
        )
    )


class Recurrent(nn.Module):
    """``h ← tanh(W [h, x_t])`` over the steps of x ``(n, steps, 3)``: one module called at every step."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(4 + 3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for x_t in x.unbind(dim=1):
            h = torch.tanh(self.cell(torch.cat([h, x_t], dim=1)))
        return self.head(h)


class TwoScales(nn.Module):
    """One convolution applied to the map and to its pooled copy: calls of different size."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.tanh(self.conv(x))
        coarse = torch.tanh(self.conv(F.avg_pool2d(fine, 2)))
        return self.head(torch.cat([fine.mean(dim=(2, 3)), coarse.mean(dim=(2, 3))], dim=1))


class TiedWeights(nn.Module):
    """Two modules around one Parameter: equal N, different G."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Returning(nn.Module):
    """A two-layer net whose output is wrapped by ``wrap(hidden, out)``."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any], outputs: int = 3):
        super().__init__()
        self.wrap, self.first, self.last = wrap, nn.Linear(5, 4), nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.first(x))
        return self.wrap(h, self.last(h))


class TwoInputs(nn.Module):
    """An image and a vector, met by a product."""

    def __init__(self):
        super().__init__()
        self.image, self.vector, self.head = nn.Conv2d(1, 4, 3), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        return self.head(torch.tanh(self.image(image)).mean(dim=(2, 3)) * self.vector(vector))


class Attention(nn.Module):
    """Self-attention of two heads with its own linear map for q, k, v and the output."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(-2))


class VisionTransformer(nn.Module):
    """Patch embedding by a strided convolution, one pre-norm block, a head on the first token."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], dim=1)
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return self.head(tokens[:, 0])


def frozen_net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh()).requires_grad_(False)


def weight_norm_net() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(2, 4, 3)),
        nn.Tanh(),
        nn.Flatten(),
        parametrizations.weight_norm(nn.Linear(36, 4)),
        nn.Tanh(),
        nn.Linear(4, 3),
    )


def spectral_norm_net() -> nn.Module:
    return nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(5, 4)),
        nn.Tanh(),
        parametrizations.spectral_norm(nn.Linear(4, 3)),
    )


def lazy_net() -> nn.Module:
    return nn.Sequential(
        nn.LazyConv2d(3, 3, dtype=torch.float64),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(3, dtype=torch.float64),
    )


def materialised(model: nn.Module, *shape: int) -> nn.Module:
    """Initialise the lazy modules of ``model`` with one forward."""
    with torch.no_grad():
        model(torch.zeros(1, *shape, dtype=torch.float64))
    return model


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.Tanh) -> Callable[[], nn.Module]:
    """Thunk of a fully connected net with biases and ``act`` between its layers."""

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Linear(width_in, width_out), act()]
        return nn.Sequential(*layers[:-1])

    return seeded(make)


VECTOR = normal(4, 5)
IMAGE = normal(3, 2, 5, 5)
SMALL_IMAGE = normal(3, 2, 4, 4)
FOUR_CHANNELS = normal(3, 4, 5, 4)

CASES: list[Case] = [
    # linear layers
    Case("linear-2d", sequential(linear(5, 4), nn.Tanh, linear(4, 3)), VECTOR),
    Case("linear-3d-tokens", sequential(linear(3, 4), nn.Tanh, linear(4, 3), MeanTokens), normal(3, 5, 3)),
    Case("linear-4d", sequential(linear(3, 4), nn.GELU, linear(4, 2), MeanTokens), normal(3, 2, 3, 3)),
    Case("linear-in-less-than-out", mlp(2, 7, 3), normal(4, 2)),
    Case("linear-in-more-than-out", mlp(9, 2, 3), normal(4, 9)),
    Case("linear-no-bias", sequential(linear(5, 4, bias=False), nn.ReLU, linear(4, 3, bias=False)), VECTOR),
    Case("linear-one-input", mlp(1, 4, 2), normal(4, 1)),
    Case("large-bias", seeded(LargeBias), IMAGE),
    Case("mlp-depth-4-equal-widths", mlp(4, 4, 4, 4, 4, act=nn.ReLU), normal(4, 4)),
    Case("mlp-unequal-widths", mlp(6, 3, 7, 5, 2), normal(4, 6)),
    # activations
    Case("tanh", mlp(5, 4, 4, 3, act=nn.Tanh), VECTOR),
    Case("gelu", mlp(5, 4, 4, 3, act=nn.GELU), VECTOR),
    Case("softplus", mlp(5, 4, 4, 3, act=nn.Softplus), VECTOR),
    Case("leaky-relu", mlp(5, 4, 4, 3, act=nn.LeakyReLU), VECTOR),
    Case("square", mlp(5, 4, 4, 3, act=Square), VECTOR),
    # convolutions
    Case(
        "conv1d",
        sequential(lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.Tanh, nn.Flatten, linear(16, 3)),
        normal(3, 2, 7),
    ),
    Case("conv2d", one_conv(2, 4, 3), IMAGE),
    Case("conv2d-rectangular-kernel", one_conv(2, 3, (3, 2)), normal(3, 2, 6, 4)),
    Case("conv2d-no-bias", one_conv(2, 4, 3, bias=False), IMAGE),
    Case(
        "conv3d",
        sequential(lambda: nn.Conv3d(2, 3, (2, 2, 3), padding=(0, 1, 1)), nn.Tanh, nn.Flatten, linear(72, 2)),
        normal(3, 2, 3, 3, 3),
    ),
    Case("conv2d-stride", one_conv(2, 4, 3, stride=2, pixels=2), IMAGE),
    Case("conv2d-stride-tuple", one_conv(2, 4, 3, stride=(2, 1), padding=1), IMAGE),
    Case("conv2d-stride-exceeds-kernel", one_conv(2, 4, 2, stride=3, pixels=2), IMAGE),
    Case("conv2d-dilation", one_conv(2, 4, 2, dilation=(2, 3), pixels=2), IMAGE),
    Case("conv2d-everything", one_conv(2, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), IMAGE),
    Case("conv2d-two-layers", sequential(conv2d(2, 3, 2), nn.Tanh, conv2d(3, 4, 2, stride=2)), SMALL_IMAGE),
    # groups
    Case("groups", one_conv(4, 6, 3, groups=2, pixels=2), FOUR_CHANNELS),
    Case("groups-in-less-than-out", one_conv(2, 8, 1, groups=2, pixels=2), SMALL_IMAGE),
    Case("groups-1d", sequential(lambda: nn.Conv1d(4, 4, 3, groups=2), nn.Tanh, nn.Flatten), normal(3, 4, 5)),
    Case("depthwise", one_conv(4, 4, 3, groups=4, pixels=2), FOUR_CHANNELS),
    Case("depthwise-multiplier-2", one_conv(4, 8, 2, groups=4, pixels=2), FOUR_CHANNELS),
    # padding
    Case(
        "padding-explicit-asymmetric",
        sequential(lambda: nn.ZeroPad2d((0, 1, 2, 0)), conv2d(2, 4, 3), nn.Tanh, nn.Flatten, linear(80, 3)),
        IMAGE,
    ),
    Case("padding-one-axis", one_conv(2, 4, 3, padding=(2, 0)), IMAGE),
    Case("padding-valid", one_conv(2, 4, 3, padding="valid"), IMAGE),
    Case("padding-same-even-kernel", seeded(SamePadding), SMALL_IMAGE),
    Case(
        "padding-same-dilation-circular",
        one_conv(2, 4, (3, 2), padding="same", dilation=2, padding_mode="circular"),
        IMAGE,
    ),
    Case("padding-circular", one_conv(2, 4, 3, padding=1, padding_mode="circular"), SMALL_IMAGE),
    Case("padding-reflect", one_conv(2, 4, 3, padding=(1, 2), padding_mode="reflect"), SMALL_IMAGE),
    Case("padding-replicate", one_conv(2, 4, 3, padding=2, padding_mode="replicate"), SMALL_IMAGE),
    # degenerate shapes
    Case("conv2d-1x1", one_conv(2, 4, 1), SMALL_IMAGE),
    Case(
        "conv2d-whole-map",
        sequential(conv2d(2, 4, 4), nn.Tanh, nn.Flatten, linear(4, 3)),
        SMALL_IMAGE,
    ),
    # blocks, normalisation, pooling, dropout
    Case("residual-block", seeded(ResidualNet), SMALL_IMAGE),
    Case("batch-norm", seeded(batch_norm_net), IMAGE),
    Case("batch-norm-train-mode", seeded(batch_norm_net, training=True), IMAGE),
    Case(
        "layer-norm",
        sequential(linear(5, 4), lambda: nn.LayerNorm(4), nn.ReLU, linear(4, 3)),
        normal(3, 2, 5),
    ),
    Case("group-norm", one_conv(2, 4, 3, tail=lambda: nn.GroupNorm(2, 4)), IMAGE),
    Case(
        "dropout-train-mode",
        sequential(linear(5, 6), nn.Tanh, lambda: nn.Dropout(0.9), linear(6, 3), training=True),
        VECTOR,
    ),
    Case(
        "max-pool-mean-pool",
        sequential(
            conv2d(2, 4, 2),
            nn.Tanh,
            lambda: nn.MaxPool2d(2, stride=1),
            conv2d(4, 3, 2),
            lambda: nn.AdaptiveAvgPool2d(1),
            nn.Flatten,
        ),
        IMAGE,
    ),
    # in-place activation right after the map
    Case("in-place-after-linear", sequential(linear(5, 4), nn.Tanh, linear(4, 6), in_place_relu), VECTOR),
    Case("in-place-after-first", sequential(linear(5, 8), in_place_relu, linear(8, 3)), VECTOR),
    Case(
        "in-place-after-3d-linear",
        sequential(linear(3, 8), in_place_relu, linear(8, 8), in_place_relu, MeanTokens),
        normal(3, 4, 3),
    ),
    Case("in-place-after-conv", one_conv(2, 4, 3, padding=1, tail=in_place_relu), IMAGE),
    # one weight, several uses
    Case("shared-module-recurrent", seeded(Recurrent), normal(3, 3, 3)),
    Case("shared-module-two-scales", seeded(TwoScales), SMALL_IMAGE),
    Case("tied-parameter", seeded(TiedWeights), normal(4, 4)),
    # parametrised, frozen and lazy weights
    Case("weight-norm", seeded(weight_norm_net), IMAGE),
    Case("spectral-norm", seeded(spectral_norm_net), VECTOR),
    Case("spectral-norm-train-mode", seeded(spectral_norm_net, training=True), VECTOR),
    Case("frozen", seeded(frozen_net), VECTOR),
    Case("lazy-built", seeded(lambda: materialised(lazy_net(), 2, 4, 4)), SMALL_IMAGE),
    Case(
        "lazy-linear-built", seeded(lambda: materialised(nn.Sequential(nn.LazyLinear(3)).double(), 5)), VECTOR
    ),
    Case("lazy-unbuilt", seeded(lazy_net), SMALL_IMAGE),
    # what the model takes and returns
    Case("two-inputs", seeded(TwoInputs), lambda: (normal(3, 1, 4, 4)(), normal(3, 3, seed=2)())),
    Case(
        "tuple-output", seeded(lambda: Returning(lambda h, f: (f, h))), VECTOR, output_fn=lambda raw: raw[0]
    ),
    Case(
        "dict-output",
        seeded(lambda: Returning(lambda h, f: {"hidden": h, "logits": f})),
        VECTOR,
        output_fn=lambda raw: raw["logits"],
    ),
    Case("output-ignores-last-layer", seeded(lambda: Returning(lambda h, f: h)), VECTOR, layers=("first",)),
    Case("squeezed-output", seeded(lambda: Returning(lambda h, f: f.squeeze(-1), outputs=1)), VECTOR),
    Case("one-output", seeded(lambda: Returning(lambda h, f: f, outputs=1)), VECTOR),
    Case("token-outputs", sequential(linear(3, 4), nn.Tanh, linear(4, 5)), normal(3, 2, 3)),
    Case("vision-transformer", seeded(VisionTransformer), normal(3, 1, 4, 4)),
]
