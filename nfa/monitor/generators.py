"""Random generators of data's own: found wherever a loader, its sampler or its data set keep them."""

import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import BuiltinMethodType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import torch
from torch import Tensor

from nfa.sweep.untouched import undoing

_MOST_ENTRIES = 100  # of a list or dictionary: a longer one holds samples, and no generators
_MOST_THINGS = 10_000
_BOUND = (MethodType, BuiltinMethodType, MethodWrapperType)


@contextmanager
def same_generators(holder: Any) -> Iterator[None]:
    """Context that puts back, on leaving, every generator that is reached from an object by its attributes.

    Those of PyTorch, NumPy and Python; the global ones are `nfa.sweep.untouched.same_random_states`'s.
    """
    with undoing() as undo:
        for restore in _restorers(holder):
            undo.later(restore)
        yield


def _restorers(holder: Any) -> Iterator[Callable[[], Any]]:
    seen: set[int] = set()
    waiting = [holder]
    while waiting and len(seen) < _MOST_THINGS:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        restore = _restorer(thing)
        if restore is not None:
            yield restore
        else:
            waiting.extend(_held_by(thing))


def _restorer(thing: Any) -> Callable[[], Any] | None:
    """What puts a generator back to its state of now; None for anything else."""
    if isinstance(thing, torch.Generator):
        return partial(thing.set_state, thing.get_state())
    if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom):
        return partial(thing.setstate, thing.getstate())
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(thing, numpy.random.Generator):
        thing = thing.bit_generator
    if isinstance(thing, numpy.random.BitGenerator):
        return partial(setattr, thing, "state", thing.state)
    if isinstance(thing, numpy.random.RandomState):
        return partial(thing.set_state, thing.get_state())
    return None


def _held_by(thing: Any) -> list[Any]:
    if isinstance(thing, type | ModuleType | Tensor):
        return []
    if isinstance(thing, Mapping):
        return list(thing.values()) if len(thing) <= _MOST_ENTRIES else []
    if isinstance(thing, list | tuple | set):
        return list(thing) if len(thing) <= _MOST_ENTRIES else []
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, _BOUND):
        return [thing.__self__]
    return list(_attributes(thing).values())


def _attributes(thing: Any) -> dict[str, Any]:
    """What an object keeps, without asking it: its own ``__getattr__`` may raise anything, or act."""
    try:
        found = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}
