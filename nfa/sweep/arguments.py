"""What `nfa.audit`, `nfa.agop` and `nfa.input_agop` are given, checked before anything else is done."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from nfa.checks import (
    choice,
    device_of_name,
    flag,
    known_options,
    memory_of,
    network_of,
    number,
    positive,
    seed_of,
    told,
    whole,
    whole_or_none,
)
from nfa.errors import NfaError
from nfa.sweep.batches import OUTPUTS, Batch
from nfa.sweep.observer import Observer
from nfa.sweep.options import AuditOptions, MeasureOptions
from nfa.sweep.sources import is_array, is_datamodule, loader_of, loader_of_datamodule, tensors_in

_MESSAGE = (
    "batches must be a tensor or an array of samples, or a DataLoader, a dataset, a datamodule, a list or a "
    "generator of batches, got"
)
_SWEEP: dict[str, Callable[[object], object]] = {
    "output": lambda value: choice("output", value, OUTPUTS),
    "output_fn": lambda value: _output_fn(value),
    "neglect": lambda value: number("neglect", value, lambda x: 0 <= x < 1, "a share in [0, 1)"),
    "chunk": lambda value: whole("chunk", value, 1),
    "max_samples": lambda value: whole_or_none("max_samples", value, 1),
    "centered": lambda value: flag("centered", value),
    "replicates_over": lambda value: choice("replicates_over", value, ("auto", "batches", "probes")),
    "seed": seed_of,
    "device": device_of_name,
    "piece_limit": lambda value: whole_or_none("piece_limit", value, 1),
}
_AUDIT: dict[str, Callable[[object], object]] = {
    "probes": lambda value: whole_or_none("probes", value, 1),
    "replicates": lambda value: whole("replicates", value, 1),
    "watch": lambda value: _observer(value),
    "power": lambda value: positive("power", value),
    "nulls": lambda value: whole("nulls", value),
    "tolerance": lambda value: None if value is None else _tolerance(value),
    "drift": lambda value: flag("drift", value),
    "per_head": lambda value: flag("per_head", value),
    "memory": memory_of,
    "distributed": lambda value: flag("distributed", value),
}


def checked(options: Mapping[str, object]) -> MeasureOptions:
    """Options of a measurement as plain values; those of others stay as they are.

    Raises:
        NfaError: one is of a wrong type or out of range.
    """
    checks = _SWEEP | _AUDIT
    plain = {name: checks[name](value) if name in checks else value for name, value in options.items()}
    return cast(MeasureOptions, plain)


def checked_sweep(given: Mapping[str, object], of: Callable) -> MeasureOptions:
    """Options of a measurement that is no audit, for a function of the library.

    Raises:
        NfaError: one is unknown, of a wrong type or out of range, or they do not go together.
    """
    known_options(given, of, MeasureOptions.__annotations__)
    options = checked(given)
    check_combinations(options)
    return options


def checked_of_audit(options: Mapping[str, object]) -> AuditOptions:
    """Options of an audit alone as plain values; all of them must be there.

    Raises:
        NfaError: one is of a wrong type or out of range.
    """
    plain: dict[str, Any] = {name: _AUDIT[name](value) for name, value in options.items()}
    return AuditOptions(**plain)


def measurable(model: object) -> nn.Module:
    """A network whose weights hold values and whose forward can be watched."""
    model = network_of(model)
    if not all(hasattr(module, "training") for module in model.modules()):
        raise NfaError(
            "the network is a frozen script (torch.jit.freeze), which has no weights: measure it before that"
        )
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise NfaError("DataParallel works on copies of the network, one a GPU: pass its .module")
    if any(t.device.type == "meta" for t in (*model.parameters(), *model.buffers()) if not is_lazy(t)):
        raise NfaError(
            "the network is on the device 'meta', where weights have no values: make it with "
            ".to_empty(device='cpu') and load its weights"
        )
    return model


def batches_of(batches: object) -> Iterable[Batch]:
    """Batches to go through: a tensor or an array is one, a data set gives them in order.

    Raises:
        NfaError: something that holds no batches.
    """
    if is_array(batches):
        batches = tensors_in(batches)
    if isinstance(batches, Tensor):
        return [batches]
    if isinstance(batches, Dataset):
        return loader_of(batches)
    if is_datamodule(batches):
        return batches_of(loader_of_datamodule(batches))
    if isinstance(batches, Mapping):
        raise NfaError(f"{_MESSAGE} a dictionary: one batch of keyword arguments is given as a list, [batch]")
    if isinstance(batches, str | bytes | os.PathLike):
        raise NfaError(
            f"{_MESSAGE} {batches!r}: load the data first; `nfa audit` on the command line takes paths"
        )
    if hasattr(batches, "__array__"):
        raise NfaError(f"{_MESSAGE} {told(batches)}: its numbers as an array, such as .to_numpy(), will do")
    if isinstance(batches, nn.Module | type) or not isinstance(batches, Iterable):
        raise NfaError(f"{_MESSAGE} {told(batches)}")
    pair = tensors_in(batches) if isinstance(batches, tuple) and len(batches) == 2 else ()
    if all(isinstance(b, Tensor) for b in pair) and [b.is_floating_point() for b in pair] == [True, False]:
        raise NfaError("batches is a pair (inputs, targets); pass a list of such pairs: [(inputs, targets)]")
    return batches


def check_initial_state(initial_state: object) -> None:
    """Refuse what is neither a state dict nor, as the caller has seen, a report."""
    if isinstance(initial_state, Mapping) and all(isinstance(key, str) for key in initial_state):
        return
    advice = "torch.load(…) or safetensors.torch.load_file(…) reads one"
    if isinstance(initial_state, nn.Module):
        advice = "take its .state_dict()"
    raise NfaError(
        "initial_state must be the state dict at initialisation, or the report of an audit made then, got "
        f"{told(initial_state)}: {advice}"
    )


def check_combinations(options: Mapping[str, object]) -> None:
    """Refuse options that do not go together."""
    centered, probes = options.get("centered"), options.get("probes")
    distributed, tolerance = options.get("distributed"), options.get("tolerance")
    if centered and probes is not None:
        raise NfaError(
            "centered=True needs the mean gradient of every output: use the exact mode (probes=None)"
        )
    if distributed and centered:
        raise NfaError("centered=True cannot be measured over several processes")
    if tolerance is None:
        return
    if probes is not None:
        raise NfaError("give either probes or a tolerance, which chooses the probes itself")
    if distributed or centered:
        raise NfaError("a tolerance goes neither with distributed nor with centered=True")


def _output_fn(value: object) -> object:
    if value is None or callable(value):
        return value
    raise NfaError(f"output_fn must be a function of what the network returns, got {told(value)}")


def _observer(value: object) -> Observer:
    if value is None:
        return Observer()
    if isinstance(value, Observer):
        return value
    raise NfaError(f"watch must be an nfa.sweep.observer.Observer, got {told(value)}")


def _tolerance(value: object) -> float:
    return number("tolerance", value, lambda x: 0 < x < 1, "a standard error between 0 and 1")
