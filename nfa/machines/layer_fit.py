"""What fits of deep machines share: one round of one layer a step, and what a failed round leaves behind."""

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch

from nfa.errors import NfaError
from nfa.kernels import exact_products
from nfa.machines.rise import Rise
from nfa.machines.rounds import RoundFailedWarning


class LayerFit(ABC):
    """Fits a network, one round of one layer at a time.

    All that a step needs from those before it is in the network: a fit that was broken off goes on with
    the network as it was loaded and the same data. What is kept beside it saves time.

    Args:
        network: with the ``position`` (2,) of the layer and the round that were fitted last.
        layers: number of layers.
        rounds: updates of M in each layer.
    """

    def __init__(self, network: Any, layers: int, rounds: int):
        self.network, self._layers, self._rounds = network, layers, rounds
        self._row: dict[str, Any] = {}
        self._rise: Rise | None = None  # of this layer, where there are no validation data

    @property
    def done(self) -> bool:
        """Whether all rounds of all layers are fitted."""
        return self._next()[0] >= self._layers

    @property
    def between_layers(self) -> bool:
        """Whether the layer that was fitted last is finished."""
        return int(self.network.position[1]) == self._rounds

    @exact_products()
    def step(self) -> dict[str, Any]:
        """Fit the next round of this layer, or the first one of the next layer.

        Where a round after the first of a layer fails, the layer ends with the round before.

        Returns:
            What a history tells of the round that the network has now, ``layer`` and ``round`` first; that
            of the last round of a layer tells of the layer, too.

        Raises:
            NfaError: all is fitted, or the first round of a layer fails.

        Warns:
            RoundFailedWarning: a later round fails.
        """
        if self.done:
            raise NfaError(f"all {self._layers} layers are fitted: there is no further step")
        layer, index = self._next()
        try:
            self._row = {"layer": layer, "round": index, **self._fit_round(layer, index)}
        except (NfaError, torch.OutOfMemoryError) as error:
            if index == 0:
                raise
            warnings.warn(
                f"round {index} of layer {layer} failed ({error}); the layer is that of round {index - 1}",
                RoundFailedWarning,
                stacklevel=3,
            )
            self._row = {"layer": layer, "round": index - 1, **self._row}
            self._end_early(layer)
        if self.between_layers:
            self._row |= self._finished(layer)
        return dict(self._row)

    @abstractmethod
    def _fit_round(self, layer: int, index: int) -> dict[str, Any]:
        """Fit a round and leave it in the network; what fails leaves the network as it was."""

    @abstractmethod
    def _end_early(self, layer: int) -> None:
        """Let the round that the network has be the last one of the layer."""

    @abstractmethod
    def _finished(self, layer: int) -> dict[str, Any]:
        """Finish a layer, and tell of it."""

    def _next(self) -> tuple[int, int]:
        layer, index = self.network.position.tolist()
        return (layer, index + 1) if index < self._rounds else (layer + 1, 0)
