"""The first call of a network, before hours of work: whether it takes the inputs, else what is wrong."""

import torch
from torch import Tensor, nn

from nfa.errors import NfaError
from nfa.inputs import Inputs
from nfa.layers.maps import LinearMap, find_maps, has_unbuilt
from nfa.sweep.batch_axis import BatchAxis
from nfa.sweep.batches import (
    OutputFn,
    call,
    changed,
    cut,
    doubled,
    length,
    map_tensors,
    picked,
    prepare,
    split,
)
from nfa.sweep.measure import device_of
from nfa.sweep.untouched import untouched

_BATCHES = (1, 4, 8, 10, 16, 32, 64)  # samples, that a network may be fixed to
_IMAGES = {"conv1d": 3, "conv2d": 4, "conv3d": 5}  # dimensions of a batch


def check_call(model: nn.Module, inputs: Inputs, output_fn: OutputFn, batch_dim: int = 0) -> None:
    """Call a network with two samples, other values of them, and one alone.

    Args:
        model: the network; left as it was.
        inputs: its samples.
        output_fn: picks the tensor of outputs.
        batch_dim: axis of the samples in the inputs.

    Raises:
        NfaError: it cannot be called with them, its outputs do not hang on them, or do not have one entry a
            sample however many there are.
    """
    batch = next(iter(inputs))
    if batch_dim == 0:
        _check_call(model, split(batch)[0], output_fn)
        return
    axis = BatchAxis(batch_dim)
    x, _ = split(axis.first(batch))
    with axis.turning(model):
        _check_call(model, x, axis.outputs(output_fn))


def _check_call(model: nn.Module, x: object, output_fn: OutputFn) -> None:
    two = doubled(cut(x, slice(2), length(x)))
    one = cut(two, slice(1), 2)
    with untouched(model), torch.no_grad():
        try:
            outputs, other = (_outputs(model, v, output_fn) for v in (two, changed(two)))
        except NfaError:
            raise
        except Exception as error:
            raise NfaError(_why_not(model, two, error)) from None
        alone = _outputs_alone(model, one, output_fn)
    if torch.equal(outputs, other):
        raise NfaError(
            "the network's output does not depend on its input: other inputs, the very same outputs"
        )
    _check_rows(outputs, alone)


def _outputs(model: nn.Module, x: object, output_fn: OutputFn) -> Tensor:
    return picked(call(model, prepare(model, x, device_of(model))), output_fn)


def _outputs_alone(model: nn.Module, one: object, output_fn: OutputFn) -> Tensor:
    try:
        return _outputs(model, one, output_fn)
    except Exception as error:
        raise NfaError(
            f"the network takes two samples and not one alone ({_line(error)}): let its forward keep the "
            "first dimension of its inputs, whatever its length"
        ) from None


def _check_rows(outputs: Tensor, alone: Tensor) -> None:
    """Two samples have two rows of outputs, one has one."""
    if outputs.dim() and len(outputs) == 2 and outputs.shape[1:] == alone.shape and alone.shape[:1] != (1,):
        raise NfaError(
            f"the network loses the axis of samples where there is one sample alone: outputs of shape "
            f"{tuple(outputs.shape)} for two and {tuple(alone.shape)} for one. Instead of squeeze() name the "
            "axis, squeeze(-1), or use flatten(1)"
        )
    for samples, out in ((2, outputs), (1, alone)):
        if out.dim() == 0 or len(out) != samples:
            raise NfaError(
                f"expected outputs whose first dimension counts samples, got shape {tuple(out.shape)} for "
                f"{samples} sample{'s' if samples > 1 else ''}"
            )


# ---- what is wrong ----------------------------------------------------------------------------------------


def _why_not(model: nn.Module, two: object, error: Exception) -> str:
    """Why a network cannot be called with two samples, in a sentence that says what to do."""
    shape, one = _shapes(two), cut(two, slice(1), 2)
    if _holds(two, floating=False) and _works(model, map_tensors(two, Tensor.float)):
        return f"the network takes floats, the data holds integers of shape {shape}: save them as float32"
    if _holds(two, floating=True) and _works(model, map_tensors(two, _ids)):
        return (
            f"the network takes integers, such as token ids, the data holds floats of shape {shape}: save "
            "them as int64"
        )
    fixed = next((n for n in _BATCHES if _works(model, _repeated(one, n))), None)
    if fixed is not None:
        return (
            f"the network takes {fixed} sample{'s' if fixed > 1 else ''} at a time and no other number: let "
            "its forward keep the first dimension of its inputs, x.flatten(1) or x.view(len(x), -1)"
        )
    return _misfit(model, two) or (
        f"the network cannot be called with inputs of shape {shape} ({_line(error)}): give it data it is "
        "made for, or another --size"
    )


def _misfit(model: nn.Module, x: object) -> str | None:
    """Where the inputs do not have the channels, or the length, that the first layer takes."""
    first = None if has_unbuilt(model) else _first_map(model)
    if first is None or not isinstance(x, Tensor):
        return None
    takes = getattr(first.module, "in_channels", None)
    if first.kind in _IMAGES and takes:
        if x.dim() != _IMAGES[first.kind]:
            return (
                f"the first layer ({first.name}, {first.kind}) takes inputs of {_IMAGES[first.kind] - 1} "
                f"dimensions, channels first, got {_shapes(x)}: give data of that shape"
            )
        if x.shape[1] == takes:
            return None
        last = x.shape[-1] == takes
        advice = "channels come first, transpose the data" if last else "give data, or a network, of as many"
        return (
            f"the first layer ({first.name}, {first.kind}) takes {takes} channel{'s' if takes > 1 else ''}, "
            f"the inputs of shape {_shapes(x)} have {x.shape[1]}: {advice}"
        )
    if first.kind == "linear" and x.is_floating_point() and x.shape[-1] != first.in_features:
        whole = x[0].numel() == first.in_features
        advice = (
            f"reshape them to ({x[0].numel()},)" if whole else "give data of that size, or another --size"
        )
        return (
            f"the first layer ({first.name}) takes vectors of {first.in_features} numbers, the inputs have "
            f"shape {_shapes(x)}: {advice}"
        )
    return None


def _first_map(model: nn.Module) -> LinearMap | None:
    try:
        return next(iter(find_maps(model)[0]), None)
    except NfaError:
        return None


def _works(model: nn.Module, x: object) -> bool:
    try:
        call(model, prepare(model, x, device_of(model)))
    except Exception:
        return False
    return True


def _holds(x: object, *, floating: bool) -> bool:
    """Whether there is a tensor of one kind and none of the other."""
    kinds: set[bool] = set()

    def note(t: Tensor) -> Tensor:
        kinds.add(t.is_floating_point())
        return t

    map_tensors(x, note)
    return kinds == {floating}


def _ids(t: Tensor) -> Tensor:
    return torch.zeros_like(t, dtype=torch.int64)  # the first entry of a table is there whatever its length


def _repeated(one: object, samples: int) -> object:
    """One sample many times."""
    return map_tensors(one, lambda t: t.expand(samples, *t.shape[1:]) if t.dim() and len(t) == 1 else t)


def _shapes(x: object) -> str:
    """Of one sample."""
    if isinstance(x, Tensor):
        return str(tuple(x.shape[1:]))
    named = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, tuple) else ()
    return ", ".join(f"{k} {tuple(v.shape[1:])}" for k, v in named if isinstance(v, Tensor))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
