"""What stands at the top of a page: the score of a run, and what training and measuring cost."""

import math
from collections.abc import Mapping
from typing import Any

from nfa.ansatz.words import show

_SCORES = {"test/accuracy": ("test accuracy", ".4f"), "test/mse": ("test error (mse)", ".4g")}


def run_headline(summary: Mapping[str, Any], measurements: int) -> dict[str, str]:
    """Score, training and measuring of a run, from what ``summary.json`` holds; what is unknown is left out.

    Args:
        summary: of the run, without files.
        measurements: how many there were.
    """
    told = {}
    for name, (label, spec) in _SCORES.items():
        if name in summary and math.isfinite(summary[name]):
            told[label] = show(summary[name], spec)
    epochs, fitting = summary.get("epochs", 0), summary.get("fit_seconds", 0.0)
    if fitting:
        told["training"] = f"{duration(fitting)}, {epochs} epoch{'s' if epochs != 1 else ''}"
    measuring = summary.get("ansatz_seconds", 0.0)
    if measuring and measurements:
        share = f", {_percent(measuring / fitting)} of training" if fitting else ""
        told["measuring"] = f"{duration(measuring)}{share}, {_measurements(measurements)}"
    return told


def audit_headline(meta: Mapping[str, Any]) -> dict[str, str]:
    """What an audit took, from its meta; what is unknown is left out."""
    sweep, computed = meta.get("sweep_seconds"), meta.get("statistics_seconds")
    told = {}
    if sweep is not None:
        samples = meta.get("samples")
        told["measuring"] = duration(sweep) + (f", {samples} samples" if samples else "")
    if computed is not None:
        told["statistics"] = duration(computed)
    return told


def monitor_headline(seconds: float, measurements: int) -> dict[str, str]:
    """What a monitor took so far."""
    return {"measuring": f"{duration(seconds)}, {_measurements(measurements)}"}


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, with three digits."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _percent(share: float) -> str:
    """Two digits, and no power of ten."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _measurements(count: int) -> str:
    return f"{count} measurement{'s' if count != 1 else ''}"
