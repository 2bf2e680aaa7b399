"""The state of one sweep: batches in pieces, a forward for each piece, and one backward after another."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nfa.device import out_of_memory, release
from nfa.errors import NfaError
from nfa.sweep.batches import (
    Batch,
    OutputFn,
    beside_another,
    call,
    chosen,
    cut,
    doubled,
    flat_outputs,
    length,
    limited,
    map_tensors,
    output_mask,
    picked,
    pieces,
    prepare,
    understood,
)
from nfa.sweep.interaction import noise
from nfa.sweep.observer import Observer, Sweep
from nfa.sweep.seeds import Start, laid_out, one_hot, signs
from nfa.sweep.taps import Recorder
from nfa.sweep.through_head import Head, find_head
from nfa.sweep.under_way import Backward, Forward
from nfa.sweep.unit_length import of_length_one

FORWARD_FAILED = "raised by the network in its forward pass, while it was measured"
_REENTRANT = (
    "the network runs parts of it again in the backward pass (checkpoints with use_reentrant=True), so that "
    "gradients cannot be had one output at a time: use use_reentrant=False, or no checkpoints"
)
_QUICK = 16  # backwards worth finishing when asked to stop
_PAIRS = ((0,), (1,)), ((0, 1), (2, 3)), ((0, 0), (1, 1))  # samples to compare, at best one by one


@dataclass
class _Resume:
    """Where a piece goes on whose memory ran out: backwards done, and gradients seen in the one under way."""

    line: int = 0
    added: dict[str, int] = field(default_factory=dict)
    started: bool = False
    identity: bool = False  # of the head, added with the first backward

    def note_start(self) -> None:
        """The samples are announced."""
        self.started = True

    def note_identity(self) -> None:
        """The head has what all outputs bring it."""
        self.identity = True

    def fail(self, line: int, backward: Backward) -> None:
        """Memory ran out in a backward whose first line this is."""
        self.line, self.added = line, backward.added()

    def again(self) -> dict[str, int]:
        """Gradients that come again in the first backward from here."""
        added, self.added = self.added, {}
        return added

    def copy(self) -> "_Resume":
        """For a part of the samples."""
        return replace(self, added=dict(self.added))


class _Alone(Exception):
    """The network does not take one sample alone."""

    def __init__(self, reason: NfaError):
        super().__init__(str(reason))
        self.reason = reason


@dataclass
class Measurement:
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
    watch: Observer
    samples: int = 0
    outputs: int = 0
    backwards: int = 0
    stopped: bool = False
    head: Head | None = None
    passes_done: int = 0
    seen: int = 0  # samples of the pass under way
    looked: bool = False
    noise: float = 0.0  # of the outputs, from call to call
    unit_length: bool = False  # of the outputs
    whole: object = None  # the inputs of the batch of which a piece is measured
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
            self.noise,
            self.unit_length,
        )

    def measure_all(self, batches: Iterable[Batch], max_samples: int | None) -> None:
        """Measure all batches, and once more while the watch wants it."""
        while True:
            index, self.seen = -1, 0
            for index, batch in enumerate(limited(batches, max_samples)):
                self._measure_batch(index, *batch)
                if self.stopped or (self.passes_done == 0 and self.watch.enough(self.sweep, self.samples)):
                    return
            again = self.watch.again(self.sweep) if self.probes is not None and index >= 0 else None
            if again is None:
                return
            self.passes_done += 1
            self.probes = again.probes
            self.recorder.measure_only(again.layers)
            self.most_probes = (self.most_probes or 0) + again.probes

    def _measure_batch(self, index: int, inputs: object, target: object) -> None:
        """Measure one batch, in pieces."""
        self.whole = inputs
        for part, part_target in pieces(inputs, target, self.recorder.piece_size):
            part = prepare(self.model, part, self.recorder.device)
            if isinstance(part_target, Tensor):
                part_target = part_target.to(self.recorder.device)
            n = length(part)
            self._piece(part, part_target, index, _Resume())
            if self.stopped and self._abandoned:
                return
            self.samples += n if self.passes_done == 0 else 0
            self.seen += n
            if self.stopped:
                return

    def _piece(self, inputs: object, target: object, index: int, resume: _Resume) -> None:
        """Forward and all backwards of some samples; of half as many at a time where memory runs out."""
        n = length(inputs)
        try:
            self._measure(inputs, target, index, resume)
            return
        except _Alone as alone:
            self.avoids_single = True
            try:
                self._measure(inputs, target, index, resume)
                return
            except NfaError:
                raise alone.reason from None
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if n == 1:
                raise NfaError(
                    f"out of memory with one sample at a time on {self.recorder.device}: take smaller "
                    "inputs, fewer layers, or another device"
                ) from None
        # Only here, outside of the handler, is the failed graph free.
        release(self.recorder.device)
        self.recorder.halve(n)
        start = 0
        while start < n and not self._abandoned:  # what upper layers have of some samples, lower ones get too
            part = slice(start, start + (self.recorder.most_samples or n))  # it may have shrunk again
            self._piece(cut(inputs, part, n), cut(target, part, n), index, resume.copy())
            start = part.stop

    def _measure(self, inputs: object, target: object, index: int, resume: _Resume) -> None:
        recorder, n = self.recorder, length(inputs)
        if not self.looked:
            try:
                self._look()
            except RuntimeError as error:
                if n > 1 or not out_of_memory(error):  # it is two samples that do not fit, or four
                    raise
        if n == 1 and self.avoids_single:
            inputs, target = doubled(inputs), doubled(target)
        with recorder.recording() as forward:
            raw, out = self._outputs(inputs, target)
            forward.end()
            _check_finite(out, index)
            if not resume.started:
                if self.over_probes and self.probes is not None:
                    recorder.start(forward, n, list(range(self.probes)), 1)
                else:
                    recorder.start(forward, n, [index], self.probes or 1)
                resume.note_start()
            self.outputs = out.shape[1]
            mask = output_mask(raw, self.output, inputs)
            start = self._plan(forward, raw, out, n, mask, resume)
            self.backwards = start.total
            self._send_back(forward, start, index, resume, n, raw)

    def _outputs(self, inputs: object, target: object) -> tuple[Tensor, Tensor]:
        """What the network returns for a piece, as it is and as (samples, k)."""
        try:
            with _batchable_attention(self.chunk):
                raw = picked(self._call(inputs), self.output_fn)
            return raw, flat_outputs(raw, self.output, target, length(inputs))
        except NfaError as error:
            if length(inputs) == 1 and not self.avoids_single:  # squeeze() takes its axis away
                raise _Alone(error) from None
            raise

    def _call(self, inputs: object) -> object:
        try:
            return understood(self.model, inputs)
        except Exception as error:
            self._check_batch_size(inputs, error)
            if not isinstance(error, NfaError):
                error.add_note(FORWARD_FAILED)
            raise

    def _check_batch_size(self, inputs: object, error: Exception) -> None:
        """Say so where the network takes a whole batch, and failed with a part of it."""
        n, size = length(inputs), length(self.whole)
        if n in (1, size) or out_of_memory(error):  # one alone is given up first
            return
        try:
            call(self.model, prepare(self.model, self.whole, self.recorder.device))
        except Exception:
            return
        raise NfaError(
            f"the network takes the {size} samples of a batch together and not {n} of them "
            f"({str(error).splitlines()[0][:160]}): let its forward keep the first dimension of its inputs, "
            f"x.flatten(1) in the place of x.view({size}, -1); the nodes of one graph are no samples"
        ) from error

    def _plan(
        self,
        forward: Forward,
        raw: Tensor,
        out: Tensor,
        samples: int,
        mask: Tensor | None,
        resume: _Resume,
    ) -> Start:

        def of_samples(seeds: Tensor) -> Tensor:
            if mask is not None:
                seeds.mul_(mask)
            seeds[:, samples:] = 0  # copies
            return seeds

        if self.probes is not None:
            draw = partial(signs, out, generator=self.generator)
            return Start(out, self.probes, lambda lines: of_samples(draw(len(lines))), True)
        last = forward.last_call
        direct = self.output == "logits" and not self.recorder.centered and mask is None
        head = find_head(last, raw, out.shape[1], self.neglect, self.head) if direct else None
        self.head = head
        if last is None or head is None:
            return Start(out, out.shape[1], lambda lines: of_samples(one_hot(out, lines)), True)
        if not resume.identity:
            positions = out.shape[1] // head.outputs
            self.recorder.accumulators[head.lmap.name].add_identity(positions * samples)
            resume.note_identity()
        h = last.inputs
        return Start(h, head.lines(h), lambda lines: of_samples(head.seeds(h, lines)), False)

    def _look(self) -> None:
        """Compare what the first samples give alone and together.

        Raises:
            NfaError: the samples interact.
        """
        self.looked, size = True, length(self.whole)
        made_up = size == 1
        inputs = beside_another(self.whole) if made_up else cut(self.whole, slice(4), size)
        inputs = prepare(self.model, inputs, self.recorder.device)
        n = length(inputs)
        for samples in _PAIRS[0], _PAIRS[1 if n == 4 else 2]:

            def of(*which: int, samples: tuple = samples) -> object:
                return chosen(inputs, [i for w in which for i in samples[w]], n)

            k, last = len(samples[0]), samples is not _PAIRS[0]
            try:
                (first, a), (second, b), (both, ab) = (self._seen(of(*w)) for w in ((0,), (1,), (0, 1)))
                for out, count in ((a, k), (b, k), (ab, 2 * k)):
                    flat_outputs(out, "logits", None, count)
            except Exception as error:
                if out_of_memory(error) and not made_up:
                    raise
                if last and (made_up or (n < 4 and isinstance(error, NfaError))):
                    return  # a sample that the network was never given, or more than it was
                if last:
                    raise
                self.avoids_single |= not made_up  # it does not take one sample alone
                continue
            break
        self._skip_shared(first, second, both)
        self.unit_length = of_length_one(ab)
        self.noise = noise(self.model, lambda x: self._seen(x)[1], of, a, b, ab)
        if self.noise:
            torch.manual_seed(self.seed)

    def _seen(self, inputs: object) -> tuple[dict[str, int], Tensor]:
        """How many vectors each map acts on in a forward pass, and the outputs."""
        with self.recorder.recording() as forward:
            raw = self._call(map_tensors(inputs, torch.clone))  # the model may change its input
            out = picked(raw, self.output_fn).detach()
        return forward.rows, out

    def _skip_shared(self, first: dict[str, int], second: dict[str, int], both: dict[str, int]) -> None:
        """Leave out maps that act on something all samples share: their gradients are no sample's own."""
        for m in self.recorder.maps:
            if first.get(m.name) and first[m.name] == second.get(m.name) == both.get(m.name):
                self.recorder.accumulators[m.name].leave_out("it acts on something that all samples share")

    def _send_back(
        self, forward: Forward, start: Start, index: int, resume: _Resume, samples: int, raw: Tensor
    ) -> None:
        """Send every output (or probe) of a piece back once; the recorder's hooks see the gradients."""
        recorder = self.recorder
        if not any(accumulator.called for accumulator in recorder.accumulators.values()):
            raise NfaError("no measured layer was called in the forward pass")
        if not start.root.requires_grad:
            raise NfaError("the output of the model does not depend on any measured layer")
        leaves = leaves_of(start.root) if recorder.active is None else forward.ends
        for first in range(resume.line, start.total, self.chunk):
            lines = list(range(first, min(first + self.chunk, start.total)))
            seeds = start.seeds(lines)
            backward = Backward(lines, laid_out(seeds, raw) if start.at_outputs else None, resume.again())
            forward.begin(backward)
            try:
                if len(lines) == 1:
                    more = lines[-1] + 1 < start.total
                    torch.autograd.grad(start.root, leaves, seeds[0], retain_graph=more, allow_unused=True)
                else:
                    _batched_backward(start.root, leaves, seeds)
            except RuntimeError as error:
                resume.fail(first, backward)
                if "use_reentrant" in str(error):
                    raise NfaError(_REENTRANT) from error
                raise
            forward.finish()
            if self._ends_after(lines[-1] + 1, start.total, samples, index):
                return

    def _ends_after(self, lines: int, total: int, samples: int, index: int) -> bool:
        """Tell the observer of backwards done; whether the rest of them is given up."""
        done = self.seen + samples * lines / total
        if self.passes_done == 0:
            self.watch.progress(done, total)
        else:
            self.watch.further(self.passes_done + 1, done, total)
        if not self.watch.stop():
            return False
        self.stopped = True
        return total - lines + 1 > _QUICK and self._drop(index)

    def _drop(self, index: int) -> bool:
        """Give up the piece under way and the replicate it belongs to, if others are left in every map."""
        accumulators = self.recorder.accumulators.values()
        if (
            self.over_probes
            or self.passes_done
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


def _check_finite(out: Tensor, index: int) -> None:
    if not bool(torch.isfinite(out).all()):
        raise NfaError(f"the model's outputs on batch {index} are not finite (NaN or infinity)")
