"""Seconds of work that a card may be doing still when the call returns."""

import time

import torch


def now() -> float:
    """Seconds, once the card has done what was asked of it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
