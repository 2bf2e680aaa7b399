"""A deep convolutional machine as a module, which holds all that a fit of it goes on from.

An audit measures it as it measures a network: ``feature_map`` of each layer has ``WᵀW = M`` of patches, and
``random`` is the random 1 × 1 convolution behind it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfa.checks import choice, settle, whole
from nfa.errors import NfaError
from nfa.kernels.conv import PADDINGS, ConvKernel
from nfa.machines.conv_network import ConvSum, PatchMap, outputs_of
from nfa.machines.conv_predictor import ConvPredictor, unless_identity
from nfa.machines.rounds import stream
from nfa.machines.sized import SizedOnLoad

ACTIVATIONS = ("none", "relu")
_HELD = 2**24  # numbers of transformed patches at a time, where no gradients are wanted
_STREAM = 7_919  # keeps these draws apart from those of `ConvRecursion`


@dataclass(frozen=True)
class ConvFeatures:
    """What a layer hands on: ``pool(φ(A T u))`` for every patch u, with A (width, D) standard normal.

    The filters ``A T`` are random with the covariance M. As T has Frobenius norm 1, M is divided by its
    trace already; no scale of the filters changes a prediction.

    Args:
        width: number of filters.
        activation: φ, ``none``, as published, or ``relu``.
        padding: ``none``, or ``zero`` for ``patch_size // 2`` zeros on each side.
        stride: of the convolution.
        pool: side of the squares whose mean is handed on.

    Raises:
        NfaError: an option is out of range.
    """

    width: int = 64
    activation: str = "none"
    padding: str = "none"
    stride: int = 1
    pool: int = 1

    def __post_init__(self):
        for name, known in (("activation", ACTIVATIONS), ("padding", PADDINGS)):
            settle(self, **{name: choice(name, getattr(self, name), known)})
        for name in ("width", "stride", "pool"):
            settle(self, **{name: whole(name, getattr(self, name), 1)})

    def filters(self, D: int, generator: torch.Generator) -> Tensor:
        """A (width, D), in float64 on the CPU."""
        return torch.randn(self.width, D, generator=generator, dtype=torch.float64)

    def border(self, patch_size: int) -> int:
        """Zeros on each side."""
        return patch_size // 2 if self.padding == "zero" else 0

    def shape(self, shape: tuple[int, int, int], patch_size: int) -> tuple[int, int, int]:
        """(c, h, w) of what is handed on for images (c, h, w); a size below 1 where nothing is left."""
        border = 2 * self.border(patch_size)
        return self.width, *(
            ((side + border - patch_size) // self.stride + 1) // self.pool for side in shape[1:]
        )


class RandomFilters(PatchMap):
    """``A z`` at every position, (width, k); equal vectors have equal images."""

    free_rows = False

    def __init__(self, A: Tensor):
        super().__init__(A.shape[1], 1)
        self.put("weight", A.to(self.weight))


class ConvLayer(nn.Module):
    """``x -> pool(φ(A T u))``.

    Attributes:
        kernel: of the predictor of this layer.
        shape: of what comes in, (c, h, w).
        feature_map: T; in front of the predictor with the stride and the padding of its kernel, else with
            those of the features.
        random: A; None where only a predictor comes after the feature map.
    """

    def __init__(
        self, kernel: ConvKernel, shape: tuple[int, int, int], features: ConvFeatures, seed: int, last: bool
    ):
        super().__init__()
        self.kernel, self.shape, self._features = kernel, shape, features
        self.feature_map = PatchMap(shape[0], kernel.patch_size)
        self.random = None
        if not last:
            D = shape[0] * kernel.patch_size**2
            self.random = RandomFilters(features.filters(D, torch.Generator().manual_seed(seed)))

    @property
    def M(self) -> Tensor:
        """The Mahalanobis matrix of patches, (D, D)."""
        T = self.feature_map.weight.detach().flatten(1)
        return T.mT @ T

    def forward(self, x: Tensor) -> Tensor:
        """What is handed on (n, width, h', w') for images (n, c, h, w)."""
        own = self._features
        self._place(own.stride, own.border(self.kernel.patch_size))
        if torch.is_grad_enabled():
            return self._handed_on(x)
        step = max(_HELD // (x.shape[2] * x.shape[3] * len(self.feature_map.weight)), 1)
        return torch.cat([self._handed_on(part) for part in x.split(step)])

    def maps(self, x: Tensor) -> Tensor:
        """What the predictor sees, (n, D, h, w)."""
        self._place(self.kernel.stride, self.kernel.shape(x).border)
        return self.feature_map(x)

    def _handed_on(self, x: Tensor) -> Tensor:
        z = self.random(self.feature_map(x))
        z = F.relu(z) if self._features.activation == "relu" else z
        return z if self._features.pool == 1 else F.avg_pool2d(z, self._features.pool)

    def _place(self, stride: int, border: int) -> None:
        self.feature_map.stride, self.feature_map.padding = (stride, stride), (border, border)


class DeepConvNetwork(SizedOnLoad):
    """Layers ``layer0``, ``layer1``, … and the kernel predictor ``sum`` of the one that is being fitted.

    Layers behind that one are not used, and before the first fit the outputs are zero.

    Args:
        kernel: of the first layer, or a dictionary of its options; that of each further layer has one
            convolution less, but at least one.
        shape: of one image, (c, h, w).
        outputs: number of outputs.
        layers: number of layers.
        features: what a layer hands on, or a dictionary of these options.
        seed: of the random filters.

    Attributes:
        position: (2,) the layer and the round that were fitted last; round -1 before the first.
        best_round: of this layer, with ``best_error``, ``best_ridge``, ``best_transform`` (D, D) and
            ``best_coefficients`` (n, outputs).

    Raises:
        NfaError: the images become smaller than what a kernel sees.
    """

    fitted_sizes: ClassVar = {"best_transform": (0, 1), "best_coefficients": (0,)}

    def __init__(
        self,
        kernel: ConvKernel | dict[str, Any],
        shape: Sequence[int],
        outputs: int,
        layers: int,
        features: ConvFeatures | dict[str, Any],
        seed: int = 0,
    ):
        super().__init__()
        kernel = ConvKernel(**kernel) if isinstance(kernel, Mapping) else kernel
        features = ConvFeatures(**features) if isinstance(features, Mapping) else features
        shape = tuple(shape)
        for index in range(layers):
            own = replace(kernel, depth=max(kernel.depth - index, 1))
            _check_size(own, shape, index)
            layer_seed = stream(seed * _STREAM, index)
            self.add_module(f"layer{index}", ConvLayer(own, shape, features, layer_seed, index == layers - 1))
            shape = features.shape(shape, kernel.patch_size)
        self.count = layers
        first = self.get_submodule("layer0")
        self.sum = ConvSum(first.kernel, first.shape, outputs)
        self.register_buffer("position", torch.tensor([0, -1]))
        self.register_buffer("best_round", torch.tensor(-1))
        self.register_buffer("best_error", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("best_ridge", torch.zeros((), dtype=torch.float64))
        self.register_buffer("best_transform", self.sum.transform.clone())
        self.register_buffer("best_coefficients", torch.zeros(0, outputs))

    @property
    def layers(self) -> tuple[ConvLayer, ...]:
        """All layers."""
        return tuple(self.get_submodule(f"layer{index}") for index in range(self.count))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, outputs) of images (n, c, h, w)."""
        index = int(self.position[0])
        layer = self.layers[index]
        self.sum.kernel = layer.kernel
        return outputs_of(layer.maps, self.sum, self.before(x, index))

    def before(self, x: Tensor, layer: int) -> Tensor:
        """What comes into a layer (n, c, h, w)."""
        for earlier in self.layers[:layer]:
            x = earlier(x)
        return x

    def hold(
        self, layer: int, index: int, predictor: ConvPredictor, ridge: float = 0.0, error: float = 0.0
    ) -> None:
        """Take over the fit of a round, found with a ridge; it is the best one if its error is lowest."""
        self._show(layer, predictor, ridge)
        self.position.copy_(torch.tensor([layer, index]))
        if index == 0 or error < float(self.best_error):
            self.best_round.fill_(index)
            self.best_error.fill_(error)
            self.best_ridge.fill_(ridge)
            self.put("best_transform", predictor.root())
            self.put("best_coefficients", predictor.coefficients)

    def show_best(self) -> None:
        """Put the best round of the layer in the place of the last one."""
        layer = int(self.position[0])
        kernel, T = self.layers[layer].kernel, unless_identity(self.best_transform)
        best = replace(self.sum.predictor(), kernel=kernel, transform=T, coefficients=self.best_coefficients)
        self._show(layer, best, float(self.best_ridge))

    def predictor(self) -> ConvPredictor | None:
        """The fit that is held, of the images that come into its layer; None before the first."""
        self.sum.kernel = self.layers[int(self.position[0])].kernel
        return self.sum.predictor()

    def _show(self, layer: int, predictor: ConvPredictor, ridge: float) -> None:
        self.layers[layer].feature_map.put("weight", predictor.root())
        self.sum.hold(predictor, ridge)


def _check_size(kernel: ConvKernel, shape: tuple[int, int, int], index: int) -> None:
    if min(shape) < 1:
        raise NfaError(
            f"nothing is left of the images before layer {index}: give fewer layers, a smaller patch_size, "
            "stride or pool, or conv_padding='zero'"
        )
    try:
        kernel.shape(torch.empty(1, *shape))
    except NfaError as error:
        raise NfaError(f"layer {index}: {error}") from None
