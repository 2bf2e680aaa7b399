"""Outputs that are scaled to length one, of which nothing that changes their length alone is seen."""

import torch
from torch import Tensor

_ROUNDING = 1e-3  # also of a length that an epsilon in the denominator holds off one


def of_length_one(outputs: Tensor) -> bool:
    """Whether every vector along the last axis, (samples, …, d) with d ≥ 2, has the length one."""
    if outputs.dim() < 2 or outputs.shape[-1] < 2 or not outputs.is_floating_point():
        return False
    lengths = torch.linalg.vector_norm(outputs.detach().double(), dim=-1)
    return bool(((lengths - 1).abs() < _ROUNDING).all())
