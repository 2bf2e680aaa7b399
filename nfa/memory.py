"""What a measurement takes, known before it starts: memory, outputs, and backwards a sample."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nfa.batches import (
    Batch,
    Replayable,
    cut,
    doubled,
    flat_outputs,
    length,
    output_mask,
    picked,
    prepare,
    split,
    understood,
)  # fmt: skip
from nfa.errors import NfaError
from nfa.head import find_head
from nfa.maps import LinearMap
from nfa.recorder import Recorder
from nfa.sensitivity import device_of
from nfa.untouched import untouched

_MATRICES = 8  # of the widest layer, in float64, while its statistics are computed
_LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Footprint:
    """An estimate, in bytes beyond the network itself.

    Attributes:
        sample: graph and gradients of one sample.
        sums: partial sums of all maps, for one replicate.
        statistics: work space for the statistics of the widest map.
        outputs: scalar outputs a sample.
        backwards: backwards a sample of the exact mode.
        ranks: groups, and the smaller side of the weight, of each map.
    """

    sample: int
    sums: int
    statistics: int
    outputs: int
    backwards: int
    ranks: tuple[tuple[int, int], ...] = ()

    def total(self, samples: int, replicates: int) -> int:
        """Bytes with so many samples at a time; the statistics come when the graph is gone."""
        return self.sums * replicates + max(self.sample * samples, self.statistics)

    def within(self, budget: float | None, replicates: int) -> tuple[int, int | None]:
        """Replicates to keep and samples to carry at a time so as to stay within a budget in bytes.

        Raises:
            NfaError: not even one sample fits.
        """
        if budget is None:
            return replicates, None
        while replicates > 1 and self.total(_LEAST_SAMPLES, replicates) > budget:
            replicates -= 1
        if self.total(1, replicates) > budget:
            raise NfaError(
                f"the measurement takes about {size_words(self.total(1, 1))} beyond the network, more "
                f"than the {size_words(budget)} allowed: raise the memory, or choose fewer layers"
            )
        return replicates, max(int((budget - self.sums * replicates) // max(self.sample, 1)), 1)


def size_words(number: float) -> str:
    """``1.3 GB``, ``20 MB``, ``3 kB``."""
    number = min(number, 10**24)  # a whole number from a header may be beyond all floats
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:.{0 if name == 'MB' else 1}f} {name}"
    return f"{max(number / 1e3, 1):.0f} kB"


def check_fits(number: float, what: str, advice: str) -> None:
    """Refuse what would not fit into the memory of the CPU, before any of it is allocated.

    Args:
        number: bytes it takes.
        what: that takes them, for the message.
        advice: what to do, its end.

    Raises:
        NfaError: they are not free.
    """
    free = available(torch.device("cpu"))
    if free is not None and number > free:
        raise NfaError(
            f"{what} takes about {size_words(number)} of memory, {size_words(free)} are free: {advice}"
        )


def survey(
    model: nn.Module,
    batches: Iterable[Batch],
    maps: Sequence[LinearMap],
    bases: Mapping[str, Tensor],
    *,
    output: str = "logits",
    output_fn: Any = None,
    neglect: float = 0.0,
    **_: Any,
) -> tuple[Footprint, Iterable[Batch]]:
    """Carry one sample forward and see what it takes.

    Returns:
        The estimate, and the batches with none used up.
    """
    batches = Replayable(batches)
    inputs, target = split(batches.first)
    n = length(inputs)
    inputs, target = cut(inputs, slice(1), n), cut(target, slice(1), n)
    try:
        return _footprint(model, inputs, target, maps, bases, output, output_fn, neglect), batches
    except NfaError as error:
        try:  # squeeze() takes the axis of a sample alone away
            two = doubled(inputs), doubled(target)
            return _footprint(model, *two, maps, bases, output, output_fn, neglect), batches
        except NfaError:
            raise error from None


def _footprint(
    model: nn.Module,
    inputs: Any,
    target: Any,
    maps: Sequence[LinearMap],
    bases: Mapping[str, Tensor],
    output: str,
    output_fn: Any,
    neglect: float,
) -> Footprint:
    home, n = device_of(model), length(inputs)
    saved: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with untouched(model):
        recorder = Recorder(maps, bases, 1, False, home, model)
        with recorder.recording(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            raw = picked(understood(model, prepare(model, inputs, home)), output_fn)
            out = flat_outputs(raw, output, target, n)
            recorder.forwarding = False
            direct = output == "logits" and output_mask(raw, output, inputs) is None
            head = find_head(recorder.last_call, raw, out.shape[1], neglect) if direct else None
            backwards = head.lines(recorder.last_call.inputs) if head else out.shape[1]
            widest = recorder.most_bytes
    return Footprint(
        sample=(sum(saved.values()) + 3 * widest) // n,
        sums=sum(a.groups * a.size**2 * 12 for a in recorder.accumulators.values()),
        statistics=max(
            a.groups * min(a.size, m.in_features) ** 2 * 8 * _MATRICES
            for m, a in zip(maps, recorder.accumulators.values(), strict=True)
        ),
        outputs=out.shape[1],
        backwards=backwards,
        ranks=tuple(
            (a.groups, min(a.size, m.in_features))
            for m, a in zip(maps, recorder.accumulators.values(), strict=True)
        ),
    )


def available(device: torch.device) -> float | None:
    """Bytes free on a device; None where that cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return next(_available_memory(), None)


def _available_memory() -> Iterator[float]:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            yield from (float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except OSError:
        return
