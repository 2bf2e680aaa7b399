"""What the processes of `torch.distributed`'s default group have to say to one another.

All of them call these in the same order, with tensors of one shape and dtype.
"""

import platform
from collections.abc import Callable

import torch
from torch import Tensor, distributed

from nfa.errors import NfaError, ProcessLost


def check_group() -> None:
    """Refuse to share out work where there is nobody to share it with.

    Raises:
        NfaError: there is no process group.
    """
    if not in_group():
        raise NfaError(
            "distributed=True shares the work out over the processes of torch.distributed's group, and there "
            "is none: start the script with torchrun and call torch.distributed.init_process_group, or leave "
            "it out"
        )


def in_group() -> bool:
    """Whether there is a process group."""
    return distributed.is_available() and distributed.is_initialized()


def own_span(n: int) -> slice:
    """Which of n things are this process's: nearly equal shares, in the order of ranks."""
    return _shares(n)[distributed.get_rank()]


def gathered(own: Tensor, n: int) -> Tensor:
    """The rows (n, …) of all processes, of which each has those in its `own_span`."""
    return torch.cat(_of_all(own, [share.stop - share.start for share in _shares(n)]))


def interleaved(own: Tensor) -> Tensor:
    """The rows (n, …) of all processes, of which rank r of w has rows r, r + w, r + 2w, …; alone, its own.

    Processes may have numbers of rows that differ by one, the first ones more.
    """
    if not in_group():
        return own
    counts = [int(count) for count in _of_all(torch.tensor([len(own)], device=own.device), None)]
    parts = _of_all(own, counts)
    rows = own.new_empty(sum(counts), *own.shape[1:])
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part
    return rows


def told_by_all(own: object) -> list[object]:
    """What each process tells, a picklable object; alone, its own."""
    if not in_group():
        return [own]
    found: list[object] = [own] * distributed.get_world_size()
    _together(lambda: distributed.all_gather_object(found, own))
    return found


def summed(own: Tensor) -> Tensor:
    """The sum over all processes, in place; the same to the last bit everywhere."""
    _together(lambda: distributed.all_reduce(own))
    return own


def least(own: float) -> float:
    """The smallest of the numbers of all processes."""
    number = torch.tensor(own, dtype=torch.float64, device=_device())
    _together(lambda: distributed.all_reduce(number, distributed.ReduceOp.MIN))
    return float(number)


def check_same(what: str, own: Tensor) -> None:
    """Refuse data that are not the same on all processes: these would wait for each other forever.

    Raises:
        NfaError: on each of them.
    """
    x = own.detach().double()
    told = torch.stack([x.new_tensor(float(x.numel())), x.sum(), x.square().sum()]).to(_device())
    both = torch.cat([told, -told])
    _together(lambda: distributed.all_reduce(both, distributed.ReduceOp.MIN))
    if not torch.equal(both[:3], -both[3:]):
        raise NfaError(
            f"the processes have different {what}: each must be given the same data, in the same "
            "order, and the same options"
        )


def neighbours() -> int:
    """How many processes, this one among them, are on this machine."""
    return told_by_all(platform.node()).count(platform.node())


def _shares(n: int) -> list[slice]:
    world = distributed.get_world_size()
    bounds = [n * rank // world for rank in range(world + 1)]
    return [slice(bounds[rank], bounds[rank + 1]) for rank in range(world)]


def _of_all(own: Tensor, counts: list[int] | None) -> list[Tensor]:
    """The rows of each process; as many as are told, or as many as this one's."""
    counts = [len(own)] * distributed.get_world_size() if counts is None else counts
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    _together(lambda: distributed.all_gather(parts, padded))
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


def _device() -> torch.device:
    on_card = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_card else torch.device("cpu")


def _together(exchange: Callable[[], object]) -> None:
    """Run a collective.

    Raises:
        ProcessLost: another process has ended.
    """
    try:
        exchange()
    except RuntimeError as error:
        rank, world = distributed.get_rank(), distributed.get_world_size()
        raise ProcessLost(
            f"process {rank} of {world} lost another one, which ended or cannot be reached: see what that "
            "one said, and start all of them again"
        ) from error
