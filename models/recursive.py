"""What recursive feature machines share in the trainer: learn from the fit before, then fit."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from models.kernel import KernelModule
from nfa import NfaError
from nfa.machines.recursion import mse
from nfa.machines.rise import Rise


class RecursiveModule(KernelModule):
    """A kernel predictor, and what it learned from the one before; epoch t fits round t - 1.

    A subclass sets `recursion`, and `network` and `spare`, which hold a predictor and its ridge.

    Attributes:
        initial: what the first round has learned: nothing.
    """

    recursion: Any
    initial: ClassVar[Any] = None
    _rise: Rise | None = None

    def fitted_without_offset(self) -> None:
        """Go on as version 0.1 did."""
        self.recursion = replace(self.recursion, offset="none")

    @abstractmethod
    def learned(self, predictor: Any, index: int) -> tuple[Any, dict[str, Any]]:
        """What is learned from the predictor of round ``index``, and what to log of it."""

    def points(self, x: Tensor) -> Tensor:
        """Inputs (n, …) as the machine takes them."""
        return x

    def solve(
        self, index: int, x: Tensor, y: Tensor, validation: Callable[[], tuple[Tensor, Tensor] | None]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Learn from the fit before, and fit with that."""
        previous, update, start = self.network.predictor(), {}, None
        learned, points, columns = self.initial, self.points(x), self.columns(y)
        if previous is not None:
            learned, update = self.learned(previous, index - 1)
            start = previous.coefficients
        held_out = None
        if self.recursion.chooses:
            held_out = validation()
            if held_out is None:
                raise NfaError(
                    "several values of model.bandwidth or model.ridge are chosen from on validation data: "
                    "raise data.val_fraction, or give one"
                )
            held_out = self.points(held_out[0]), self.columns(held_out[1])
        recursion = self.targets.suited(self.recursion)
        fit = recursion.fit(learned, points, columns, held_out, start)
        if not self.validated:
            if index == 0 or self._rise is None:
                self._rise = Rise(recursion, self.initial, points, columns)
            self._rise.check(index, learned, mse(fit.train_scores, columns))
        with torch.no_grad():
            self.network.hold(fit.predictor, fit.solution.ridge)
        return fit.train_scores, fit.row | update

    def solve_again(self, x: Tensor, y: Tensor) -> None:
        """Fit the coefficients anew with what the predictor in `network` has learned."""
        best, ridge = self.network.predictor(), float(self.network.ridge)
        fit = self.targets.suited(self.recursion).refit(best, ridge, self.points(x), self.columns(y))
        with torch.no_grad():
            self.network.hold(fit.predictor, fit.solution.ridge)

    @property
    def num_learned(self) -> int:
        """Numbers that are learned: the root of M and the coefficients."""
        predictor = self.network.predictor()
        return super().num_learned + (0 if predictor is None else predictor.coefficients.numel())
