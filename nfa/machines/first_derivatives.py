"""Backwards that refuse to be differentiated: their own derivative would silently come out as zero."""

import functools
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from nfa.errors import NfaError

T = TypeVar("T")


class Context(Protocol):
    """What a ``torch.autograd.Function`` hands from its forward to its backward."""

    saved_tensors: tuple[Tensor, ...]
    geometry: tuple[torch.Size, int, int]  # of images, where it is set

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Hold tensors."""


def differentiable_once(backward: Callable[..., T]) -> Callable[..., T]:
    """Decorate the ``backward`` of a ``torch.autograd.Function`` that holds for first derivatives.

    Raises (when called with ``create_graph=True``):
        NfaError: a second derivative is prepared.
    """

    @functools.wraps(backward)
    def once(ctx: Context, *gradients: Tensor) -> T:
        if torch.is_grad_enabled():
            raise NfaError("second derivatives of a kernel machine are not known: take create_graph=False")
        return backward(ctx, *gradients)

    return once
