"""The tensors in what a network returned, and the one among them that is meant."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor

from nfa.checks import told
from nfa.errors import NfaError

KNOWN = ("logits", "out", "last_hidden_state")  # of transformers, and of torchvision's for segmentation
_ADVICE = "let the forward return these alone, or name them logits, or choose them with output_fn="


def pick_tensor(raw: object) -> Tensor:
    """The outputs: the only floating tensor, or of several the one called ``logits``, ``out`` or the like.

    Args:
        raw: what a network returned: a tensor, or tensors in tuples, lists, dictionaries or dataclasses.

    Raises:
        NfaError: there is none, or several of which none is known to be the outputs.
    """
    if isinstance(raw, Tensor):
        if not raw.is_floating_point():
            raise NfaError(f"the outputs must be one floating tensor, got {told(raw)}; {_ADVICE}")
        return raw
    named = {name: value for name, value in entries(raw) if isinstance(name, str)}
    for name in KNOWN:
        value = named.get(name, getattr(raw, name, None))
        if isinstance(value, Tensor):
            return pick_tensor(value)
    found = dict(tensors(raw))
    if not found:
        raise NfaError(f"the outputs must be one floating tensor, got {words(raw)}; {_ADVICE}")
    if len(found) > 1:
        raise NfaError(
            f"the network returns {len(found)} tensors, {listed(found)}, and nothing says which are its "
            f"outputs; {_ADVICE}"
        )
    return next(iter(found.values()))


def tensors(raw: object, place: str = "", depth: int = 8) -> Iterator[tuple[str, Tensor]]:
    """Name (key, attribute, position, joined by dots) and floating tensor of all that a network returned."""
    if isinstance(raw, Tensor):
        if raw.is_floating_point():
            yield place or "0", raw
        return
    for name, entry in entries(raw) if depth else ():
        yield from tensors(entry, f"{place}.{name}" if place else str(name), depth - 1)


def entries(raw: object) -> Iterator[tuple[object, object]]:
    """Names and values of what holds others: dictionaries, tuples, lists and dataclasses."""
    if isinstance(raw, Mapping):
        yield from raw.items()
    elif isinstance(raw, tuple) and hasattr(raw, "_fields"):
        yield from zip(raw._fields, raw, strict=True)
    elif isinstance(raw, tuple | list):
        yield from enumerate(raw)
    elif is_dataclass(raw) and not isinstance(raw, type):
        yield from ((field.name, getattr(raw, field.name)) for field in fields(raw))


def listed(found: Mapping[str, Tensor]) -> str:
    """``0: logits (4, 10), 1: loss ()``; of a tuple the positions alone, ``0: (4, 10), 1: ()``."""
    named = ((i, "" if name == str(i) else f"{name} ", t) for i, (name, t) in enumerate(found.items()))
    return ", ".join(f"{i}: {name}{tuple(t.shape)}" for i, name, t in named)


def words(raw: object) -> str:
    """What came, where it is no floating tensor."""
    if isinstance(raw, Tensor):
        return f"{raw.dtype} of shape {tuple(raw.shape)}"
    names = ", ".join(str(name) for name, _ in entries(raw))
    return f"{type(raw).__name__}{f' ({names})' if names else ''}"
