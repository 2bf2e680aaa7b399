"""One policy for reduced precision inside float32 arithmetic, and the order of sums: none, and always one.

On a GPU convolutions take TF32 unless they are told otherwise, and add the same terms in one of many orders.
What is measured is told to three digits and more, and is the same again from the same seed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Protocol

import torch

_SETTINGS = attrgetter(  # of torch.backends, which makes these while it is imported
    "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"
)


class _Setting(Protocol):
    """The precision of one kind of operation of a backend."""

    fp32_precision: str


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 or bfloat16 inside float32 products, convolutions and recurrences; restored afterwards.

    Other threads of the process see these settings meanwhile.
    """
    settings: tuple[_Setting, ...] = _SETTINGS(torch.backends)
    changed = [(s, s.fp32_precision) for s in settings if s.fp32_precision != "ieee"]
    try:
        for setting, _ in changed:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in changed:
            setting.fp32_precision = precision


@contextmanager
def one_order() -> Iterator[None]:
    """Convolutions are chosen by their shapes alone, and add in one order; restored afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
