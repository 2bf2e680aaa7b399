"""How far a fit has come: what a round leaves behind, and where the next one goes on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfa.machines.predictor import Predictor

if TYPE_CHECKING:
    from nfa.machines.layer import Fit


class RoundFailedWarning(UserWarning):
    """A round could not be finished; the machine is that of an earlier round."""


@dataclass(frozen=True)
class Kept:
    """The round that a layer would end with now.

    Attributes:
        index: of the round.
        predictor: its fit, found with a ``ridge``.
        error: on validation data, by the criterion; less the index of the round where there are none.
    """

    index: int
    predictor: Predictor
    ridge: float
    error: float


@dataclass(frozen=True)
class Reached:
    """Where a fit goes on from: the layer and the round that were fitted last; round -1 before the first."""

    layer: int = 0
    index: int = -1
    predictor: Predictor | None = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Round:
    """What a step of the loop leaves behind.

    Attributes:
        layer: index of the layer.
        index: of the round in it.
        fit: of this round; None where it failed.
        row: what a history tells of the fit, and with the last round of the layer.
        update: and of the update that led to it.
        kept: what the layer would end with now.
        rounds: updates of M in this layer.
        failed: what ended the layer before its last round: index and row are then those of the round before.
    """

    layer: int
    index: int
    fit: "Fit | None"
    row: dict[str, object]
    update: dict[str, object]
    kept: Kept
    rounds: int
    failed: Exception | None = None

    @property
    def end_in_words(self) -> str:
        """Of a layer that ended early."""
        return (
            f"round {self.index + 1} of layer {self.layer} failed ({self.failed}); the layer is that "
            f"of round {self.index}"
        )

    @property
    def last(self) -> bool:
        """Whether no round of this layer comes after it."""
        return self.failed is not None or self.index == self.rounds
