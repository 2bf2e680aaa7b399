"""Rounds of a deep convolutional machine: each layer fits, learns its T, and hands on filtered images."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nfa.checks import settle, whole
from nfa.machines.conv_rfm import quality
from nfa.machines.conv_round import ConvRecursion
from nfa.machines.deep_conv_network import ConvFeatures, DeepConvNetwork
from nfa.machines.layer_fit import LayerFit
from nfa.machines.recursion import mse
from nfa.machines.rise import Rise
from nfa.machines.targets import TargetCode


@dataclass(frozen=True)
class DeepConvRecursion:
    """The options of a deep convolutional machine; `DeepConvFit` does what they say.

    Args:
        recursion: of the first layer; the kernel of each further layer has one convolution less, but at
            least one.
        features: what a layer hands on.
        layers: number of layers; the last one hands nothing on.
        rounds: updates of M in each layer; there is one more fit than that.

    Raises:
        NfaError: an option is out of range.
    """

    recursion: ConvRecursion = field(default_factory=ConvRecursion)
    features: ConvFeatures = field(default_factory=ConvFeatures)
    layers: int = 3
    rounds: int = 3

    def __post_init__(self):
        settle(self, layers=whole("layers", self.layers, 1), rounds=whole("rounds", self.rounds))

    @property
    def steps(self) -> int:
        """Fits of all rounds of all layers."""
        return self.layers * (self.rounds + 1)

    def network(
        self, shape: tuple[int, int, int], outputs: int, *, layers: int | None = None
    ) -> DeepConvNetwork:
        """A network to be fitted; see `DeepConvNetwork`. None takes the number of layers of the options."""
        recursion = self.recursion
        return DeepConvNetwork(
            recursion.kernel, shape, outputs, layers or self.layers, self.features, recursion.seed
        )


class DeepConvFit(LayerFit):
    """Fits a `DeepConvNetwork`, one round of one layer at a time: ``options.steps`` steps.

    After the last round of a layer the network shows the best one: on validation images, without these the
    last. Rows have what `ConvRFM.history` tells of a round, with ``self_consistency`` and ``rank`` those of
    the update that led to it; the row of the last round has ``best_round``, the first of a further layer
    ``features_seconds``.

    Args:
        options: of the machine.
        network: made by ``options.network``.
        X: training images (n, c, h, w), float32 or float64.
        y: their targets.
        targets: what kind these are.
        validation: images and their targets.

    Raises:
        NfaError: targets that do not belong to the images.
    """

    def __init__(
        self,
        options: DeepConvRecursion,
        network: DeepConvNetwork,
        X: Tensor,
        y: Tensor,
        targets: TargetCode,
        validation: tuple[Tensor, Tensor] | None = None,
    ):
        super().__init__(network, options.layers, options.rounds)
        self.options, self._targets = options, targets
        network.to(X.device)
        for layer in network.layers:
            layer.to(X.dtype)
        self._Y = targets.columns(y, X)
        self._images, self._Y_val = [X], None
        if validation is not None:
            self._images.append(validation[0].to(X))
            self._Y_val = targets.columns(validation[1], self._images[1])
        self._layer = -1  # whose inputs are held
        self._inputs: list[Tensor] = []

    def _fit_round(self, layer: int, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._come_to(layer)
        H, *H_val = self._inputs
        recursion = self._targets.suited(self.options.recursion)
        recursion = replace(recursion, kernel=self.network.layers[layer].kernel)
        transform, start = None, None
        if index:
            previous = self.network.predictor()
            transform, update = recursion.next_transform(previous, layer * self.options.rounds + index - 1)
            start = previous.coefficients
            row |= update
        validation = (H_val[0], self._Y_val) if H_val else None
        fit = recursion.fit(transform, H, self._Y, validation, start)
        if validation is None:
            if index == 0 or self._rise is None:
                self._rise = Rise(recursion, None, H, self._Y)
            self._rise.check(index, transform, mse(fit.train_scores, self._Y))
        error = -index if validation is None else recursion.error(fit.val_scores, self._Y_val)
        self.network.hold(layer, index, fit.predictor, fit.solution.ridge, error)
        return row | quality(self._targets, fit, self._Y, validation)

    def _end_early(self, layer: int) -> None:
        self.network.position.copy_(torch.tensor([layer, self._rounds]))

    def _finished(self, layer: int) -> dict[str, Any]:
        self.network.show_best()
        return {"best_round": int(self.network.best_round)}

    def _come_to(self, layer: int) -> dict[str, float]:
        """Take what comes into a layer: training images and validation images."""
        if layer == self._layer:
            return {}
        began = time.perf_counter()
        if layer and layer == self._layer + 1:
            self._inputs = [self.network.layers[layer - 1](H) for H in self._inputs]
        else:
            self._inputs = [self.network.before(X, layer) for X in self._images]
        self._layer = layer
        return {"features_seconds": time.perf_counter() - began} if layer else {}
