"""Matrix products with all the digits of their dtype, whatever the caller's settings allow."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from nfa.full_precision import full_precision


@contextmanager
def exact_products() -> Iterator[None]:
    """No gradients, no autocast, and no TF32 or bfloat16 inside float32 products; restored afterwards.

    A distance from a TF32 product is off by as much as the distances of neighbours are apart.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for device_type in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(full_precision())
        yield
