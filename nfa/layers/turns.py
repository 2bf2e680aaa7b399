"""Measurements take turns: the modes of a network, switches of PyTorch and random states are shared."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # whoever held it goes on in the parent alone


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def turn() -> Iterator[None]:
    """Context in which no other thread measures; a thread that has its turn may begin another measurement.

    One for the whole process and not one a network: two networks may share modules, and the precision of
    matrix products, the fast path of attention and the random states belong to all threads.
    """
    with _lock:
        yield
