"""Values from outside: each is checked and returned as a plain one, or refused in one line.

Numbers of NumPy and tensors without dimensions are taken for the plain numbers they hold.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from nfa.errors import NfaError

T = TypeVar("T")

MOST = 2**63 - 1  # what PyTorch takes for a whole number


def plain(value: object) -> object:
    """The Python number, text or truth value that a NumPy scalar or a tensor without dimensions holds."""
    if isinstance(value, Tensor):
        return value.item() if value.dim() == 0 and value.device.type != "meta" else value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def whole(name: str, value: object, least: int = 0, most: int = MOST) -> int:
    """A whole number from ``least`` to ``most``; a truth value is none."""
    value = plain(value)
    if type(value) is not int or not least <= value <= most:
        limits = f"of {least} or more" if most == MOST else f"from {least} to {most}"
        raise NfaError(f"{name} must be a whole number {limits}, got {told(value)}")
    return value


def whole_or_none(name: str, value: object, least: int = 0) -> int | None:
    """A whole number of at least ``least``, or None."""
    return None if value is None else whole(name, value, least)


def seed_of(value: object) -> int:
    """A seed: a whole number of 0 or more."""
    return whole("seed", value)


def number(name: str, value: object, allowed: Callable[[float], bool], words: str) -> float:
    """A finite number for which ``allowed`` holds; ``words`` say what it must be."""
    value = plain(value)
    if (type(value) is int or type(value) is float) and math.isfinite(_float(value)) and allowed(value):
        return value
    raise NfaError(f"{name} must be {words}, got {told(value)}")


def positive(name: str, value: object, words: str = "a positive number") -> float:
    """A finite number above zero."""
    return number(name, value, lambda x: x > 0, words)


def not_negative(name: str, value: object, words: str = "0 or a positive number") -> float:
    """A finite number of zero or more."""
    return number(name, value, lambda x: x >= 0, words)


def memory_of(value: object) -> float | None:
    """A budget in bytes, or None."""
    return None if value is None else positive("memory", value, "a positive number of bytes")


def choice(name: str, value: object, known: Iterable[str]) -> str:
    """One of the names that are known."""
    value, known = plain(value), tuple(known)
    if not isinstance(value, str) or value not in known:
        raise NfaError(
            f"{name} must be one of {', '.join(known)}, got {told(value)}{did_you_mean(value, known)}"
        )
    return str(value)


def flag(name: str, value: object) -> bool:
    """True or False."""
    value = plain(value)
    if not isinstance(value, bool):
        raise NfaError(f"{name} must be True or False, got {told(value)}")
    return value


def device_of_name(value: object) -> torch.device | None:
    """A device that is there, or None."""
    if value is None:
        return None
    words = f"device must be one that PyTorch knows, such as 'cpu' or 'cuda:0', or None, got {told(value)}"
    if not isinstance(value, str | torch.device):
        raise NfaError(words)
    try:
        device = torch.device(value)
    except RuntimeError:
        hint = "; a GPU of NVIDIA or AMD is called 'cuda'" if value == "gpu" else ""
        raise NfaError(words + hint) from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise NfaError(f"there is no device {device}: {torch.cuda.device_count()} GPUs are seen; use 'cpu'")
    if device.type == "meta":
        raise NfaError("device 'meta' holds no values to compute with: use 'cpu'")
    return device


def known_options(given: Mapping[str, object], of: Callable, more: Iterable[str] = ()) -> None:
    """Refuse options that are neither parameters of a function or a class nor among ``more``."""
    parameters = inspect.signature(of).parameters.values()
    known = (*(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)), *more)
    for name in given:
        if name not in known:
            near = did_you_mean(name, known) or f"; options: {', '.join(known)}"
            raise NfaError(f"{of.__name__} has no option {name!r}{near}")


def network_of(value: object) -> nn.Module:
    """A network, and nothing that stands for one."""
    if isinstance(value, nn.Module):
        return value
    advice = "pass an nn.Module"
    if isinstance(value, type) and issubclass(value, nn.Module):
        advice = f"pass an instance, {value.__name__}(…)"
    elif isinstance(value, Mapping):
        advice = "a state dict holds weights alone: build the network, then load_state_dict(…)"
    elif isinstance(value, str):
        advice = "build the network and pass that; `nfa audit` on the command line takes names and files"
    elif callable(value) and not isinstance(value, type):
        advice = "wrap a function in a module, or call it if it builds the network"
    raise NfaError(f"the model must be a network, an instance of nn.Module, got {told(value)}: {advice}")


def floats(name: str, value: object, shape: str) -> Tensor:
    """A dense tensor of float32 or float64, detached; its shape is told and not checked."""
    shapes = f"expected {name} as a tensor {shape} of a floating dtype, float32 or float64"
    if not isinstance(value, Tensor):
        advice = "torch.tensor(…) makes one"
        if hasattr(value, "__array__"):
            advice = "torch.from_numpy(…) makes one, .float() or .double() of it the dtype"
        raise NfaError(f"{shapes}, got {told(value)}: {advice}")
    if value.layout != torch.strided:
        raise NfaError(f"{shapes}, got a sparse one: .to_dense() makes it dense")
    if value.device.type == "meta":
        raise NfaError(f"{shapes}, got one on the device 'meta', which has no values")
    if value.is_quantized or value.dtype not in (torch.float32, torch.float64):
        advice = (
            "take its real and imaginary parts apart" if value.is_complex() else "convert it with .float()"
        )
        raise NfaError(f"{shapes}, got {value.dtype} of shape {tuple(value.shape)}: {advice}")
    return value.detach()


def told(value: object) -> str:
    """What came, short and in one line."""
    if isinstance(value, Tensor):
        return f"a tensor {value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | complex | str):
        words = repr(value)
        return words if len(words) <= 80 else f"{words[:77]}…"
    if hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array {value.dtype} of shape {tuple(value.shape)}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return f"a {type(value).__name__}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """``; did you mean 'laplace'?``, or nothing."""
    lower = {entry.lower(): entry for entry in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5) if isinstance(name, str) else ()
    return f"; did you mean {lower[near[0]]!r}?" if near else ""


def near(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """``; near ones: a, b``, or nothing."""
    lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=cutoff)
    return f"; near ones: {', '.join(lower[match] for match in found)}" if found else ""


def settle(frozen: object, **values: object) -> None:
    """Put checked values into an object that is frozen otherwise, while it is being made."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf


def one_or_several(value: object, check: Callable[[object], T]) -> T | tuple[T, ...]:
    """A value, or a tuple of what can be gone through (but no text), each as a check returns it.

    Raises:
        NfaError: there is none at all, or one is refused.
    """
    value = plain(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return tuple(check(entry) for entry in value)
    return check(value)


def as_tuple(value: object) -> tuple:
    """A tuple as it is, anything else as its only entry."""
    return value if isinstance(value, tuple) else (value,)
