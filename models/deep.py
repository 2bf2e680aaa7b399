"""What deep machines share in the trainer: one round of one layer an epoch."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.kernel import KernelModule
from nfa.machines.targets import TargetCode

_AT_ONCE = 1024  # inputs


class DeepModule(KernelModule):
    """Layers that are fitted one after the other; the run ends by itself when all are.

    `network` predicts by the layer that is being fitted.
    """

    def __init__(self, task: str, num_outputs: int, patience: int | None = None):
        super().__init__(task, num_outputs, patience)
        self._fit: Any = None

    def fitted_without_offset(self) -> None:
        """Go on as version 0.1 did."""
        self.options = replace(self.options, recursion=replace(self.options.recursion, offset="none"))

    @abstractmethod
    def begin(
        self, x: Tensor, y: Tensor, targets: TargetCode, validation: tuple[Tensor, Tensor] | None
    ) -> Any:
        """What fits `network`, by ``step()`` until it is ``done``, from where the network is."""

    def solve(
        self, index: int, x: Tensor, y: Tensor, validation: Callable[[], tuple[Tensor, Tensor] | None]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Fit the next round of this layer, or the first one of the next layer."""
        if self._fit is None or self._fit.network is not self.network:
            self._fit = self.begin(x, y, self.targets, validation())
        row = {} if self._fit.done else self._fit.step()  # all layers may have come from a checkpoint
        if self._fit.done:
            self.trainer.should_stop = True
        with torch.no_grad():
            outputs = torch.cat([self(part) for part in x.split(_AT_ONCE)])
        return outputs, row
