"""Attention in a packed weight: which rows are queries, keys and values, and which belong to a head.

A packed projection is split only where its layout is known: rows in the order (q | k | v), each of them in
the order of the heads. Layouts that interleave heads (``query_key_value``) stay whole.
"""

from collections.abc import Iterator
from typing import Protocol, TypeGuard

from torch import Tensor, nn

_PACKED = {"qkv", "c_attn", "Wqkv"}
_SEPARATE = {
    "q", "k", "v", "query", "key", "value", "q_proj", "k_proj", "v_proj", "to_q", "to_k", "to_v",
    "q_lin", "k_lin", "v_lin",
}  # fmt: skip
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead")
_SIZES = ("head_dim", "attention_head_size", "dim_head")

Part = tuple[str, tuple[int, int]]


class Transposed(Protocol):
    """What is used of GPT-2's ``Conv1D``."""

    weight: Tensor


def is_transposed(module: nn.Module) -> TypeGuard[Transposed]:
    """Whether a module is GPT-2's ``Conv1D``: a linear layer that stores its weight (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and hasattr(module, "weight")


def parts(name: str, out: int, inputs: int, parent: nn.Module | None, per_head: bool) -> Iterator[Part]:
    """Suffixes of the parts of a projection, and their rows; one empty suffix for what stays whole.

    Args:
        name: dotted name of the projection.
        out: its outputs.
        inputs: its inputs.
        parent: the module it belongs to, which knows the number of heads.
        per_head: split queries, keys and values into heads.
    """
    last = name.rpartition(".")[2]
    head_count = _first(parent, _COUNTS)
    if head_count and last in _PACKED and out == 3 * inputs and not _interleaved(parent):
        for i, part in enumerate("qkv"):
            for suffix, (a, b) in split(inputs, head_count if per_head else 1):
                yield f".{part}{suffix}", (i * inputs + a, i * inputs + b)
    elif per_head and last in _SEPARATE and head_count:
        # With grouped queries there are fewer heads of keys and values, all of one size.
        size = _first(parent, _SIZES) or out // head_count
        yield from split(out, out // size if size and out % size == 0 else 1)
    else:
        yield "", (0, out)


def _interleaved(parent: nn.Module | None) -> bool:
    """Whether a packed weight goes head by head: (q | k | v) of the first, (q | k | v) of the second, …."""
    head_first = getattr(parent, "head_first", False) or getattr(parent, "multi_query", True) is False
    return bool(head_first) or hasattr(parent, "key_dim") or hasattr(parent, "val_dim")


def split(out: int, heads: int) -> Iterator[Part]:
    """``out`` rows in ``heads`` equal parts; whole where there is one, or where they do not divide."""
    if heads <= 1 or out % heads:
        yield "", (0, out)
        return
    size = out // heads
    for head in range(heads):
        yield f".head{head}", (head * size, (head + 1) * size)


def _first(parent: nn.Module | None, names: tuple[str, ...]) -> int | None:
    for owner in (parent, getattr(parent, "config", None)):
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None
