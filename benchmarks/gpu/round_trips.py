"""How often a program waits for the device: numbers fetched one by one, and copies to the host."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_FETCHING = ("aten._local_scalar_dense", "aten.equal", "aten.nonzero", "aten.is_nonzero")


class Counter(TorchDispatchMode):
    """Counts operations after which the host has a value of the device.

    Seen on any device: fetched scalars, comparisons, and copies to the CPU. On a card those that libraries
    make inside (the checks of decompositions) are counted by `counted` too.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found, name = func(*args, **(kwargs or {})), str(func)
        fetched = name.startswith(_FETCHING)
        if name.startswith("aten._to_copy"):
            fetched = found.device.type == "cpu" and args[0].device.type != "cpu"
        self.count += fetched
        return found


class Counted:
    """What was counted: by operations, and by the runtime of the card."""

    operations = 0
    runtime: int | None = None


@contextmanager
def counted(device: torch.device) -> Iterator[Counted]:
    """Context in which round trips are counted."""
    told, counter = Counted(), Counter()
    if device.type != "cuda":
        with counter:
            yield told
        told.operations = counter.count
        return
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with counter:
                yield told
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    told.operations = counter.count
    told.runtime = sum("synchroniz" in str(warning.message) for warning in seen)
