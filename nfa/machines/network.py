"""Machines as modules, which hold all that a fit of them goes on from.

An audit measures them as it measures networks: the weight of a feature map is W with ``WᵀW = M``, and in deep
ones ``random`` is the linear map inside what a layer hands on. Files name them by the four functions of
`nfa.machines.named`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nfa.device import check_fits
from nfa.machines.fitted_sizes import SizedOnLoad
from nfa.machines.kernel import Kernel
from nfa.machines.maps import FeatureMap, PatchMap
from nfa.machines.predictor import Predictor
from nfa.machines.reached import Kept, Reached, Round
from nfa.machines.stages import Stage
from nfa.machines.system import seed_for
from nfa.machines.tails import KernelSum

if TYPE_CHECKING:
    from nfa.machines.layer import Layer

_STREAM = 7_919  # keeps the draws of random features apart from those of updates


class Network(SizedOnLoad):
    """What all networks of machines hold: the predictor of one layer, behind its feature map.

    Attributes:
        kernel: of the predictor.
        feature_map: W.
        offset: (d,) what is taken off what comes in; None for nothing.
    """

    offset: Tensor | None

    def _current(self) -> tuple[Kernel, FeatureMap | PatchMap]:
        """The kernel and the feature map of the layer that is being fitted."""
        raise NotImplementedError

    def _add_predictor(self, kernel: Kernel, shape: Sequence[int], outputs: int) -> None:
        """Begin without a fit."""
        self.register_buffer("offset", torch.zeros(kernel.width(shape)) if kernel.centred else None)
        self.add_module(kernel.tail.name, kernel.tail(kernel, shape, outputs))

    @property
    def tail(self) -> KernelSum:
        """What comes behind the feature map."""
        kernel, _ = self._current()
        tail = self.get_submodule(kernel.tail.name)
        assert isinstance(tail, KernelSum)
        tail.kernel = kernel
        return tail

    def take_over(self, predictor: Predictor, ridge: float = 0.0) -> None:
        """Hold a fit, found with a ridge."""
        predictor = predictor.settled()
        self._current()[1].set_tensor("weight", predictor.weight.contiguous())
        if predictor.offset is not None:
            self.set_tensor("offset", predictor.offset)
        self.tail.take_over(predictor, ridge)

    def predictor(self) -> Predictor | None:
        """The fit that is held, of what comes into its layer; None before the first one."""
        return self.tail.predictor(self._current()[1].weight, self.offset)


class KernelNetwork(Network):
    """``tail(feature_map(x - offset))``: outputs (n, outputs) of inputs (n, …); zero before the first fit.

    Args:
        kernel: of the predictor.
        shape: of one input.
        outputs: number of outputs.

    Raises:
        NfaError: inputs of this shape are smaller than what the kernel sees.
    """

    fitted_sizes: ClassVar = {"offset": ()}

    def __init__(self, kernel: Kernel, shape: Sequence[int], outputs: int):
        super().__init__()
        self.kernel = kernel
        self.feature_map = kernel.feature_map(shape)
        self._add_predictor(kernel, shape, outputs)

    def _current(self) -> tuple[Kernel, FeatureMap | PatchMap]:
        return self.kernel, self.feature_map

    @classmethod
    def of(cls, predictor: Predictor, shape: Sequence[int]) -> "KernelNetwork":
        """The network of a predictor of inputs of this shape."""
        network = cls(predictor.kernel, shape, predictor.coefficients.shape[1])
        network.take_over(predictor)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, outputs)."""
        return self.kernel.run(self._maps, self.tail, self.kernel.arranged(x))

    def _maps(self, x: Tensor) -> Tensor:
        return self.feature_map(x if self.offset is None else x - self.offset)

    def take(self, found: Round) -> None:
        """Hold what a step of a machine found, unless it failed."""
        if found.fit is not None:
            self.take_over(found.fit.predictor, found.fit.solution.ridge)

    def reached(self, rounds: int) -> Reached:
        """Where a fit goes on from of which so many rounds are done."""
        predictor = self.predictor()
        if predictor is None:
            return Reached()
        kept = Kept(rounds - 1, predictor, float(self.tail.ridge), math.inf)
        return Reached(0, rounds - 1, predictor, kept)


class DeepNetwork(Network):
    """Layers ``layer0``, ``layer1``, … and the kernel predictor of the one that is being fitted.

    Layers behind that one are not used, and before the first fit the outputs are zero.

    Args:
        layers: of the machine; the last one may hand nothing on.
        shape: of one input.
        outputs: number of outputs.

    Attributes:
        position: (2,) the layer and the round that were fitted last; round -1 before the first.
        offset: (d,) of the predictor, in the width of its layer; None for images.
        best_round: of this layer, where it keeps the best, with ``best_error``, ``best_ridge``,
            ``best_transform`` (D, D) and ``best_coefficients`` (n, outputs).

    Raises:
        NfaError: the inputs become smaller than what a kernel sees, or the layers would not fit into memory.
    """

    position: Tensor
    best_round: Tensor
    best_error: Tensor
    best_ridge: Tensor
    best_transform: Tensor
    best_coefficients: Tensor

    fitted_sizes: ClassVar = {"offset": (0,), "best_transform": (0, 1), "best_coefficients": (0,)}

    def __init__(self, layers: Sequence["Layer"], shape: Sequence[int], outputs: int):
        super().__init__()
        self.kernels = tuple(layer.kernel for layer in layers)
        first = tuple(shape)
        shapes = _shapes(layers, first)
        for index, (layer, shape) in enumerate(zip(layers, shapes, strict=True)):
            seed = seed_for(layer.solver.seed * _STREAM, index)
            self.add_module(f"layer{index}", layer.kernel.stage(shape, layer.lift, layer.unit_norm, seed))
        self._add_predictor(self.kernels[0], first, outputs)
        self.register_buffer("position", torch.tensor([0, -1]))
        self.keeps_best = layers[0].keeps == "best"
        if self.keeps_best:
            self.register_buffer("best_round", torch.tensor(-1))
            self.register_buffer("best_error", torch.tensor(math.inf, dtype=torch.float64))
            self.register_buffer("best_ridge", torch.zeros((), dtype=torch.float64))
            self.register_buffer("best_transform", torch.eye(self.kernels[0].width(first)))
            self.register_buffer("best_coefficients", torch.zeros(0, outputs))

    @property
    def layers(self) -> tuple[Stage, ...]:
        """All layers."""
        stages = (self.get_submodule(f"layer{index}") for index in range(len(self.kernels)))
        return tuple(stage for stage in stages if isinstance(stage, Stage))

    def _current(self) -> tuple[Kernel, FeatureMap | PatchMap]:
        return self.kernel, self.feature_map

    @property
    def kernel(self) -> Kernel:
        """Of the layer that is being fitted."""
        return self.kernels[int(self.position[0])]

    @property
    def feature_map(self) -> FeatureMap | PatchMap:
        """Of that layer."""
        return self.layers[int(self.position[0])].feature_map

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, outputs)."""
        index = int(self.position[0])
        stage = self.layers[index]
        return self.kernel.run(lambda h: stage.maps(h, self.offset), self.tail, self.before(x, index))

    def before(self, x: Tensor, layer: int) -> Tensor:
        """What comes into a layer (n, …), not scaled yet."""
        x = self.kernels[0].arranged(x)
        for earlier in self.layers[:layer]:
            x = earlier(x)
        return x

    # ---- the fit that is held ------------------------------------------------------------------------------

    def hold(
        self, layer: int, index: int, predictor: Predictor, ridge: float = 0.0, error: float = 0.0
    ) -> None:
        """Hold the fit of a round, found with a ridge; it is the best one if its error is lowest."""
        self.position.copy_(torch.tensor([layer, index]))
        self.take_over(predictor, ridge)
        if self.keeps_best and (index == 0 or error < float(self.best_error)):
            self.best_round.fill_(index)
            self.best_error.fill_(error)
            self.best_ridge.fill_(ridge)
            self.set_tensor("best_transform", predictor.weight)
            self.set_tensor("best_coefficients", predictor.coefficients)

    def take(self, found: Round) -> None:
        """Hold what a step of a machine found, and with the last round of a layer what that keeps."""
        kept = found.kept
        if found.fit is not None:
            error = kept.error if kept.index == found.index else math.inf
            self.hold(found.layer, found.index, found.fit.predictor, found.fit.solution.ridge, error)
        if found.last:  # no round of this layer comes after it
            self.hold(found.layer, found.rounds, kept.predictor, kept.ridge, kept.error)

    def reached(self, rounds: int = 0) -> Reached:
        """Where a fit goes on from."""
        (layer, index), last = self.position.tolist(), self.predictor()
        if last is None:
            return Reached()
        kept = Kept(index, last, float(self.tail.ridge), -index)
        if self.keeps_best:
            metric = self.tail.metric(self.best_transform)
            best = replace(last, metric=metric, coefficients=self.best_coefficients)
            kept = Kept(int(self.best_round), best, float(self.best_ridge), float(self.best_error))
        return Reached(layer, index, last, kept)


def _shapes(layers: Sequence["Layer"], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """What comes into each layer, before anything is drawn, which takes long for one that is too wide."""
    shapes, size = [], 0
    for index, layer in enumerate(layers):
        width, drawn = layer.kernel.width(shape), 0 if layer.lift is None else layer.lift.width
        size += 4 * width**2 + 8 * width * drawn  # draws are float64
        check_fits(size, f"a machine with layers of {width} features", "give a smaller width")
        layer.kernel.check_shape(shape, index)
        shapes.append(shape)
        if index < len(layers) - 1:
            shape = layer.kernel.shape_behind(shape, layer.lift)
    return shapes
