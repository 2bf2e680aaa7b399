"""Matrix products with all the digits of their dtype, whatever the caller's settings allow."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def exact_products() -> Iterator[None]:
    """No gradients, no autocast, and no TF32 or bfloat16 inside float32 products; restored afterwards.

    A distance from a TF32 product is off by as much as the distances of neighbours are apart.
    """
    matmuls = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [matmul.fp32_precision for matmul in matmuls]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for device_type in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device_type, enabled=False))
        try:
            for matmul, precision in zip(matmuls, before, strict=True):
                if precision != "ieee":
                    matmul.fp32_precision = "ieee"
            yield
        finally:
            for matmul, precision in zip(matmuls, before, strict=True):
                if precision != "ieee":
                    matmul.fp32_precision = precision
