"""What measuring costs beside the training, in words, and how often it may be done for a share of it."""

import math
import statistics

from nfa.clock import now
from nfa.errors import NfaError

_WARM_UP = 2  # steps in which caches fill, code is compiled and workers start
_STEPS = 20  # that tell how long one takes; a number that all processes reach at the same step


class Pace:
    """How long the steps of a training take; what is measured between them is left out."""

    def __init__(self):
        self._last: float | None = None
        self.durations: list[float] = []

    def tick(self, measuring: float) -> None:
        """A step ends here, or the first one begins.

        Args:
            measuring: seconds of all measurements so far.
        """
        at = now() - measuring
        if self._last is not None:
            self.durations.append(at - self._last)
        self._last = at

    @property
    def begun(self) -> bool:
        """Whether the first step began."""
        return self._last is not None

    @property
    def known(self) -> bool:
        """Whether there are enough steps to tell."""
        return len(self.durations) >= _STEPS

    @property
    def step(self) -> float:
        """Median seconds of a step, the first ones left out where there are others."""
        return statistics.median(self.durations[_WARM_UP:] or self.durations)

    @property
    def total(self) -> float:
        """Seconds of all steps, the first ones counted like the others."""
        return sum(self.durations[_WARM_UP:]) + len(self.durations[:_WARM_UP]) * self.step


def every_within(budget: float, cost: float, unit: float, total: float | None = None) -> int:
    """After how many units of training (steps or epochs) to measure, for a share of its time.

    Args:
        budget: the share, above 0.
        cost: seconds of a measurement.
        unit: seconds of a unit.
        total: units of the whole training, where known: then the measurements at its beginning and end, which
            are made in any case, count too.
    """
    if total is None:
        return max(math.ceil(cost / (budget * unit)), 1)
    affordable = int(budget * total * unit / cost)
    return max(math.ceil(total / max(affordable - 1, 1)), 1)


def check_budget(budget: float | None) -> float | None:
    """A share of the training time, or None.

    Raises:
        NfaError: it is none.
    """
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget < math.inf:
        raise NfaError(f"budget must be a share of the training time, such as 0.2, or None, got {budget!r}")
    return float(budget)


def cost_sentence(
    cost: float,
    unit: float,
    every: int,
    *,
    name: str,
    option: str = "every",
    samples: int,
    budget: float | None = None,
) -> str:
    """One line: what a measurement takes, what that adds to the training, and what makes it cheaper.

    Args:
        cost: seconds of the first measurement.
        unit: seconds of a unit of the training.
        every: units from measurement to measurement; 0 for only the beginning and the end.
        name: of the unit, ``step`` or ``epoch``.
        option: that ``every`` is set with.
        samples: measured on.
        budget: that ``every`` was chosen for.
    """
    share = cost / unit
    told = f"{_percent(share)} of an epoch" if name == "epoch" else f"as long as {share:.3g} steps"
    takes = f"measuring takes {cost:.3g} s, {told} of training"
    often = name if every == 1 else f"{every} {name}s"
    if budget is not None:
        return f"{takes}; once every {often} keeps it to {_percent(budget)} of the time (budget={budget:g})"
    adds = f"; once every {often} it adds {_percent(share / every)}" if every else ""
    less = f"a greater {option}, budget=0.2, " if every else ""
    return f"{takes}{adds}; cheaper: {less}fewer samples than {samples}, or probes=4"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.0f} %"
