"""A limit on what building a network may take, known before anything is allocated."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from nfa.errors import NfaError
from nfa.memory import available, size_words

_SHARE = 0.8  # of free memory
_STEPS = 200_000  # operations of tensors: some ten for each tensor of a network, thousands of layers


class Allowance(TorchDispatchMode):
    """Context in which operations stop, before they allocate, at a network that would not fit.

    Args:
        name: of what is built, for messages.
        memory: bytes that may be allocated in all; None takes 80 % of what is free.
        steps: operations of tensors that may be made.

    Raises:
        NfaError: within the context, as soon as a tensor would go beyond.
    """

    def __init__(self, name: str, memory: float | None = None, steps: int = _STEPS):
        super().__init__()
        self.name, self.steps = name, steps
        free = available(torch.device("cpu"))
        self.memory = memory if memory is not None else _SHARE * free if free else float("inf")
        self._bytes = self._done = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Ask the operation on the meta device, which has shapes and no data, what it will return."""
        self._done += 1
        if self._done > self.steps:
            raise NfaError(
                f"{self.name} takes more than {self.steps} steps to build, which is not done for a file; "
                "name a function that builds it: nfa audit my_module:build --weights FILE"
            )
        kwargs = kwargs or {}
        if not func._schema.is_mutable:
            self._bytes += _bytes_of(func, args, kwargs)
            if self._bytes > self.memory:
                raise NfaError(
                    f"{self.name} would take {size_words(self._bytes)} of memory to build, "
                    f"{size_words(self.memory)} may be used: it is not built"
                )
        return func(*args, **kwargs)


def _bytes_of(func: Any, args: tuple, kwargs: dict[str, Any]) -> float:
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
