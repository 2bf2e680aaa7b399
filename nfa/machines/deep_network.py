"""A deep recursive feature machine as a module, which holds all that a fit of it goes on from.

An audit measures it as it measures a network: ``feature_map`` of each layer has ``WᵀW = M``, and ``random``
is the linear map inside its random features.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nfa.kernels import Metric
from nfa.machines.network import FeatureMap, RadialSum
from nfa.machines.predictor import Predictor
from nfa.machines.random_features import RandomFeatures, UnitRows
from nfa.machines.rounds import stream
from nfa.machines.sized import SizedOnLoad

_STREAM = 7_919  # keeps these draws apart from those of `Recursion`


class RandomMap(FeatureMap):
    """``R x + b``, not trained by gradients; equal points have equal images, as those of a `FeatureMap`.

    Args:
        R: (D, d).
        b: (D,) or None.
    """

    fitted_sizes: ClassVar = {"weight": (), "bias": ()}
    free_rows = False

    def __init__(self, R: Tensor, b: Tensor | None):
        super().__init__(R.shape[1])
        self.put("weight", R.to(self.weight))
        self.bias = None if b is None else nn.Parameter(b.to(self.weight), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d) to (n, D)."""
        z = super().forward(x)
        return z if self.bias is None else z + self.bias


class DeepLayer(nn.Module):
    """``x -> Φ(M^½ x)``, of rows of unit length where that is wanted.

    Attributes:
        scale: `UnitRows`, or nothing.
        feature_map: ``M^½``, the symmetric root; while the layer is being fitted, any root.
        random: the linear map of Φ; None where only a predictor comes after the feature map.
        activation: the nonlinearity of Φ.
    """

    def __init__(self, in_features: int, features: RandomFeatures | None, unit_norm: bool, seed: int):
        super().__init__()
        self.scale = UnitRows() if unit_norm else nn.Identity()
        self.feature_map = FeatureMap(in_features)
        self.random = self.activation = None
        if features is not None:
            self.random = RandomMap(*features.draw(in_features, torch.Generator().manual_seed(seed)))
            self.activation = features.nonlinearity()

    @property
    def M(self) -> Tensor:
        """The Mahalanobis matrix, (d, d)."""
        W = self.feature_map.weight.detach()
        return W.mT @ W

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, D) of points (n, d)."""
        return self.features(self.scale(x))

    def features(self, x: Tensor) -> Tensor:
        """Features (n, D) of points (n, d) that are scaled already."""
        return self.activation(self.random(self.feature_map(x)))


class DeepKernelNetwork(SizedOnLoad):
    """Layers ``layer0``, ``layer1``, … and the kernel predictor ``radial`` of the one that is being fitted.

    Inputs of any shape (n, …) are flattened. Layers behind the one that is being fitted are not used, and
    before the first fit the outputs are zero.

    Args:
        kernel: name, see `nfa.kernels.make_kernel`.
        in_features: d.
        outputs: c.
        depth: number of layers.
        features: random features of each layer, or their options.
        seed: of the random features.
        unit_norm: whether rows are scaled to length one before each feature map.
        last: whether the last layer has random features, too: the predictor does not use them.
        **kernel_options: ``nu`` of matern, ``q`` of exponential.

    Attributes:
        position: (2,) the layer and the round that were fitted last; round -1 before the first.
        offset: (d,) of the predictor, in the width of its layer.
    """

    fitted_sizes: ClassVar = {"offset": (0,)}

    def __init__(
        self,
        kernel: str,
        in_features: int,
        outputs: int,
        depth: int,
        features: RandomFeatures | Mapping[str, Any],
        seed: int = 0,
        unit_norm: bool = True,
        last: bool = True,
        **kernel_options: Any,
    ):
        super().__init__()
        self.depth = depth
        if isinstance(features, Mapping):  # as a checkpoint holds them
            features = RandomFeatures(**features)
        for index in range(depth):
            width = features.width if index else in_features
            drawn = features if last or index < depth - 1 else None
            layer_seed = stream(seed * _STREAM, index)
            self.add_module(f"layer{index}", DeepLayer(width, drawn, unit_norm, layer_seed))
        self.radial = RadialSum(kernel, kernel_options, in_features, outputs)
        self.register_buffer("offset", torch.zeros(in_features))
        self.register_buffer("position", torch.tensor([0, -1]))

    @property
    def layers(self) -> tuple[DeepLayer, ...]:
        """All layers."""
        return tuple(self.get_submodule(f"layer{index}") for index in range(self.depth))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, c)."""
        index = int(self.position[0])
        layer = self.layers[index]
        return self.radial(layer.feature_map(layer.scale(self.before(x, index)) - self.offset))

    def before(self, x: Tensor, layer: int) -> Tensor:
        """What comes into a layer (n, ·) for inputs (n, …), not scaled yet."""
        x = x.flatten(1)
        for earlier in self.layers[:layer]:
            x = earlier(x)
        return x

    def hold(self, layer: int, index: int, predictor: Predictor, ridge: float = 0.0) -> None:
        """Take over the fit of a round, found with a ridge."""
        predictor = predictor.settled()
        self.layers[layer].feature_map.put("weight", predictor.root().mT.contiguous())
        self.put("offset", predictor.offset)
        self.radial.hold(predictor, ridge)
        self.position.copy_(torch.tensor([layer, index]))

    def predictor(self) -> Predictor | None:
        """The fit that is held, of the points that come into its layer, scaled; None before the first."""
        layer, index = self.position.tolist()
        if index < 0:
            return None
        weight = self.layers[layer].feature_map.weight.detach()
        metric = Metric.factored(weight.mT.contiguous()) if index else Metric.identity()
        return self.radial.predictor(metric, self.offset)
