"""A linear map row by row: the vectors it multiplies by its weight, and where its outputs go."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Linear = nn.Linear | Convolution


def require_linear_map(module: nn.Module) -> Linear:
    """The module, or a TypeError for one that is neither linear nor a (forward) convolution."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module
    raise TypeError(f"expected nn.Linear or nn.Conv1d/2d/3d, got {type(module).__name__}")


def groups_of(module: Linear) -> int:
    """Independent blocks of its weight."""
    return 1 if isinstance(module, nn.Linear) else module.groups


def weight_of(module: Linear) -> Tensor:
    """Effective weight as ``(groups, out per group, in per group)``, with its graph."""
    groups, W = groups_of(module), module.weight
    return W.reshape(groups, W.shape[0] // groups, -1)


def patches(module: Linear, x: Tensor) -> Tensor:
    """Copy the vectors a module multiplies by its weight out of its input, ``(rows, groups, in)``.

    Linear: the last axis of ``x`` (any rank). Convolution: ``x`` is ``(batch, channels, *sizes)``, padded as
    the module pads it; a patch is ordered ``(channel, *kernel)``, and the rows ``(batch, *positions)``.
    """
    if isinstance(module, nn.Linear):
        return x.clone().reshape(-1, 1, x.shape[-1])
    x = _padded(module, x)
    patches = []
    for sample in x:
        for position in itertools.product(*map(range, _map_size(module, x))):
            corner = [i * s for i, s in zip(position, module.stride, strict=True)]
            pixels = []
            for offset in itertools.product(*map(range, module.kernel_size)):
                steps = zip(corner, offset, module.dilation, strict=True)
                pixels.append(sample[(slice(None), *[c + a * d for c, a, d in steps])])
            patches.append(torch.stack(pixels, dim=-1))  # (channels, kernel entries)
    return torch.stack(patches).reshape(len(patches), module.groups, -1)


def _padded(module: Convolution, x: Tensor) -> Tensor:
    """Pad ``(batch, channels, *sizes)`` as the convolution does."""
    widths = module._reversed_padding_repeated_twice  # tuples and 'same' included
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, widths, mode=mode) if any(widths) else x


def _map_size(module: Convolution, padded: Tensor) -> list[int]:
    """Positions of the kernel along each axis of the padded input."""
    axes = zip(padded.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True)
    return [(size - dilation * (k - 1) - 1) // stride + 1 for size, k, stride, dilation in axes]


def multiply(module: Linear, p: Tensor) -> Tensor:
    """``z = W p + b`` row by row and group by group, ``(rows, groups, out)``."""
    W = weight_of(module)
    z = torch.stack([p[:, g] @ W[g].T for g in range(len(W))], dim=1)
    return z if module.bias is None else z + module.bias.reshape(W.shape[:2])


def arranged(module: Linear, z: Tensor, x: Tensor) -> Tensor:
    """Arrange ``(rows, groups, out)`` as the module arranges its output for the input ``x``."""
    if isinstance(module, nn.Linear):
        return z.reshape(*x.shape[:-1], -1)
    sizes = _map_size(module, _padded(module, x))
    return z.reshape(len(x), *sizes, -1).movedim(-1, 1).contiguous()
