"""Backwards that refuse to be differentiated: their own derivative would silently come out as zero."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from nfa.errors import NfaError


def differentiable_once(backward: Callable) -> Callable:
    """Decorate the ``backward`` of a ``torch.autograd.Function`` that holds for first derivatives.

    Raises (when called with ``create_graph=True``):
        NfaError: a second derivative is prepared.
    """

    @functools.wraps(backward)
    def once(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise NfaError("second derivatives of a kernel machine are not known: take create_graph=False")
        return backward(ctx, *gradients)

    return once
