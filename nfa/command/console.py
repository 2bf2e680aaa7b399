"""What a person in front of a terminal sees while an audit runs, and how Ctrl-C or SIGTERM ends it."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from nfa.ansatz.duration import Statistics
from nfa.device import size_words
from nfa.status import StatusLine
from nfa.sweep.footprint import Footprint
from nfa.sweep.observer import Observer

_TELLING = 3.0  # seconds after which the time left can be told
_UNITS = {"": 1e9, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


class ConsoleObserver(Observer):
    """Progress with the time left on one line (a line now and then where there is no terminal).

    Args:
        samples: that will come at most.
        at_once: samples a batch.
        nulls: random rotations of a null.
        adaptive: whether probes may be added in further passes.
        stream: where to write.
    """

    def __init__(
        self,
        samples: int,
        at_once: int,
        *,
        nulls: int = 0,
        adaptive: bool = False,
        stream: TextIO | None = None,
    ):
        self.samples, self.at_once, self.nulls, self.adaptive = samples, at_once, nulls, adaptive
        self.label = ""
        self.stopped_by: int | None = None  # number of the signal
        self._start = self._pass_start = 0.0
        self._pass, self._done = "", 0.0
        self._exact = 0  # backwards of the exact mode
        self._statistics, self._statistics_start = Statistics((), 0), 0.0
        self._line = StatusLine(stream)

    def begin(self, footprint: Footprint, replicates: int, piece: int | None) -> None:
        """Say what the measurement takes."""
        self._start = time.monotonic()
        self._pass, self._done = "", math.inf
        self._exact, self._statistics = footprint.backwards, Statistics(footprint.ranks, self.nulls)
        at_once = min(piece or self.at_once, self.at_once)
        self.say(
            f"{self.label}{footprint.outputs} outputs; memory for {at_once} samples at a time: about "
            f"{size_words(footprint.total(at_once, replicates))}"
        )

    def progress(self, samples: float, backwards: int) -> None:
        """Show samples done and the time left."""
        each = f"{backwards} backward{'s' if backwards != 1 else ''}"
        self._show("", samples, each, more=self.adaptive and backwards < self._exact)

    def further(self, number: int, samples: float, probes: int) -> None:
        """Show samples done in another pass."""
        self._show(f"pass {number}: ", samples, f"{probes} new probes", more=True)

    def rows(self, done: int, total: int) -> None:
        """Show statistics computed, and the time left for those to come."""
        if done <= 1 or not self._statistics_start:
            self._statistics_start = time.monotonic()
        gone, shares = time.monotonic() - self._statistics_start, self._statistics.shares
        shares = shares if len(shares) == total else [1.0] * total  # skipped layers take no time
        known = ""
        if gone > _TELLING and sum(shares[1:done]) > 0:  # the clock began behind the first
            known = f", about {clock(gone * sum(shares[done:]) / sum(shares[1:done]))} left"
        self._line.show(f"{self.label}statistics of layer {done}/{total}{known}", last=done == total)
        if done == total:
            self._line.clear()

    def _show(self, name: str, samples: float, each: str, *, more: bool) -> None:
        """One line; the time left is that of the samples of this pass and of the statistics of all layers."""
        now = time.monotonic()
        if name != self._pass or samples < self._done:  # another pass, or the exact mode after the probes
            self._pass, self._pass_start = name, now if self._done < math.inf else self._start
        self._done = samples
        gone, known = now - self._pass_start, ""
        if gone > _TELLING and samples >= 1:
            left = max(gone * (self.samples - samples) / samples, 0) + self._statistics.seconds
            known = f", at most {clock(left)} left" + (" without further passes" if more else "")
        self._line.show(
            f"{self.label}{name}{int(samples)}/{self.samples} samples, {each} each, "
            f"{clock(now - self._start)} gone{known}"
        )

    def stop(self) -> bool:
        """Whether Ctrl-C was pressed, or the process was asked to end."""
        return self.asked_to_stop

    @property
    def asked_to_stop(self) -> bool:
        """Whether to finish what is under way and write it."""
        return self.stopped_by is not None

    @property
    def status(self) -> int:
        """The exit status: 0, or 128 + number of the signal, as shells have it."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._line.say(text)

    def clear(self) -> None:
        """Take the line of progress away."""
        self._line.clear()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, the first Ctrl-C or SIGTERM asks to stop and the second one interrupts.

        What it interrupts with is a KeyboardInterrupt whose argument is the exit status.
        """

        def handler(number: int, frame: FrameType | None) -> None:
            if self.asked_to_stop:
                raise KeyboardInterrupt(128 + number)
            self.stopped_by = number
            self.say("stopping: the samples under way are finished first (Ctrl-C again to quit at once)")

        before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread
            pass
        try:
            yield
        finally:
            for kind, previous in before.items():
                signal.signal(kind, previous)


def clock(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def parse_size(text: str) -> float:
    """Bytes of ``2GB``, ``500 MB``, ``1.5g``; a bare number is in GB.

    Raises:
        ValueError: it is no size.
    """
    lower = text.strip().lower().removesuffix("b").removesuffix("i").strip()
    unit = lower[-1:] if lower[-1:].isalpha() else ""
    if unit not in _UNITS:
        raise ValueError(f"expected a size like 2GB, got {text!r}")
    number = float(lower.removesuffix(unit)) * _UNITS[unit]
    if not 0 < number < float("inf"):
        raise ValueError(f"expected a size like 2GB, got {text!r}")
    return number
