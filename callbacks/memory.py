"""Peak memory: of the GPU where there is one, else of this process; it can be forgotten and begun anew."""

import contextlib
import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

import torch


def peak_memory_mb() -> float:
    """Most memory in use since the peak was last forgotten, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    peaks = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else []
    if peaks:
        return int(peaks[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def forget_peak() -> None:
    """Begin anew with what is in use; without Linux and a GPU the peak stays that of the process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def give_back() -> None:
    """Return what earlier work of this process has left to the system, so that it is not counted again."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
