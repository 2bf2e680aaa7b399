"""The samples that a network is measured on again and again, and the share of each process."""

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from nfa.checks import told
from nfa.errors import NfaError
from nfa.monitor.generators import same_generators
from nfa.sweep.arguments import batches_of
from nfa.sweep.batches import Batch, chosen, length, limited, map_tensors, pieces
from nfa.sweep.untouched import same_random_states, undoing

Pair = tuple[Any, Any]
InputFn = Callable[[Any], Batch]


def first_samples(source: Any, samples: int, seed: int = 0, input_fn: InputFn | None = None) -> list[Pair]:
    """The first samples of some data, copied, as pairs (inputs, target); the data do not notice.

    A loader is read in this process, by a twin of it: its workers, the order of its next epoch, and whatever
    generators it and its data set hold stay as they are. Random order and augmentation are drawn from
    ``seed``, so that a run that is resumed takes the same samples.

    Args:
        source: whatever `nfa.audit` takes as batches.
        samples: how many at most.
        seed: of the global random states meanwhile.
        input_fn: makes of each batch one that `nfa.audit` takes.

    Raises:
        NfaError: there are none, or a batch is of another form.
    """
    source = batches_of(source)
    with same_random_states(), same_generators(source), _at_its_beginning(source):
        torch.default_generator.manual_seed(seed)  # and not those of GPUs that may not be in use yet
        random.seed(seed)
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed(seed % 2**32)
        batches = map(input_fn or in_parts, _in_this_process(source))
        pairs = [(_kept(inputs), _kept(target)) for inputs, target in limited(batches, samples)]
    if not pairs:
        raise NfaError("no samples to measure on: the batches are empty")
    return pairs


def _kept(value: object) -> object:
    return map_tensors(value, lambda t: t.detach().clone())


def is_readable(source: Any) -> bool:
    """Whether the first samples can be read without using them up: no stream, and nothing unknown."""
    return isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset)


def samples_in(pairs: Iterable[Pair]) -> int:
    """How many samples there are."""
    return sum(length(inputs) for inputs, _ in pairs)


def share_of(pairs: Sequence[Pair], rank: int, processes: int, batch_size: int | None = None) -> list[Pair]:
    """The samples that one of several processes measures.

    Args:
        pairs: the same on all of them.
        rank: of this one.
        processes: how many there are.
        batch_size: samples at once; None leaves the batches as they are.

    Raises:
        NfaError: one of them would have none.
    """
    largest = max(length(inputs) for inputs, _ in pairs)
    if largest < processes:
        raise NfaError(f"samples={largest} cannot be shared by {processes} processes: raise it")
    parts = pairs if processes == 1 else [_every(pair, rank, processes) for pair in pairs]
    return list(chain.from_iterable(pieces(*part, lambda: batch_size) for part in parts))


def shared_samples(pairs: list[Pair]) -> list[Pair]:
    """The samples of the first process, on all of them."""
    if processes()[1] == 1:
        return pairs
    return from_first_process([map_tensors(pair, Tensor.cpu) for pair in pairs])


def from_first_process(value: Any) -> Any:
    """The value of the first process, on all of them."""
    if processes()[1] == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def processes() -> tuple[int, int]:
    """Rank of this process, and how many train together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def in_parts(batch: Any) -> Batch:
    """A batch as it is, where `nfa.audit` takes it.

    Raises:
        NfaError: it has more parts than inputs and a target.
    """
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes) and len(batch) > 2:
        raise NfaError(
            f"a batch has {len(batch)} parts ({', '.join(map(told, batch))}): say which are the inputs of "
            "the network and which the target, input_fn=lambda batch: (batch[0], batch[1])"
        )
    return batch


def _every(pair: Pair, rank: int, processes: int) -> Pair:
    inputs, target = pair
    n = length(inputs)
    index = range(rank, n, processes)
    return chosen(inputs, index, n), chosen(target, index, n)


def _in_this_process(source: Iterable[Batch]) -> Iterable[Batch]:
    """A plain loader that reads what another one does; a subclass may keep books of its reading."""
    if not isinstance(source, DataLoader):
        return source
    data, collate = source.dataset, source.collate_fn
    if isinstance(data, IterableDataset):
        size = source.batch_size
        return DataLoader(data, batch_size=size, drop_last=source.drop_last, collate_fn=collate)
    if source.batch_sampler is None:
        return DataLoader(data, batch_size=None, sampler=source.sampler, collate_fn=collate)
    return DataLoader(data, batch_sampler=source.batch_sampler, collate_fn=collate)


@contextmanager
def _at_its_beginning(source: Any) -> Iterator[None]:
    """Context in which the samplers of a loader are in their first epoch; they are put back after."""
    batch_sampler = getattr(source, "batch_sampler", None)
    holders = (
        source,
        getattr(source, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    with undoing() as undo:
        for holder in {id(h): h for h in holders if hasattr(h, "__dict__")}.values():
            undo.later(_put_back, holder, dict(vars(holder)))
            if holder is not source and type(vars(holder).get("epoch")) is int:
                vars(holder)["epoch"] = 0
        yield


def _put_back(holder: Any, attributes: dict[str, Any]) -> None:
    vars(holder).clear()
    vars(holder).update(attributes)
