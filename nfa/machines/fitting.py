"""How machines are fitted: round by round, or layer by layer, keeping what is good when something fails."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.machines.layer_fit import LayerFit
from nfa.machines.recursion import mse
from nfa.machines.rise import Rise
from nfa.machines.rounds import Progress, RoundFailedWarning, told
from nfa.machines.targets import Label, TargetCode
from nfa.status import StatusLine

Validation = tuple[Tensor, Tensor] | None


class Machine(ABC):
    """What is fitted and predicts.

    Attributes:
        history: one dictionary a round, or a layer.
    """

    history: list[dict[str, Any]]
    device: torch.device | None
    _predictor: Any
    _targets: TargetCode

    @abstractmethod
    def scores(self, X: Tensor) -> Tensor:
        """Real outputs (n, outputs); for classes the larger, the likelier."""

    @property
    def classes(self) -> tuple[Label, ...]:
        """The label of each output, in their order; empty where the targets were numbers."""
        self._fitted()
        return self._targets.names

    def predict(self, X: Tensor) -> Tensor | list[str]:
        """Labels (n,) as they were given, texts as a list; or numbers in the shape of the targets."""
        return self._targets.decoded(self.scores(X))

    def _fitted(self) -> Any:
        """The predictor that is kept."""
        if self._predictor is None:
            raise NfaError("this machine is not fitted: call fit(X, y) first")
        return self._predictor

    @contextmanager
    def _anew(self) -> Iterator[None]:
        """Context of a fit that begins: where it ends without a predictor, the fit of before is kept."""
        before = vars(self).copy()
        self.history, self._predictor = [], None
        try:
            yield
        except BaseException:
            if self._predictor is None:
                vars(self).update(before)
            raise

    @staticmethod
    def _check_pair(X_val: Tensor | None, y_val: Tensor | None) -> None:
        if (X_val is None) != (y_val is None):
            raise NfaError("give both X_val and y_val, or neither")

    def _on_device(self, X: Tensor) -> Tensor:
        return X if self.device is None else X.to(self.device)


class RoundMachine(Machine):
    """A machine of one recursion.

    Attributes:
        initial: what the first round has learned: nothing.
        best_round: the round that is kept.
    """

    initial: ClassVar[Any] = None
    recursion: Any
    rounds: int
    patience: int | None
    refit: bool
    best_round: int

    @abstractmethod
    def _learned(self, fit: Any, index: int) -> tuple[Any, dict[str, Any]]:
        """What is learned from the fit of round ``index``, and what a history tells of it."""

    @abstractmethod
    def _row(self, index: int, fit: Any, Y: Tensor, validation: Validation) -> dict[str, Any]:
        """What a history tells of a fit."""

    @abstractmethod
    def _error(self, fit: Any, validation: tuple[Tensor, Tensor]) -> float:
        """What is lowest in the best round."""

    @abstractmethod
    def _solving(self, line: Progress, index: int) -> Any:
        """Report of what takes long in a round."""

    def _fit_rounds(self, X: Tensor, Y: Tensor, validation: Validation, progress: bool) -> None:
        """Fit all rounds, and at the end the best one anew where that is asked for."""
        if self.refit and validation is None:
            raise NfaError("refit=True adds the validation data: give X_val and y_val, or refit=False")
        line, recursion = Progress(self.rounds) if progress else None, self._targets.suited(self.recursion)
        learned, start, fit, best = self.initial, None, None, math.inf
        rise = None if validation else Rise(recursion, self.initial, X, Y)
        for index in range(self.rounds + 1):
            try:
                if fit is not None:
                    learned, update = self._learned(fit, index - 1)
                    self.history[-1] |= update
                    start, fit = fit.predictor.coefficients, None  # what it holds makes room for the next
                report = None if line is None else self._solving(line, index)
                fit = recursion.fit(learned, X, Y, validation, start, report)
                if rise is not None:
                    rise.check(index, learned, mse(fit.train_scores, Y))
            except (NfaError, torch.OutOfMemoryError) as error:
                if index == 0:
                    raise
                _warn(f"round {index} failed ({error}); the machine is that of round {self.best_round}")
                break
            row = self._row(index, fit, Y, validation)
            self.history.append(row)
            error = -index if validation is None else self._error(fit, validation)  # else the last is kept
            if error < best or self._predictor is None:
                best, self.best_round, self._predictor = error, index, fit.predictor
            if line is not None:
                line.fitted(row)
            if self.patience is not None and validation and index - self.best_round >= self.patience:
                break
        if self.refit:
            self._fit_again(X, Y, validation)

    def _fit_again(self, X: Tensor, Y: Tensor, validation: tuple[Tensor, Tensor]) -> None:
        """Fit the best round to training and validation data together."""
        both = (torch.cat(pair) for pair in zip((X, Y), validation, strict=True))
        ridge = self.history[self.best_round]["ridge"]
        try:
            again = self._targets.suited(self.recursion).refit(self._predictor, ridge, *both)
            self._predictor = again.predictor
        except (NfaError, torch.OutOfMemoryError) as error:
            _warn(
                f"the refit failed ({error}); the machine is that of round {self.best_round}, fitted to the "
                "training data alone"
            )


class LayerMachine(Machine):
    """A machine of several layers.

    Attributes:
        best_layer: the layer whose predictor predicts.
    """

    select: str
    best_layer: int

    @abstractmethod
    def _add_layer(self, rounds: list[dict[str, Any]], predictor: Any) -> None:
        """Keep what a finished layer leaves behind."""

    def _check_selection(self, X_val: Tensor | None) -> None:
        if self.select == "best" and X_val is None:
            raise NfaError("select='best' needs validation data: give X_val and y_val, or select='last'")

    def _fit_layers(self, fit: LayerFit, layers: int, progress: bool) -> None:
        """Step through all rounds of all layers."""
        line, rounds = StatusLine() if progress else None, []
        while not fit.done:
            try:
                row = fit.step()
            except (NfaError, torch.OutOfMemoryError) as error:
                if not self.history:
                    raise
                _warn(
                    f"layer {len(self.history)} failed ({error}); the machine is that of layer "
                    f"{self.best_layer}"
                )
                break
            if rounds and rounds[-1]["round"] == row["round"]:  # told anew, as the last of its layer
                rounds.pop()
            rounds.append(row)
            if fit.between_layers:
                self._add_layer(rounds, fit.network.predictor())
                rounds = []
                if line is not None:
                    line.say(told(self.history[-1], layers))


def _warn(message: str) -> None:
    warnings.warn(message, RoundFailedWarning, stacklevel=4)  # the caller of fit
