"""Layers of deep machines as modules: a feature map, and the random features of what it gives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nfa.kernels.conv import ConvKernel
from nfa.machines.maps import FeatureMap, PatchMap, RandomFilters, RandomMap
from nfa.machines.random_features import RandomFeatures, UnitRows
from nfa.machines.random_filters import ConvFeatures

_HELD = 2**24  # numbers of transformed patches at a time, where no gradients are wanted


class Stage(nn.Module):
    """A layer, whose ``features`` of scaled inputs are handed on, and whose predictor sees its ``maps``."""

    scale: nn.Module
    feature_map: FeatureMap | PatchMap

    @property
    def M(self) -> Tensor:
        """The Mahalanobis matrix of points (d, d) or of patches (D, D)."""
        W = self.feature_map.weight.detach().flatten(1)
        return W.mT @ W

    def features(self, x: Tensor) -> Tensor:
        """What is handed on, for inputs that are scaled already."""
        raise NotImplementedError

    def maps(self, x: Tensor, offset: Tensor | None) -> Tensor:
        """What the predictor sees."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """What is handed on, (n, …), for inputs (n, …)."""
        return self.features(self.scale(x))


class PointStage(Stage):
    """``x -> Φ(M^½ x)`` of points, scaled to unit length where that is wanted.

    Attributes:
        scale: `UnitRows`, or nothing.
        feature_map: ``M^½``, the symmetric root; while the layer is being fitted, any root.
        random: the linear map of Φ; None where only a predictor comes after the feature map.
        activation: the nonlinearity of Φ.
    """

    random: RandomMap | None
    activation: nn.Module | None

    def __init__(self, in_features: int, features: RandomFeatures | None, unit_norm: bool, seed: int):
        super().__init__()
        self.scale = UnitRows() if unit_norm else nn.Identity()
        self.feature_map = FeatureMap(in_features)
        self.random = self.activation = None
        if features is not None:
            self.random = RandomMap(*features.draw(in_features, torch.Generator().manual_seed(seed)))
            self.activation = features.nonlinearity()

    def features(self, x: Tensor) -> Tensor:
        """What is handed on, (n, D), for points (n, d) that are scaled already."""
        assert self.random is not None  # as of every layer that hands on
        assert self.activation is not None
        return self.activation(self.random(self.feature_map(x)))

    def maps(self, x: Tensor, offset: Tensor | None) -> Tensor:
        """What the predictor sees, (n, k)."""
        x = self.scale(x)
        return self.feature_map(x if offset is None else x - offset)


class PatchStage(Stage):
    """``x -> pool(φ(A T u))`` for every patch u of images.

    Attributes:
        shape: of what comes in, (c, h, w).
        scale: nothing.
        feature_map: T; in front of the predictor with the stride and the padding of its kernel, else with
            those of the features.
        random: A; None where only a predictor comes after the feature map.
    """

    feature_map: PatchMap
    random: RandomFilters | None

    def __init__(self, kernel: ConvKernel, shape: Sequence[int], features: ConvFeatures | None, seed: int):
        super().__init__()
        self.shape, self._kernel, self._features = tuple(shape), kernel, features
        self.scale = nn.Identity()
        self.feature_map = PatchMap(shape[0], kernel.patch_size)
        self.random = None
        if features is not None:
            D = shape[0] * kernel.patch_size**2
            self.random = RandomFilters(features.filters(D, torch.Generator().manual_seed(seed)))

    def features(self, x: Tensor) -> Tensor:
        """What is handed on (n, width, h', w') for images (n, c, h, w)."""
        assert self._features is not None
        self._place(self._features.stride, self._features.border(self._kernel.patch_size))
        if torch.is_grad_enabled():
            return self._handed_on(x)
        step = max(_HELD // (x.shape[2] * x.shape[3] * len(self.feature_map.weight)), 1)
        return torch.cat([self._handed_on(part) for part in x.split(step)])

    def maps(self, x: Tensor, offset: Tensor | None) -> Tensor:
        """What the predictor sees, (n, D, h, w)."""
        self._place(self._kernel.stride, self._kernel.shape(x).border)
        return self.feature_map(x)

    def _handed_on(self, x: Tensor) -> Tensor:
        assert self._features is not None  # as of every layer that hands on
        assert self.random is not None
        return self._features.finished(self.random(self.feature_map(x)))

    def _place(self, stride: int, border: int) -> None:
        self.feature_map.stride, self.feature_map.padding = (stride, stride), (border, border)
