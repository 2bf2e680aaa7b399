"""The sensitivities of all linear maps of a network from one forward and k input-gradient backwards.

``C = E Σ_k δ_k δ_kᵀ`` with ``δ_k = ∂f_k/∂z`` at the output z of a map; the expectation runs over samples,
the sum also over positions, tokens and calls. Each map's output tensor carries a hook that adds its
``δδᵀ`` while a backward passes by: no Jacobian tensor, no unfolded patches, nothing recomputed per layer.

Cost: the forward, k backwards without weight gradients (k = outputs, or probes), and for each backward
and map one product of the size of a 1 × 1 convolution.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nfa.accumulate import Accumulator, Sensitivity
from nfa.batches import OUTPUTS, Batch, OutputFn, call, length, limited, outputs, peek, pieces, prepare, split
from nfa.errors import NfaError
from nfa.maps import LinearMap, has_unbuilt
from nfa.untouched import untouched

_CACHED_BYTES = 2**22
_FIRST_PIECE, _FEWEST = 16, 8


@dataclass
class Sweep:
    """What one pass over the data measured.

    Attributes:
        sensitivities: by the name of the map, all maps in order.
        samples: samples seen.
        outputs: scalar outputs a sample.
        probes: probes a sample, None in exact mode.
    """

    sensitivities: dict[str, Sensitivity] = field(default_factory=dict)
    samples: int = 0
    outputs: int = 0
    probes: int | None = None


def measure_sensitivities(
    model: nn.Module,
    batches: Iterable[Batch] | Tensor,
    maps: Sequence[LinearMap],
    *,
    output: str = "logits",
    output_fn: OutputFn | None = None,
    probes: int | None = None,
    chunk: int = 1,
    max_samples: int | None = None,
    centered: bool = False,
    replicates: int = 1,
    bases: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Sweep:
    """Measure C of every map in one sweep over the data, leaving the model as it was.

    Args:
        model: any module; put into eval mode meanwhile, so that samples do not interact.
        batches: tensors x, pairs (x, target), pairs ((x1, x2, …), target), or keyword dictionaries; a
            bare tensor is one batch. The first dimension counts samples. Floating inputs are cast to
            the dtype of the model.
        maps: from `nfa.maps.find_maps`.
        output: ``logits`` (what the model returns), ``softmax`` or ``log_softmax`` of it, or the
            ``loss`` of each sample (cross-entropy for integer targets, else mean squared error).
        output_fn: picks the tensor of outputs out of what the model returns; by default a tensor, the
            first element of a tuple, or ``logits`` / ``out`` / the only tensor of a mapping.
        probes: None differentiates every output; K draws K random ±1 combinations for each sample, an
            unbiased estimate at K backwards.
        chunk: outputs (or probes) carried by one batched backward; more memory, fewer launches.
        max_samples: stop after so many samples.
        centered: remove the mean gradient of each output, ``C - Σ_k mean(δ_k) mean(δ_k)ᵀ``, the mean
            over samples and positions. Exact mode only.
        replicates: keep up to so many partial sums (over batches in exact mode, over probes in probe
            mode), from which standard errors are found; at most 4 and 2 for maps above 512 and 2048.
        bases: for each map name an orthonormal (groups, out, q) basis; C is measured in it.
        seed: of the probes.
        device: where to run; None means where the model is.

    Raises:
        NfaError: nothing to measure, no samples, values that are not finite, samples that interact
            (BatchNorm without running statistics), or outputs that cannot be differentiated.
    """
    _check(output=output, probes=probes, chunk=chunk, max_samples=max_samples, centered=centered)
    batches = [batches] if isinstance(batches, Tensor) else batches
    home = _device_of(model)
    target_device = torch.device(device) if device is not None else home
    _check_independent_samples(model)
    with _on_device(model, home, target_device), untouched(model):
        recorder = _Recorder(maps, bases or {}, replicates, centered, target_device)
        generator = torch.Generator().manual_seed(seed)
        sweep = Sweep(probes=probes)
        for index, batch in enumerate(limited(batches, max_samples)):
            for inputs, target in pieces(*batch, recorder.piece_size):
                inputs = prepare(model, inputs, target_device)
                target = target.to(target_device) if isinstance(target, Tensor) else target
                with recorder.recording():
                    raw = call(model, inputs)
                    recorder.forwarding = False
                    out = outputs(raw, output, output_fn, target, length(inputs))
                    _check_finite(out, index)
                    recorder.start(len(out), [index] if probes is None else list(range(probes)))
                    _backward(out, recorder, probes, chunk, generator)
                sweep.samples += len(out)
                sweep.outputs = out.shape[1]
        if not sweep.samples:
            raise NfaError("no samples to measure on: the batches are empty")
        sweep.sensitivities = recorder.results(sweep.samples)
    return sweep


def built(model: nn.Module, batches: Iterable[Batch]) -> Iterable[Batch]:
    """Give lazily built modules their shapes by one forward; return the batches, none of them used up."""
    if not has_unbuilt(model):
        return batches
    first, batches = peek(batches)
    with untouched(model), torch.no_grad():
        call(model, prepare(model, split(first)[0], _device_of(model)))
    return batches


def all_reduce(sweep: Sweep) -> None:
    """Add up the sweeps of all ranks of the default process group, in place; each rank gets the sum."""
    for sensitivity in sweep.sensitivities.values():
        some = next(iter(sensitivity.sums.values()))
        flags = [float(sensitivity.called), float(sensitivity.reached)]
        numbers = torch.tensor([*flags, *sensitivity.counts], dtype=torch.float64, device=some.device)
        torch.distributed.all_reduce(numbers)
        called, reached, *counts = numbers.tolist()
        sensitivity.called, sensitivity.reached = called > 0, reached > 0
        sensitivity.counts = [int(count) for count in counts]
        mine, sensitivity.sums = sensitivity.sums, {}
        for slot, count in enumerate(sensitivity.counts):
            if count:  # another rank may have had more batches, and so more replicates
                sensitivity.sums[slot] = mine[slot] if slot in mine else torch.zeros_like(some)
                torch.distributed.all_reduce(sensitivity.sums[slot])
        sweep.samples = sum(sensitivity.counts) // (sweep.probes or 1)


# ---- one backward after another ---------------------------------------------------------------------------


def _backward(
    out: Tensor, recorder: "_Recorder", probes: int | None, chunk: int, generator: torch.Generator
) -> None:
    """Send every output (or probe) of a batch back once; the recorder's hooks see the gradients."""
    if not recorder.leaves:
        raise NfaError("no measured layer was called in the forward pass")
    if not out.requires_grad:
        raise NfaError("the output of the model does not depend on any measured layer")
    total = out.shape[1] if probes is None else probes
    for start in range(0, total, chunk):
        lines = list(range(start, min(start + chunk, total)))
        seeds = _one_hot(out, lines) if probes is None else _signs(out, len(lines), generator)
        recorder.lines = lines
        if len(lines) == 1:
            more = lines[-1] + 1 < total
            torch.autograd.grad(out, recorder.leaves, seeds[0], retain_graph=more, allow_unused=True)
        else:
            _batched_backward(out, recorder.leaves, seeds)
        recorder.lines = []


def _batched_backward(out: Tensor, leaves: list[Tensor], seeds: Tensor) -> None:
    def backward(seed: Tensor) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(out, leaves, seed, retain_graph=True, allow_unused=True)
        return tuple(seed.new_zeros(()) if g is None else g.new_zeros(()) for g in grads)

    torch.func.vmap(backward)(seeds)


def _one_hot(out: Tensor, lines: list[int]) -> Tensor:
    seeds = out.new_zeros(len(lines), *out.shape)
    for position, line in enumerate(lines):
        seeds[position, :, line] = 1
    return seeds


def _signs(out: Tensor, count: int, generator: torch.Generator) -> Tensor:
    bits = torch.randint(0, 2, (count, *out.shape), generator=generator, dtype=torch.int8)
    return bits.to(out.device, out.dtype).mul_(2).sub_(1)


class _Tap(torch.autograd.Function):
    """Hands a gradient to a function of the physical tensor, also below ``torch.func.vmap``."""

    generate_vmap_rule = False

    @staticmethod
    def forward(grad: Tensor, collect: Callable[[Tensor], None]) -> Tensor:
        collect(grad[None])
        return grad.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Nothing to keep: a tap is never differentiated."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, grad: Tensor, collect: Callable[[Tensor], None]
    ) -> tuple[Tensor, None]:
        if in_dims[0] is None:
            collect(grad.expand(info.batch_size, *grad.shape))
        else:
            collect(grad.movedim(in_dims[0], 0))
        return grad.new_empty(0), None


class _Recorder:
    """Hooks on the maps' outputs, and one accumulator a map."""

    def __init__(
        self,
        maps: Sequence[LinearMap],
        bases: Mapping[str, Tensor],
        replicates: int,
        centered: bool,
        device: torch.device,
    ):
        if not maps:
            raise NfaError(
                "no linear map to measure: no nn.Linear or nn.Conv1d/2d/3d among the layers chosen"
            )
        self.accumulators = {
            m.name: Accumulator(m, bases.get(m.name), replicates, centered, device) for m in maps
        }
        self.maps, self.device = maps, device
        self.widest = 0.0  # bytes a sample of the largest output seen
        self.most_bytes = 0
        self.leaves: list[Tensor] = []
        self.lines: list[int] = []  # the outputs or probes that the backward under way carries
        self.forwarding = False  # not so when a checkpointed part is run again during a backward

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Hooks in place for one forward and its backwards, removed also when the model raises."""
        self.leaves, self.lines, self.most_bytes, self.forwarding = [], [], 0, True
        handles = [
            m.module.register_forward_hook(self._forward_hook(m.name), prepend=True) for m in self.maps
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.leaves = []

    def piece_size(self) -> int | None:
        """Samples to take at a time: on a CPU as many as keep the largest gradient in its cache."""
        if self.device.type != "cpu":
            return None
        return max(_FEWEST, int(_CACHED_BYTES // self.widest)) if self.widest else _FIRST_PIECE

    def start(self, samples: int, replicates: list[int]) -> None:
        """Announce samples and the replicates they add to: that of their batch, or one for each probe."""
        self.widest = max(self.widest, self.most_bytes / samples)
        for accumulator in self.accumulators.values():
            accumulator.start(samples, replicates)

    def results(self, samples: int) -> dict[str, Sensitivity]:
        return {name: accumulator.result(samples) for name, accumulator in self.accumulators.items()}

    def _forward_hook(self, name: str) -> Callable:
        accumulator = self.accumulators[name]

        def collect(delta: Tensor) -> None:
            accumulator.add(delta.detach(), self.lines)

        def gradient_hook(grad: Tensor) -> None:
            if not self.lines:  # a derivative that the model takes inside its own forward
                return
            with torch.no_grad():
                if len(self.lines) == 1:
                    collect(grad[None])
                else:
                    _Tap.apply(grad, collect)

        def forward_hook(module: nn.Module, inputs: tuple, z: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return z  # cut off from the output by the model itself
            first_time = self.forwarding  # else a checkpointed part is run again: same tensors, no hooks
            if not z.requires_grad:  # nothing below needs a gradient: the graph starts here
                leaf = z.detach().requires_grad_()
                if first_time:
                    self.leaves.append(leaf)
                z = leaf.clone()
            if first_time:
                accumulator.note_call(z)
                self.most_bytes = max(self.most_bytes, z.nbytes)
                z.register_hook(gradient_hook)
                if (
                    not self.leaves
                ):  # the model itself asked for gradients further down: they need not go there
                    self.leaves.append(z)
            # An in-place change of a view re-routes the gradient around the hook; a copy keeps it.
            return z.clone() if z._is_view() else z

        return forward_hook


# ---- checks and places ------------------------------------------------------------------------------------


def _check(*, output: str, probes: int | None, chunk: int, max_samples: int | None, centered: bool) -> None:
    if output not in OUTPUTS:
        raise NfaError(f"output must be one of {', '.join(OUTPUTS)}, got {output!r}")
    for name, value in (("probes", probes), ("chunk", chunk), ("max_samples", max_samples)):
        if value is not None and value < 1:
            raise NfaError(f"{name} must be at least 1, got {value}")
    if centered and probes is not None:
        raise NfaError(
            "centered=True needs the mean gradient of every output: use the exact mode (probes=None)"
        )


def _check_independent_samples(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise NfaError(
                f"{name} ({type(module).__name__}) has no running statistics, so that the samples of a batch "
                "interact and have no gradients of their own; use track_running_stats=True"
            )


def _check_finite(out: Tensor, index: int) -> None:
    if not bool(torch.isfinite(out).all()):
        raise NfaError(f"the model's outputs on batch {index} are not finite (NaN or infinity)")


def _device_of(model: nn.Module) -> torch.device:
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))


@contextmanager
def _on_device(model: nn.Module, home: torch.device, target: torch.device) -> Iterator[None]:
    if home == target:
        yield
        return
    model.to(target)
    try:
        yield
    finally:
        model.to(home)
