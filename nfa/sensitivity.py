"""The sensitivities of all linear maps of a network from one forward and k input-gradient backwards.

``C = E Σ_k δ_k δ_kᵀ`` with ``δ_k = ∂f_k/∂z`` at the output z of a map; the expectation runs over samples,
the sum also over positions, tokens and calls. Each map's output tensor carries a hook that adds its
``δδᵀ`` while a backward passes by: no Jacobian tensor, no unfolded patches, nothing recomputed per layer.

Cost: the forward, k backwards without weight gradients (k = outputs, or probes, or fewer through the head),
and for each backward and map one product of the size of a 1 × 1 convolution.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nfa.batches import (
    OUTPUTS,
    Batch,
    OutputFn,
    call,
    cut,
    doubled,
    flat_outputs,
    length,
    limited,
    map_tensors,
    output_mask,
    peek,
    picked,
    pieces,
    prepare,
    split,
)
from nfa.errors import NfaError
from nfa.head import Head, find_head
from nfa.maps import LinearMap, has_unbuilt
from nfa.recorder import Recorder
from nfa.sweep import Sweep, Watch
from nfa.untouched import untouched

FORWARD_FAILED = "raised by the network in its forward pass, while it was measured"
_QUICK = 16  # backwards worth finishing when asked to stop


def measure_sensitivities(
    model: nn.Module,
    batches: Iterable[Batch] | Tensor,
    maps: Sequence[LinearMap],
    *,
    output: str = "logits",
    output_fn: OutputFn | None = None,
    probes: int | None = None,
    neglect: float = 0.0,
    chunk: int = 1,
    max_samples: int | None = None,
    centered: bool = False,
    replicates: int = 1,
    replicates_over: str = "auto",
    bases: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    piece_limit: int | None = None,
    watch: Watch | None = None,
) -> Sweep:
    """Measure C of every map in one sweep over the data, leaving the model as it was.

    Args:
        model: any module; put into eval mode meanwhile, so that samples do not interact.
        batches: tensors x, pairs (x, target), pairs ((x1, x2, …), target), or keyword dictionaries; a
            bare tensor is one batch. The first dimension counts samples. Floating inputs are cast to
            the dtype of the model. Outputs at positions whose ``attention_mask`` is 0 do not count.
        maps: from `nfa.maps.find_maps`.
        output: ``logits`` (what the model returns), ``softmax`` or ``log_softmax`` of it, or the
            ``loss`` of each sample (cross-entropy for integer targets, else mean squared error).
        output_fn: picks the tensor of outputs out of what the model returns; by default a tensor, the
            first element of a tuple, or ``logits`` / ``out`` / the only tensor of a mapping.
        probes: None for all outputs, exactly, going through the head where that takes fewer backwards
            (`nfa.head`); K draws K random ±1 combinations for each sample, an unbiased estimate at K
            backwards.
        neglect: exact mode through the head: leave out its weakest directions up to this share.
        chunk: outputs (or probes) carried by one batched backward; more memory, fewer launches.
        max_samples: stop after so many samples.
        centered: remove the mean gradient of each output, ``C - Σ_k mean(δ_k) mean(δ_k)ᵀ``, the mean
            over samples and positions. Exact mode only.
        replicates: keep up to so many partial sums, from which standard errors are found; at most 4 and 2
            for maps above 512 and 2048.
        replicates_over: ``batches``, ``probes``, or ``auto``: over batches in exact mode, over probes in
            probe mode.
        bases: for each map name an orthonormal (groups, out, q) basis; C is measured in it.
        seed: of the probes.
        device: where to run; None means where the model is.
        piece_limit: carry at most so many samples through the model at once. Where memory runs out, a
            piece is halved and the sweep goes on.
        watch: looks on, and may end the sweep early.

    Raises:
        NfaError: nothing to measure, no samples, values that are not finite, samples that interact
            (BatchNorm without running statistics), outputs that cannot be differentiated, or too little
            memory for one sample.
    """
    _check(probes=probes, chunk=chunk, max_samples=max_samples, piece_limit=piece_limit)
    _check_choices(output, probes, centered, neglect)
    batches = [batches] if isinstance(batches, Tensor) else batches
    home = device_of(model)
    target_device = torch.device(device) if device is not None else home
    _check_independent_samples(model)
    with _on_device(model, home, target_device), untouched(model):
        recorder = Recorder(maps, bases or {}, replicates, centered, target_device, model)
        recorder.most_samples = piece_limit
        over_probes = probes is not None and replicates_over != "batches"
        run = _Run(
            model, recorder, output, output_fn, probes, neglect, chunk, seed, over_probes, watch or Watch()
        )
        run.all(batches, max_samples)
        if not run.samples:
            raise NfaError(
                "stopped before the first samples were complete: nothing is measured"
                if run.stopped
                else "no samples to measure on: the batches are empty"
            )
        return run.sweep()


def built(model: nn.Module, batches: Iterable[Batch]) -> Iterable[Batch]:
    """Give lazily built modules their shapes by one forward; return the batches, none of them used up."""
    if not has_unbuilt(model):
        return batches
    first, batches = peek(batches)
    with untouched(model), torch.no_grad():
        call(model, prepare(model, split(first)[0], device_of(model)))
    return batches


def all_reduce(sweep: Sweep) -> None:
    """Add up the sweeps of all ranks of the default process group, in place; each rank gets the sum."""
    for sensitivity in sweep.sensitivities.values():
        some = next(iter(sensitivity.dense().values()))
        flags = [float(sensitivity.called), float(sensitivity.reached), float(sensitivity.passes)]
        numbers = torch.tensor([*flags, *sensitivity.counts], dtype=torch.float64, device=some.device)
        torch.distributed.all_reduce(numbers)
        called, reached, passes, *counts = numbers.tolist()
        sensitivity.called, sensitivity.reached = called > 0, reached > 0
        sensitivity.passes = passes == reached > 0  # on every rank that saw a gradient
        sensitivity.counts = [int(count) for count in counts]
        mine, sensitivity.sums, sensitivity.factored = sensitivity.dense(), {}, False
        for slot, count in enumerate(sensitivity.counts):
            if count:  # another rank may have had more batches, and so more replicates
                sensitivity.sums[slot] = mine[slot] if slot in mine else torch.zeros_like(some)
                torch.distributed.all_reduce(sensitivity.sums[slot])
        sweep.samples = sum(sensitivity.counts) // (sweep.probes or 1)


def device_of(model: nn.Module) -> torch.device:
    """Where the model is."""
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))


# ---- one backward after another ---------------------------------------------------------------------------


@dataclass
class _Resume:
    """Where a piece goes on whose memory ran out: backwards done, and gradients seen in the one under way."""

    line: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    started: bool = False
    identity: bool = False  # of the head, added with the first backward


@dataclass
class _Run:
    """The state of one sweep."""

    model: nn.Module
    recorder: Recorder
    output: str
    output_fn: OutputFn | None
    probes: int | None
    neglect: float
    chunk: int
    seed: int
    over_probes: bool
    watch: Watch
    samples: int = 0
    outputs: int = 0
    backwards: int = 0
    stopped: bool = False
    head: Head | None = None
    passes: int = 0  # completed
    looked_for_shared: bool = False
    _abandoned: bool = False

    def __post_init__(self):
        self.first_probes, self.most_probes = self.probes, self.probes
        self.generator = torch.Generator().manual_seed(self.seed)
        # On a CPU, PyTorch 2.15 gets the gradient of a single sample through a BatchNorm in eval mode wrong
        # for some memory layouts; with a copy beside it, it is right.
        batchnorm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules())
        self.avoids_single = batchnorm and self.recorder.device.type == "cpu"

    def sweep(self) -> Sweep:
        """What is measured so far."""
        return Sweep(
            self.recorder.results(self.samples),
            self.samples,
            self.outputs,
            self.first_probes,
            self.most_probes,
            self.most_probes or self.backwards,
            self.head.neglected if self.head else 0.0,
            self.stopped,
            self.head is not None,
        )

    def all(self, batches: Iterable[Batch], max_samples: int | None) -> None:
        """Measure all batches, and once more while the watch wants it."""
        while True:
            index = -1
            for index, batch in enumerate(limited(batches, max_samples)):
                self.batch(index, *batch)
                if self.stopped or (self.passes == 0 and self.watch.enough(self.sweep, self.samples)):
                    return
            again = self.watch.again(self.sweep) if self.probes is not None and index >= 0 else None
            if again is None:
                return
            self.passes += 1
            self.probes, self.recorder.active = again.probes, again.layers
            self.most_probes += again.probes

    def batch(self, index: int, inputs: Any, target: Any) -> None:
        """Measure one batch, in pieces."""
        for part, part_target in pieces(inputs, target, self.recorder.piece_size):
            part = prepare(self.model, part, self.recorder.device)
            if isinstance(part_target, Tensor):
                part_target = part_target.to(self.recorder.device)
            n = length(part)
            self._piece(part, part_target, index, _Resume())
            if self.stopped and self._abandoned:
                return
            self.samples += n if self.passes == 0 else 0
            if self.stopped:
                return

    def _piece(self, inputs: Any, target: Any, index: int, resume: _Resume) -> None:
        """Forward and all backwards of some samples; of half as many at a time where memory runs out."""
        n = length(inputs)
        try:
            self._measure(inputs, target, index, resume)
            return
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if n == 1:
                raise NfaError(
                    f"out of memory with one sample at a time on {self.recorder.device}: take smaller "
                    "inputs, fewer layers, or another device"
                ) from None
        # Only here, outside of the handler, is the failed graph free.
        if self.recorder.device.type == "cuda":
            torch.cuda.empty_cache()
        self.recorder.most_samples = n // 2
        start = 0
        while start < n and not self._abandoned:  # what upper layers have of some samples, lower ones get too
            part = slice(start, start + self.recorder.most_samples)  # it may have shrunk again
            rest = replace(resume, seen=dict(resume.seen))
            self._piece(cut(inputs, part, n), cut(target, part, n), index, rest)
            start = part.stop

    def _measure(self, inputs: Any, target: Any, index: int, resume: _Resume) -> None:
        recorder, n = self.recorder, length(inputs)
        if n > 1 and not self.looked_for_shared:
            self._look_for_shared(inputs)
        if n == 1 and self.avoids_single:
            inputs, target = doubled(inputs), doubled(target)
        with recorder.recording():
            with _batchable_attention(self.chunk):
                raw = picked(self._call(inputs), self.output_fn)
            recorder.forwarding = False
            out = flat_outputs(raw, self.output, target, length(inputs))
            _check_finite(out, index)
            if not resume.started:
                slots = list(range(self.probes)) if self.over_probes else [index]
                recorder.start(n, slots, 1 if self.over_probes else self.probes or 1)
                resume.started = True
            self.outputs = out.shape[1]
            mask = output_mask(raw, self.output, inputs)
            root, total, seeds_of = self._plan(raw, out, n, mask, resume)
            self.backwards = total
            self._backward(root, total, seeds_of, index, resume, n)

    def _call(self, inputs: Any) -> Any:
        try:
            return call(self.model, inputs)
        except Exception as error:
            error.add_note(FORWARD_FAILED)
            raise

    def _plan(
        self, raw: Tensor, out: Tensor, samples: int, mask: Tensor | None, resume: _Resume
    ) -> tuple[Tensor, int, Callable[[list[int]], Tensor]]:
        """Where the backwards of a piece start, how many there are, and with what."""

        def of_samples(seeds: Tensor) -> Tensor:
            if mask is not None:
                seeds.mul_(mask)
            seeds[:, samples:] = 0  # copies
            return seeds

        if self.probes is not None:
            return out, self.probes, lambda lines: of_samples(_signs(out, len(lines), self.generator))
        last = self.recorder.last_call
        direct = self.output == "logits" and not self.recorder.centered and mask is None
        self.head = find_head(last, raw, out.shape[1], self.neglect, self.head) if direct else None
        if self.head is None:
            return out, out.shape[1], lambda lines: of_samples(_one_hot(out, lines))
        if not resume.identity:
            positions = out.shape[1] // self.head.outputs
            self.recorder.accumulators[self.head.lmap.name].add_identity(positions * samples)
            resume.identity = True
        h = last.inputs
        return h, self.head.lines(h), lambda lines: of_samples(self.head.seeds(h, lines))

    def _look_for_shared(self, inputs: Any) -> None:
        """Find maps that act on something all samples share: their gradients are no sample's own."""
        n, recorder = length(inputs), self.recorder

        def rows(part: slice) -> dict[str, int]:
            with recorder.recording():
                few = map_tensors(cut(inputs, part, n), torch.clone)  # the model may change its input
                return recorder.rows_of(lambda: self._call(few))

        first, second, both = rows(slice(0, 1)), rows(slice(1, 2)), rows(slice(0, 2))
        for m in recorder.maps:
            if first.get(m.name) and first[m.name] == second.get(m.name) == both.get(m.name):
                recorder.accumulators[m.name].partly = "it acts on something that all samples share"
        self.looked_for_shared = True

    def _backward(
        self,
        root: Tensor,
        total: int,
        seeds_of: Callable[[list[int]], Tensor],
        index: int,
        resume: _Resume,
        samples: int,
    ) -> None:
        """Send every output (or probe) of a piece back once; the recorder's hooks see the gradients."""
        recorder = self.recorder
        if not any(accumulator.called for accumulator in recorder.accumulators.values()):
            raise NfaError("no measured layer was called in the forward pass")
        if not root.requires_grad:
            raise NfaError("the output of the model does not depend on any measured layer")
        leaves = leaves_of(root) if recorder.active is None else recorder.ends
        for start in range(resume.line, total, self.chunk):
            lines = list(range(start, min(start + self.chunk, total)))
            seeds = seeds_of(lines)
            for name, accumulator in recorder.accumulators.items():
                accumulator.calls_of_line, accumulator.skip_calls = 0, resume.seen.pop(name, 0)
            recorder.lines, recorder.seeds = lines, seeds.flatten(2) if self.head is None else None
            try:
                if len(lines) == 1:
                    more = lines[-1] + 1 < total
                    torch.autograd.grad(root, leaves, seeds[0], retain_graph=more, allow_unused=True)
                else:
                    _batched_backward(root, leaves, seeds)
            except RuntimeError:
                resume.line = start
                seen = {name: a.calls_of_line + a.skip_calls for name, a in recorder.accumulators.items()}
                resume.seen = {name: calls for name, calls in seen.items() if calls}
                raise
            recorder.lines = []
            if self.passes == 0:
                self.watch.progress(self.samples + samples * (lines[-1] + 1) / total, total)
            if self.watch.stop():
                self.stopped = True
                if total - lines[-1] > _QUICK and self._drop(index):
                    return

    def _drop(self, index: int) -> bool:
        """Give up the piece under way and the replicate it belongs to, if others are left in every map."""
        accumulators = self.recorder.accumulators.values()
        if (
            self.over_probes
            or self.passes
            or self.recorder.centered
            or any(len(a.sums) < 2 for a in accumulators)
        ):
            return False
        for accumulator in accumulators:
            accumulator.drop(index)
        self.samples = min(sum(a.counts) for a in accumulators) // (self.probes or 1)
        self._abandoned = True
        return True


def _batched_backward(root: Tensor, leaves: list[Tensor], seeds: Tensor) -> None:
    def backward(seed: Tensor) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(root, leaves, seed, retain_graph=True, allow_unused=True)
        return tuple(seed.new_zeros(()) if g is None else g.new_zeros(()) for g in grads)

    torch.func.vmap(backward)(seeds)


def _batchable_attention(chunk: int) -> AbstractContextManager:
    """The fused kernels of attention have no backward for several seeds at once."""
    return sdpa_kernel(SDPBackend.MATH) if chunk > 1 else nullcontext()


def leaves_of(root: Tensor) -> list[Tensor]:
    """The tensors at which the graph of ``root`` begins: where maps were tapped, and a model's own."""
    leaves, seen, stack = [], set(), [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        stack.extend(following for following, _ in node.next_functions)
    return leaves


def _one_hot(out: Tensor, lines: list[int]) -> Tensor:
    seeds = out.new_zeros(len(lines), *out.shape)
    for position, line in enumerate(lines):
        seeds[position, :, line] = 1
    return seeds


def _signs(out: Tensor, count: int, generator: torch.Generator) -> Tensor:
    bits = torch.randint(0, 2, (count, *out.shape), generator=generator, dtype=torch.int8)
    return bits.to(out.device, out.dtype).mul_(2).sub_(1)


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on a GPU, or on the CPU, whose allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


# ---- checks and places ------------------------------------------------------------------------------------


def _check(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise NfaError(f"{name} must be at least 1, got {value}")


def _check_choices(output: str, probes: int | None, centered: bool, neglect: float) -> None:
    if output not in OUTPUTS:
        raise NfaError(f"output must be one of {', '.join(OUTPUTS)}, got {output!r}")
    if not 0 <= neglect < 1:
        raise NfaError(f"neglect must be a share in [0, 1), got {neglect}")
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
