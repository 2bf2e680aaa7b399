"""Seconds of a fit by phase, and its rounds on the terminal."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from nfa.clock import now
from nfa.status import StatusLine


class Clock:
    """Seconds by phase."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = now()

    def lap(self, phase: str) -> None:
        """Add the time since the last lap to a phase."""
        at = now()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + at - self._last
        self._last = at


class Progress:
    """Rounds and iterations on one line, and a line for every fitted round."""

    def __init__(self, rounds: int):
        self._rounds, self._line, self._start = rounds, StatusLine(), time.monotonic()

    def solving(self, index: int) -> Callable[[int, float], None]:
        """Report of conjugate gradients in a round."""
        return lambda iteration, residual: self._line.show(
            f"round {index}/{self._rounds}: iteration {iteration}, residual {residual:.1e}"
        )

    def kernel(self, index: int) -> Callable[[int, int], None]:
        """Report of kernel values in a round."""
        return lambda done, total: self._line.show(
            f"round {index}/{self._rounds}: {done / total:.0%} of the kernel"
        )

    def fitted(self, row: Mapping[str, Any]) -> None:
        """A round is fitted."""
        names = ("train_mse", "val_mse", "val_accuracy")
        numbers = "  ".join(f"{name} {row[name]:.4g}" for name in names if name in row)
        self._line.say(
            f"round {row['round']}/{self._rounds}  {numbers}  ({time.monotonic() - self._start:.1f} s)"
        )


def layer_line(row: Mapping[str, Any], depth: int) -> str:
    """One line on a fitted layer."""
    names = ("train_mse", "val_mse", "val_accuracy", "nc1_features")
    numbers = "  ".join(f"{name} {row[name]:.4g}" for name in names if name in row)
    seconds = sum(value for name, value in row.items() if name.endswith("_seconds"))
    return f"layer {row['layer'] + 1}/{depth}  {numbers}  ({seconds:.1f} s)"
