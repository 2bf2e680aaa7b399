"""What a measurement takes, known before it starts: memory, outputs, and backwards a sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nfa.device import size_words
from nfa.errors import NfaError
from nfa.layers.maps import LinearMap
from nfa.sweep.batches import (
    Batch,
    OutputFn,
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
from nfa.sweep.measure import device_of
from nfa.sweep.taps import Recorder
from nfa.sweep.through_head import find_head
from nfa.sweep.untouched import untouched

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


def survey(
    model: nn.Module,
    batch: Batch,
    maps: Sequence[LinearMap],
    bases: Mapping[str, Tensor],
    *,
    output: str = "logits",
    output_fn: OutputFn | None = None,
    neglect: float = 0.0,
    **_: object,
) -> Footprint:
    """Carry one sample of a batch forward and see what it takes."""
    inputs, target = split(batch)
    n = length(inputs)
    inputs, target = cut(inputs, slice(1), n), cut(target, slice(1), n)
    try:
        return _footprint(model, inputs, target, maps, bases, output, output_fn, neglect)
    except NfaError as error:
        try:  # squeeze() takes the axis of a sample alone away
            two = doubled(inputs), doubled(target)
            return _footprint(model, *two, maps, bases, output, output_fn, neglect)
        except NfaError:
            raise error from None


def _footprint(
    model: nn.Module,
    inputs: object,
    target: object,
    maps: Sequence[LinearMap],
    bases: Mapping[str, Tensor],
    output: str,
    output_fn: OutputFn | None,
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
        with (
            recorder.recording() as forward,
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            raw = picked(understood(model, prepare(model, inputs, home)), output_fn)
            out = flat_outputs(raw, output, target, n)
            forward.end()
            direct = output == "logits" and output_mask(raw, output, inputs) is None
            last = forward.last_call
            head = find_head(last, raw, out.shape[1], neglect) if direct else None
            backwards = head.lines(last.inputs) if head and last else out.shape[1]
            widest = forward.most_bytes
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
