"""Axes of a chart: from values to pixels, round ticks, and limits that hold the data."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nfa.ansatz.words import finite

_MINUS = "\u2212"


@dataclass(frozen=True)
class Axis:
    """Values ``low … high`` on pixels ``start … stop``; what lies outside is drawn at the edge."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + min(max((value - low) / (high - low), 0.0), 1.0) * (self.stop - self.start)

    def defines(self, value: float) -> bool:
        """Whether the value has a place on the axis."""
        return math.isfinite(value) and (value > 0 or not self.log)

    def ticks(self, spacing: float, *, whole: bool = False) -> list[float]:
        """Round values about ``spacing`` pixels apart."""
        count = max(abs(self.stop - self.start) / spacing, 1.0)
        return (_log_ticks if self.log else _linear_ticks)(self.low, self.high, count, whole)


def _linear_ticks(low: float, high: float, count: float, whole: bool) -> list[float]:
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    step = max(round(step), 1) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: float, whole: bool) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 2:
        grid = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
        ticks = [value for value in grid if low <= value <= high]
        return ticks if len(ticks) > 1 else _linear_ticks(low, high, count, whole=False)
    step = math.ceil((last - first) / count)
    return [10.0**e for e in range(first, last + 1) if e % step == 0]


def tick_text(value: float, axis: Axis) -> str:
    """Label of a tick; a power of ten on a wide logarithmic axis."""
    if axis.log and not (axis.low > 0.005 and axis.high < 20_000) and value not in (1.0, 10.0):
        exponent = str(round(math.log10(value)))
        return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value:.6g}".replace("-", _MINUS)


def range_of(values: Iterable[float], log: bool, padding: float) -> tuple[float, float]:
    """Range of the values, widened by a share of it, and never empty."""
    known = [math.log10(v) if log else v for v in finite(values) if v > 0 or not log] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        pad = 0.5 if log else 0.5 * abs(low) or 0.5
    else:
        pad = padding * (high - low)
    return (10 ** (low - pad), 10 ** (high + pad)) if log else (low - pad, high + pad)
