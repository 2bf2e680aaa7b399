"""The memory of a device: how much of it is free, what does not fit, and bytes in words."""

from collections.abc import Iterator

import torch

from nfa.errors import NfaError


def available(device: torch.device) -> float | None:
    """Bytes free on a device; None where that cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return next(_available_memory(), None)


def _available_memory() -> Iterator[float]:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            yield from (float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except OSError:
        return


def size_words(number: float) -> str:
    """``1.3 GB``, ``20 MB``, ``3 kB``."""
    number = min(number, 10**24)  # a whole number from a header may be beyond all floats
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:.{0 if name == 'MB' else 1}f} {name}"
    return f"{max(number / 1e3, 1):.0f} kB"


def check_fits(number: float, what: str, advice: str) -> None:
    """Refuse what would not fit into the memory of the CPU, before any of it is allocated.

    Args:
        number: bytes it takes.
        what: that takes them, for the message.
        advice: what to do, its end.

    Raises:
        NfaError: they are not free.
    """
    free = available(torch.device("cpu"))
    if free is not None and number > free:
        raise NfaError(
            f"{what} takes about {size_words(number)} of memory, {size_words(free)} are free: {advice}"
        )
