"""Tensors of a network that are one in memory: a file need hold them once, and must not hold two of them."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


def filled_by(own: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of a network that a file lacks -> a name in the file whose tensor in the network holds theirs.

    Args:
        own: the tensors of the network by name, as they are (``keep_vars=True``), not copies.
        present: the tensors of the file by name.
    """
    groups: dict[int, list[str]] = {}
    for name in own:
        if name in present:
            groups.setdefault(_memory(own[name]), []).append(name)
    found = {}
    for name, mine in own.items():
        candidates = () if name in present else groups.get(_memory(mine), ())
        within = next((other for other in candidates if _lies_within(mine, own[other])), None)
        if within is not None:
            found[name] = within
    return found


def contradiction(own: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Two names that are the same tensor in the network and tensors of other values in the file, if any."""
    first: dict[tuple, str] = {}
    for name, mine in own.items():
        if name not in present:
            continue
        other = first.setdefault(_view(mine), name)
        if other != name and not _equal(present[name], present[other]):
            return other, name
    return None


def _memory(t: Tensor) -> int:
    """What tells memory apart; a number of its own for a tensor without any."""
    if is_lazy(t):
        return id(t)
    return t.untyped_storage().data_ptr() or id(t)


def _view(t: Tensor) -> tuple:
    """What tells tensors apart: those of one memory, place and layout are one."""
    if is_lazy(t):
        return (id(t),)
    return (_memory(t), t.storage_offset(), t.shape, t.stride(), t.dtype)


def _lies_within(mine: Tensor, other: Tensor) -> bool:
    """Whether filling the other tensor fills all of mine."""
    if mine is other:
        return True
    if is_lazy(mine) or is_lazy(other):
        return False
    (start, stop), (low, high) = _extent(mine), _extent(other)
    return low <= start and stop <= high and high - low == other.numel() * other.element_size()


def _extent(t: Tensor) -> tuple[int, int]:
    """First byte, and the one behind the last, that a tensor takes of its memory."""
    last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    start = int(t.storage_offset()) * t.element_size()
    return start, start + (int(last) + 1) * t.element_size() if t.numel() else start


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b.to(a.dtype)))
