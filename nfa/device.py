"""The memory of a device: what is free and taken, when it ran out, what does not fit, and bytes in words."""

import torch

from nfa.errors import NfaError

_NO_MEMORY = (
    "can't allocate memory", "CUDA error: out of memory", "HIP error: out of memory", "STATUS_ALLOC_FAILED",
    "HOST_ALLOCATION_FAILED",
)  # fmt: skip


def free_memory(device: torch.device) -> float | None:
    """Bytes to be had on a device without swapping; None where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            kilobytes = (float(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
            return next((1024 * number for number in kilobytes), None)
    except OSError:
        return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: PyTorch's own, one of a library of the card, or one on a CPU.

    Only the first has a type; the others are a plain RuntimeError.
    """
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _NO_MEMORY)


def release(device: torch.device) -> None:
    """Give back what PyTorch keeps of the memory of a card; outside of the handler of an error."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def resident_bytes(*, peak: bool = False) -> int:
    """Memory of this process now, or at most since a 5 was written to ``/proc/self/clear_refs``; on Linux."""
    name = "VmHWM" if peak else "VmRSS"
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


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
    free = free_memory(torch.device("cpu"))
    if free is not None and number > free:
        raise NfaError(
            f"{what} takes about {size_words(number)} of memory, {size_words(free)} are free: {advice}"
        )
