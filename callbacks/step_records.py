"""What was seen at each step of a training, for charts by step."""

from typing import Any

import torch
from torch import Tensor

from callbacks.spikes import Spikes
from nfa import NfaError
from nfa.page.steps import StepCurves


class StepRecords:
    """The loss before every step, and the top eigenvalues where they were measured.

    Attributes:
        losses: ``(step, loss)`` pairs, in order.
        eigenvalues: the same of each eigenvalue, the largest first.
    """

    def __init__(self) -> None:
        self.losses: list[tuple[float, float]] = []
        self.eigenvalues: list[list[tuple[float, float]]] = []

    def see_loss(self, step: int, loss: float) -> None:
        """The loss of the weights behind so many steps."""
        self.losses.append((float(step), loss))

    def see_eigenvalues(self, step: int, values: list[float]) -> None:
        """The eigenvalues of the weights behind so many steps."""
        self.eigenvalues += [[] for _ in values[len(self.eigenvalues) :]]
        for known, value in zip(self.eigenvalues, values, strict=False):
            known.append((float(step), value))

    def curves(
        self, thresholds: list[float], limit: float | None, end: tuple[float, float]
    ) -> list[StepCurves]:
        """Two charts: the loss with its spikes, and the eigenvalues.

        Args:
            thresholds: of the spikes.
            limit: eigenvalue beyond which a step of this rate overshoots; None where rates vary.
            end: step and loss of what was measured last, which no step may follow.
        """
        if not self.losses:
            return []
        losses = [*self.losses, end] if end[0] > self.losses[-1][0] else self.losses
        values = [loss for _, loss in losses]
        highest: dict[int, float] = {}  # threshold that each peak is above
        for threshold in sorted(thresholds):
            highest |= dict.fromkeys(Spikes.peaks(values, threshold), threshold)
        marks: dict[str, list[tuple[float, float]]] = {}
        for place, threshold in sorted(highest.items()):
            name = f"peak of a spike above {threshold:g} × the lowest so far"
            marks.setdefault(name, []).append(losses[place])
        loss = StepCurves(
            "Loss of all training samples",
            "loss",
            {"loss after so many steps": losses},
            marks,
            log=True,
        )
        told = "" if limit is None else " Beyond the dashed line a step of this rate overshoots."
        eigenvalues = StepCurves(
            "Top eigenvalues of the tangent kernel",
            "eigenvalue",
            {f"λ{_subscript(i)}": points for i, points in enumerate(self.eigenvalues, 1)},
            rules=[] if limit is None else [limit],
            caption=f"Times what the loss makes of it.{told}",
        )
        return [loss, eigenvalues] if self.eigenvalues else [loss]

    # ---- resume --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors."""
        return {"losses": _tensor(self.losses), "eigenvalues": [_tensor(known) for known in self.eigenvalues]}

    def load_state_dict(self, state: Any) -> None:
        """Go on from such records.

        Raises:
            NfaError: they are of another form.
        """
        try:
            self.losses = _pairs(state["losses"])
            self.eigenvalues = [_pairs(known) for known in state["eigenvalues"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NfaError(f"the checkpoint holds no losses by step ({error!r})") from None


def _tensor(points: list[tuple[float, float]]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)


def _pairs(points: Tensor) -> list[tuple[float, float]]:
    return [(float(step), float(value)) for step, value in points.tolist()]


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
