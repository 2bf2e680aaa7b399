"""Modules whose tensors have sizes that only a fit decides: a checkpoint brings them along."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class SizedOnLoad(nn.Module):
    """A module whose tensors take the dtype of what is loaded, and its sizes where a fit decides them.

    Attributes:
        fitted_sizes: for each tensor the dimensions whose sizes are known only after a fit.
        zero_if_absent: tensors that version 0.1 did not write, where they were zero.
    """

    fitted_sizes: ClassVar[dict[str, tuple[int, ...]]] = {}
    zero_if_absent: ClassVar[tuple[str, ...]] = ()

    def set_tensor(self, name: str, value: Tensor) -> None:
        """Replace a parameter or a buffer by a copy of a value of any size."""
        is_parameter, value = name in self._parameters, value.detach().clone()
        setattr(self, name, nn.Parameter(value, requires_grad=False) if is_parameter else value)
        if name == "weight":
            self.out_features, self.in_features = value.shape

    def make_room(self, state: dict[str, Tensor], prefix: str = "") -> None:
        """Take the sizes of a state dict, where they may differ, and give it what version 0.1 left out."""
        for name in self.zero_if_absent:
            if any(key.startswith(prefix) for key in state):
                state.setdefault(prefix + name, torch.zeros_like(getattr(self, name)))
        for name, dims in self.fitted_sizes.items():
            found, now = state.get(prefix + name), getattr(self, name, None)
            if found is None or now is None or found.dim() != now.dim():
                continue
            if all(i in dims or found.shape[i] == now.shape[i] for i in range(now.dim())):
                self.set_tensor(name, torch.empty_like(found, device=now.device))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.make_room(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def make_room(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Let all parts of a module take the sizes of its state dict."""
    for name, part in module.named_modules():
        if isinstance(part, SizedOnLoad):
            part.make_room(state, f"{name}." if name else "")
