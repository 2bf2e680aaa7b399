"""Measure a network and leave no trace: modes, flags, buffers, gradients and random states as before."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Context in which ``model`` is in eval mode, frozen and deterministic; all of it is undone after.

    Inside, gradients are enabled (also when the caller is under ``no_grad`` or ``inference_mode``),
    autocast is off, matrix products keep full float32 precision, and attention modules take no fused
    path. Restored on leaving, also by an exception: train / eval flag of every module, ``requires_grad``
    of every parameter, every buffer bit for bit, and the random states of torch (CPU and CUDA), NumPy
    and Python. ``.grad`` is never written.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(p, p.requires_grad) for p in model.parameters() if not is_lazy(p)]
    buffers = [
        _saved_buffer(m, k, b) for m in model.modules() for k, b in m._buffers.items() if not is_lazy(b)
    ]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    precision = _matmul_precision()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {"cpu", *(p.device.type for p, _ in flags)}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(same_random_states())
        if any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # hooks stay out of compiled code
        try:
            model.eval()
            for parameter, _ in flags:
                parameter.requires_grad_(False)
            torch.backends.mha.set_fastpath_enabled(False)
            if precision != "highest":
                torch.set_float32_matmul_precision("highest")
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            for restore in buffers:
                restore()
            torch.backends.mha.set_fastpath_enabled(fastpath)
            if precision != "highest":
                torch.set_float32_matmul_precision(precision)


def _matmul_precision() -> str:
    """The float32 precision of matrix products; ``highest`` where only the newer, finer settings are used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"


def _saved_buffer(module: nn.Module, name: str, buffer: Tensor | None) -> Callable[[], None]:
    """Return a function that puts ``buffer`` back under ``name`` with the values it has now."""
    copy = None if buffer is None else buffer.detach().clone()

    def restore() -> None:
        module._buffers[name] = buffer
        if buffer is not None and not torch.equal(buffer, copy):
            with torch.no_grad():
                buffer.copy_(copy)

    return restore


@contextmanager
def same_random_states() -> Iterator[None]:
    """Restore the random states of torch (CPU and CUDA), NumPy (when loaded) and Python on leaving."""
    numpy = sys.modules.get("numpy")
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = numpy.random.get_state() if numpy else None
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        if numpy_state is not None:
            numpy.random.set_state(numpy_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
