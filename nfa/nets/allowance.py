"""A limit on what building a network may take, known before anything is allocated."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from nfa.device import free_memory, size_words
from nfa.errors import NfaError

_SHARE = 0.8  # of free memory
_SHARE_AT_ONCE = 0.25  # which one result may take, while those it is made of are still there
_STEPS = 200_000  # operations of tensors: some ten for each tensor of a network, thousands of layers


class Allowance(TorchDispatchMode):
    """Context in which operations stop, before they allocate, at a network that would not fit.

    Args:
        name: of what is built or called, for messages.
        memory: bytes that may be allocated; None takes 80 % of what is free in all, or 25 % at once.
        steps: operations of tensors that may be made.
        at_once: the memory is for the results of one operation, since others are given back by then.

    Raises:
        NfaError: within the context, as soon as a tensor would go beyond.
    """

    def __init__(self, name: str, memory: float | None = None, steps: int = _STEPS, *, at_once: bool = False):
        super().__init__()
        self.name, self.steps, self.at_once = name, steps, at_once
        free, share = free_memory(torch.device("cpu")), _SHARE_AT_ONCE if at_once else _SHARE
        self.memory = memory if memory is not None else share * free if free else float("inf")
        self._bytes, self._done = 0.0, 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Ask the operation on the meta device, which has shapes and no data, what it will return."""
        self._done += 1
        if self._done > self.steps:
            raise NfaError(
                f"{self.name} takes more than {self.steps} steps, which is not done for a file; name a "
                "function that builds it: nfa audit my_module:build --weights FILE"
            )
        kwargs = kwargs or {}
        if not func._schema.is_mutable:
            self._bytes = _bytes_of(func, args, kwargs) + (0 if self.at_once else self._bytes)
            if self._bytes > self.memory:
                raise NfaError(
                    f"{self.name} would take {size_words(self._bytes)} of memory, "
                    f"{size_words(self.memory)} may be used: it is given up before that"
                )
        return func(*args, **kwargs)


def _bytes_of(func: OpOverload, args: tuple, kwargs: dict[str, object]) -> float:
    """Bytes of new tensors that an operation returns; 0 for a view, and where only the data tell."""
    if any(returned.alias_info is not None for returned in func._schema.returns):
        return 0.0
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs = {**kwargs, "device": torch.device("meta")}
    try:
        found = func(*tree_map_only(Tensor, _to_meta, args), **tree_map_only(Tensor, _to_meta, kwargs))
    except RuntimeError:  # it looks at the data, or goes on to say itself what is wrong
        return 0.0
    parts = found if isinstance(found, tuple | list) else [found]
    return float(sum(t.numel() * t.element_size() for t in parts if isinstance(t, Tensor)))


def _to_meta(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
