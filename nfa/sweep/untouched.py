"""Measure a network and leave no trace: modes, flags, buffers, gradients and random states as before."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nfa.full_precision import full_precision, one_order
from nfa.layers.turns import turn


class Undo:
    """Steps back, each said before what it undoes is done; all are taken, whichever of them fail."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def later(self, step: Callable[..., object], *args: object) -> None:
        """Take this step at the end, before those said earlier."""
        self._steps.append(partial(step, *args))

    def enter(self, context: AbstractContextManager) -> None:
        """Enter a context, and leave it at the end."""
        context.__enter__()
        self.later(context.__exit__, None, None, None)

    def take_all(self) -> BaseException | None:
        """Take every step, the last one first; the first error of these is returned."""
        first: BaseException | None = None
        while self._steps:
            try:
                while self._steps:
                    self._steps.pop()()
            except BaseException as error:  # also Ctrl-C: the other steps are as necessary
                first = first or error
        return first


@contextmanager
def undoing() -> Iterator[Undo]:
    """Context that ends with the steps back it was given; the first error is raised when all are taken."""
    undo = Undo()
    first: BaseException | None = None
    try:
        yield undo
    except BaseException as raised:
        first = raised
    late = undo.take_all()
    if first is not None and late is not None:
        first.add_note(f"and not everything could be put back: {type(late).__name__}: {late}")
    error = first or late
    if error:
        raise error


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Context in which ``model`` is in eval mode, frozen and deterministic; all of it is undone after.

    Inside, gradients are enabled (also when the caller is under ``no_grad`` or ``inference_mode``),
    autocast is off, products and convolutions keep full float32 precision and add in one order, and attention
    modules take no fused path. Restored on leaving, also by an exception: train / eval flag of every module,
    ``requires_grad`` of every parameter, every buffer bit for bit, and the random states of torch (CPU and
    CUDA), NumPy and Python. ``.grad`` is never written. Parameters and buffers made under
    ``inference_mode``, of which autograd keeps nothing, have copies in their places meanwhile. Other threads
    wait.
    """
    with undoing() as undo:
        undo.enter(turn())
        undo.enter(torch.inference_mode(False))
        undo.enter(torch.enable_grad())
        for device_type in sorted({"cpu", *(p.device.type for p in model.parameters())} - {"meta"}):
            undo.enter(torch.autocast(device_type, enabled=False))
        undo.enter(same_random_states())
        if "torch._dynamo" in sys.modules:  # else nothing is compiled
            undo.enter(torch.compiler.set_stance("force_eager"))  # hooks stay out of compiled code
        _plain_switches(undo)
        undo.enter(full_precision())
        undo.enter(one_order())
        _keep_state(model, undo)
        model.eval()
        for parameter in model.parameters():
            if not is_lazy(parameter):
                parameter.requires_grad_(False)
        yield


def _plain_switches(undo: Undo) -> None:
    """Attention without its fused path, and full float32 precision."""
    undo.later(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # only the newer, finer settings are used
        return
    if precision != "highest":
        undo.later(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")


def _keep_state(model: nn.Module, undo: Undo) -> None:
    """Say how modes, flags, parameters and buffers are put back, and put copies of inference tensors in."""
    copies: dict[Tensor, nn.Parameter] = {}  # one for all places of a tied parameter
    for module in model.modules():
        undo.later(setattr, module, "training", module.training)
        for name, buffer in list(module._buffers.items()):
            if buffer is None or not is_lazy(buffer):
                _keep_buffer(module, name, buffer, undo)
        for name, parameter in list(module._parameters.items()):
            if parameter is None or is_lazy(parameter):
                continue
            if parameter.is_inference():
                copy = copies.get(parameter)
                if copy is None:
                    copies[parameter] = copy = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                undo.later(setattr, module, name, parameter)
                setattr(module, name, copy)
            else:
                undo.later(parameter.requires_grad_, parameter.requires_grad)


def _keep_buffer(module: nn.Module, name: str, buffer: Tensor | None, undo: Undo) -> None:
    undo.later(module._buffers.__setitem__, name, buffer)
    if buffer is None:
        return
    copy = buffer.detach().clone()
    if buffer.is_inference():
        module._buffers[name] = copy
        return

    def restore() -> None:
        if not torch.equal(buffer, copy):
            with torch.no_grad():
                buffer.copy_(copy)

    undo.later(restore)


@contextmanager
def same_random_states() -> Iterator[None]:
    """Restore the random states of torch (CPU and CUDA), NumPy (when loaded) and Python on leaving.

    Other threads that measure wait meanwhile: they draw from the same states.
    """
    with undoing() as undo:
        undo.enter(turn())
        undo.later(random.setstate, random.getstate())
        undo.later(torch.set_rng_state, torch.get_rng_state())
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            undo.later(numpy.random.set_state, numpy.random.get_state())
        if torch.cuda.is_initialized():
            undo.later(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        yield
