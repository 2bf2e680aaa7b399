"""Whether a network is still the one that was measured."""

import hashlib

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def digest_of(network: nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of all weights and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if isinstance(value, torch.Tensor) and not is_lazy(value):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
