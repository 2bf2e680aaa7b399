"""What a measurement takes, known before it starts: memory, outputs, and backwards a sample."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nfa.batches import Batch, call, cut, flat_outputs, length, peek, picked, prepare, split
from nfa.errors import NfaError
from nfa.head import find_head
from nfa.maps import LinearMap
from nfa.recorder import Recorder
from nfa.sensitivity import device_of
from nfa.untouched import untouched

_GIB = 2**30
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
    """

    sample: int
    sums: int
    statistics: int
    outputs: int
    backwards: int

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
                f"the measurement takes about {self.total(1, 1) / _GIB:.2f} GiB beyond the network, more "
                f"than the {budget / _GIB:.2f} GiB allowed: raise the memory, or choose fewer layers"
            )
        return replicates, max(int((budget - self.sums * replicates) // max(self.sample, 1)), 1)


def survey(
    model: nn.Module,
    batches: Iterable[Batch],
    maps: Sequence[LinearMap],
    bases: Mapping[str, Tensor],
    *,
    output: str = "logits",
    output_fn: Any = None,
    neglect: float = 0.0,
    device: torch.device | str | None = None,
    **_: Any,
) -> tuple[Footprint, Iterable[Batch]]:
    """Carry one sample forward and see what it takes.

    Returns:
        The estimate, and the batches with none used up.
    """
    first, again = peek(batches)
    batches = again if iter(batches) is batches else batches
    inputs, target = split(first)
    n = length(inputs)
    if n == 0:
        return Footprint(0, 0, 0, 1, 1), batches
    inputs, target = cut(inputs, slice(1), n), cut(target, slice(1), n)
    home = device_of(model)
    saved: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with untouched(model):
        recorder = Recorder(maps, bases, 1, False, home)
        with recorder.recording(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            raw = picked(call(model, prepare(model, inputs, home)), output_fn)
            out = flat_outputs(raw, output, target, 1, inputs)
            recorder.forwarding = False
            head = find_head(recorder.last_call, raw, out, neglect, None) if output == "logits" else None
            backwards = head.lines(recorder.last_call.inputs) if head else out.shape[1]
            widest = recorder.most_bytes
    return (
        Footprint(
            sample=sum(saved.values()) + 3 * widest,
            sums=sum(a.groups * a.size**2 * 12 for a in recorder.accumulators.values()),
            statistics=max(
                a.groups * min(a.size, m.in_features) ** 2 * 8 * _MATRICES
                for m, a in zip(maps, recorder.accumulators.values(), strict=True)
            ),
            outputs=out.shape[1],
            backwards=backwards,
        ),
        batches,
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
