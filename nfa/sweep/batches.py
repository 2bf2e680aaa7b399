"""What goes into a model and what comes out: batches, inputs, targets, and the tensor of outputs."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from nfa.checks import told
from nfa.errors import NfaError
from nfa.sweep.returned import pick_tensor, words
from nfa.sweep.sources import tensors_in

Batch = Tensor | Sequence[object] | Mapping[str, object]
OutputFn = Callable[[object], object]  # to a tensor, which is checked
_OF_DTYPES = ("dtype", "scalar type", "not implemented for", "Input type", "should be the same")
_MISMATCHES = (
    *_OF_DTYPES, "cannot be multiplied", "size mismatch", "must match", "is invalid for input of size",
    "xpected", "positional argument", "keyword argument", "Dimension out of range", "too many indices",
    "normalized_shape", "shape mismatch", "index out of range",
)  # fmt: skip
OUTPUTS = ("logits", "softmax", "log_softmax", "loss")


def split(batch: Batch) -> tuple[object, object]:
    """(inputs, target) of a batch; inputs are a tensor, a tuple of arguments, or keyword arguments."""
    batch = tensors_in(batch)
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        named = {k: v for k, v in batch.items() if k not in ("labels", "label", "target")}
        targets = [v for k, v in batch.items() if k not in named]
        return named, targets[0] if targets else None
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes) and 1 <= len(batch) <= 2:
        inputs = batch[0]
        return tuple(inputs) if isinstance(inputs, list) else inputs, batch[1] if len(batch) == 2 else None
    raise NfaError(
        "a batch must be a tensor, a pair (inputs, target) or a dictionary of keyword arguments, "
        f"got {told(batch)}"
    )


def _tensors(inputs: object) -> list[Tensor]:
    values = (
        inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else [inputs]
    )
    return [v for v in values if isinstance(v, Tensor)]


def map_tensors(inputs: object, function: Callable[[Tensor], Tensor]) -> object:
    """Apply a function to every tensor of the inputs, whatever holds them."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {k: map_tensors(v, function) for k, v in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(map_tensors(v, function) for v in inputs)
    return inputs


def length(inputs: object) -> int:
    """Samples in the inputs of one batch."""
    tensors = _tensors(inputs)
    if not tensors or tensors[0].dim() == 0:
        raise NfaError(
            "a batch holds no tensor whose first dimension counts samples: its inputs are "
            f"{_describe(inputs)}"
        )
    return tensors[0].shape[0]


class Replayable:
    """Batches of which the first was looked at, none of them used up; the source is read again afterwards.

    Attributes:
        first: the first batch that has samples.
        read_once: whether the source gives its batches only once.

    Raises:
        NfaError: there are no samples.
    """

    def __init__(self, source: Iterable[Batch]):
        self.source, self.read_once = source, isinstance(source, Iterator)
        rest = iter(source)
        first = next((batch for batch in rest if length(split(batch)[0])), None)
        if first is None:
            raise NfaError("no samples to measure on: the batches are empty")
        self.first = first
        self._rest: Iterator[Batch] | None = rest

    def __iter__(self) -> Iterator[Batch]:
        rest, self._rest = self._rest, None
        return iter(self.source) if rest is None else itertools.chain([self.first], rest)


def replayable(batches: Iterable[Batch]) -> Replayable:
    """Batches wrapped once: what is wrapped already stays."""
    return batches if isinstance(batches, Replayable) else Replayable(batches)


def doubled(inputs: object) -> object:
    """One sample twice."""
    return map_tensors(inputs, lambda t: torch.cat([t, t]) if t.dim() and len(t) == 1 else t)


def changed(inputs: object) -> object:
    """Other inputs of the same kind: floats moved by noise, token ids shifted along the sequence."""
    change = _change_of(torch.Generator().manual_seed(0))
    return map_tensors(inputs, change)


def beside_another(inputs: object) -> object:
    """One sample, and another that is made up after it."""
    change = _change_of(torch.Generator().manual_seed(0))
    return map_tensors(inputs, lambda t: torch.cat([t, change(t)]) if t.dim() and len(t) == 1 else t)


def _change_of(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    def change(t: Tensor) -> Tensor:
        if t.is_floating_point():
            return t + torch.randn(t.shape, generator=generator).to(t)
        return t.roll(1, -1) if t.dim() > 1 else t

    return change


def chosen(value: object, index: Sequence[int], samples: int) -> object:
    """The entries of the samples at some indices, as `cut` takes those of a part."""
    if isinstance(value, Tensor):
        return value[list(index)] if value.dim() and len(value) == samples else value
    if isinstance(value, Mapping):
        return {k: chosen(v, index, samples) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(chosen(v, index, samples) for v in value)
    return [value[i] for i in index] if isinstance(value, list) and len(value) == samples else value


def limited(batches: Iterable[Batch], max_samples: int | None) -> Iterator[tuple[object, object]]:
    """Pairs (inputs, target) until ``max_samples`` samples have come; empty batches are passed over."""
    left = math.inf if max_samples is None else max_samples
    for batch in batches:
        inputs, target = split(batch)
        n = length(inputs)
        if n > left:
            inputs, target = cut(inputs, slice(int(left)), n), cut(target, slice(int(left)), n)
        if n:
            yield inputs, target
        left -= n
        if left <= 0:
            return


def pieces(inputs: object, target: object, size: Callable[[], int | None]) -> Iterator[tuple[object, object]]:
    """A batch in pieces of at most ``size()`` samples, asked for before each piece; None means the rest."""
    n, start = length(inputs), 0
    while start < n:
        stop = n if (limit := size()) is None else min(start + limit, n)
        if stop - start == n:
            yield inputs, target
        else:
            part = slice(start, stop)
            yield cut(inputs, part, n), cut(target, part, n)
        start = stop


def cut(value: object, part: slice, samples: int) -> object:
    """The part of whatever has one entry a sample; what is shared by all samples stays whole."""
    if isinstance(value, Tensor):
        return value[part] if value.dim() and len(value) == samples else value
    if isinstance(value, Mapping):
        return {k: cut(v, part, samples) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(cut(v, part, samples) for v in value)
    return value[part] if isinstance(value, list) and len(value) == samples else value


def prepare(model: nn.Module, inputs: object, device: torch.device) -> object:
    """Inputs on the device, in the model's dtype, usable by autograd, and checked to be finite."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)

    def ready(t: Tensor) -> Tensor:
        if t.layout != torch.strided or t.device.type == "meta":
            advice = "on the device 'meta', which has no values" if t.is_meta else "sparse: .to_dense() them"
            raise NfaError(f"the inputs must be dense tensors with values, got {_describe(t)}, {advice}")
        t = t.detach().to(device)
        if t.is_floating_point():
            if bool(torch.isnan(t).any()):  # infinities have their place in attention masks
                raise NfaError("the inputs have values that are not finite (NaN)")
            t = t.to(dtype or t.dtype)
        return t.clone()  # the model may begin with an in-place operation; inference tensors are no leaves

    return map_tensors(inputs, ready)


def call(model: nn.Module, inputs: object) -> object:
    """Call the model with a tensor, a tuple of arguments, or keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def understood(model: nn.Module, inputs: object) -> object:
    """What `call` returns.

    Raises:
        NfaError: the model cannot take these inputs, or cannot be differentiated, and its error tells why.
    """
    try:
        return call(model, inputs)
    except (NfaError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = _known_reason(error, inputs)
        if reason is None:
            raise
        raise NfaError(reason) from error


def _known_reason(error: Exception, inputs: object) -> str | None:
    """What is wrong and what to do, where the error of a forward pass tells it."""
    if "nference tensor" in str(error):
        return (
            "the network uses tensors made under torch.inference_mode that are neither parameters nor "
            "buffers: make them outside of it"
        )
    first = " ".join(str(error).split("\n")[0].split())[:160]
    mismatch = any(words in first for words in _MISMATCHES) or "forward()" in first
    if not mismatch:
        return None
    advice = ""
    if any(not t.is_floating_point() for t in _tensors(inputs)) and any(w in first for w in _OF_DTYPES):
        advice = ": pass floating inputs, x.float()"
    if "is invalid for input of size" in first:
        advice = ": if its batch size is fixed, x.flatten(1) or x.view(len(x), -1) sets it free"
    return f"the network cannot take the inputs {_describe(inputs)} ({first}){advice}"


def picked(raw: object, output_fn: OutputFn | None) -> Tensor:
    """The tensor of outputs in what a model returned."""
    if output_fn is None:
        return pick_tensor(raw)
    out = output_fn(raw)
    if not isinstance(out, Tensor) or not out.is_floating_point():
        raise NfaError(f"output_fn must return one floating tensor, got {_describe(out)} from {words(raw)}")
    return out


def output_mask(out: Tensor, output: str, inputs: object) -> Tensor | None:
    """1 for the outputs of tokens that count, 0 for those of padding, (samples, k); None where all count.

    Outputs (samples, tokens, …), or losses (samples, tokens), of inputs with an ``attention_mask``.
    """
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor) or out.dim() < 3 or mask.shape != out.shape[:2]:
        return None
    if output in ("softmax", "log_softmax") or bool(mask.all()):
        return None
    each = mask.to(out.device, out.dtype)
    if output == "loss":
        return each
    return each.reshape(*mask.shape, *[1] * (out.dim() - 2)).expand_as(out).reshape(len(out), -1)


def flat_outputs(out: Tensor, output: str, target: object, samples: int) -> Tensor:
    """Outputs as (samples, k)."""
    if out.dim() == 0 or out.shape[0] != samples:
        raise NfaError(
            f"the first dimension of the outputs must count the {samples} samples of the batch, "
            f"got shape {tuple(out.shape)}; where another axis of the inputs counts them, name it with "
            "batch_dim= (--batch-dim); pass output_fn="
        )
    if output in ("softmax", "log_softmax"):
        if out.dim() != 2 or out.shape[1] < 2:
            raise NfaError(
                f"output={output!r} is for (samples, classes) outputs, got {tuple(out.shape)}; "
                "pass output_fn="
            )
        out = out.softmax(1) if output == "softmax" else out.log_softmax(1)
    elif output == "loss":
        out = _loss(out, target)
    return out.reshape(samples, -1)


def _loss(out: Tensor, target: object) -> Tensor:
    """Loss of each sample (n, …): cross-entropy for integer targets, else the mean squared error."""
    if not isinstance(target, Tensor):
        raise NfaError("output='loss' needs batches of pairs (inputs, target)")
    target = target.to(out.device, copy=True)  # it may be an inference tensor
    if target.is_floating_point():
        return (out - target.reshape(out.shape)).square().flatten(1).mean(1)
    if target.shape == out.shape[:-1] and out.shape[-1] > 1:  # classes last, as in language models
        return nn.functional.cross_entropy(out.movedim(-1, 1), target.long(), reduction="none")
    if target.shape == out.shape[:1] + out.shape[2:] and out.shape[1] > 1:  # classes second, as in images
        return nn.functional.cross_entropy(out, target.long(), reduction="none")
    raise NfaError(
        f"output='loss' needs one class index for each position of outputs {tuple(out.shape)}, "
        f"got targets {tuple(target.shape)}"
    )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_describe(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_describe, value))})"
    return told(value)
