"""Spikes of a loss: how often it rises above a multiple of its lowest value so far."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Spikes:
    """Count the times that a loss leaves what a threshold allows, step by step.

    A spike begins where the loss is above ``threshold`` times the lowest so far, and ends where it no longer
    is; however long it lasts, it counts once. So the count depends on the threshold, and on how low the loss
    was before: two thresholds tell catapults, which exceed any, from the noise of small batches.

    Attributes:
        threshold: above 1.
        count: of spikes so far, the one that lasts included.
        lowest: loss so far.
        inside: whether one lasts.
    """

    threshold: float
    count: int = 0
    lowest: float = math.inf
    inside: bool = False

    def see(self, loss: float) -> None:
        """Take the loss of the next step; one that is no number is above every threshold."""
        above = not loss <= self.threshold * self.lowest
        if math.isinf(self.lowest):
            above = False
        self.count += above and not self.inside
        self.inside = above
        self.lowest = min(self.lowest, loss)

    @classmethod
    def peaks(cls, losses: Iterable[float], threshold: float) -> list[int]:
        """Where each spike of some losses is highest: places in them, one a spike."""
        spikes, found, highest = cls(threshold), list[int](), -math.inf
        for place, loss in enumerate(losses):
            before = spikes.count
            spikes.see(loss)
            if spikes.count > before:
                found.append(place)
            elif spikes.inside and loss > highest:
                found[-1] = place
            else:
                continue
            highest = loss
        return found

    def state_dict(self) -> dict[str, Any]:
        """In plain values."""
        return asdict(self)
