"""Options of machines, each written once: a field of what it belongs to, and its default in the machine."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from nfa.checks import choice, known_options, plain
from nfa.errors import NfaError
from nfa.kernels import KERNELS, option_names
from nfa.machines.inner import FUNCTIONS, InnerProduct
from nfa.machines.kernel import Kernel
from nfa.machines.layer import Layer
from nfa.machines.points import Points
from nfa.machines.radial import Radial
from nfa.machines.system import Solver
from nfa.machines.update import Update
from nfa.machines.updates import UPDATES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from nfa.machines.machine import Machine

Part = TypeVar("Part", bound="DataclassInstance")


def signature_of(defaults: Mapping[str, Any], positional: int) -> inspect.Signature:
    """The signature of a machine with these options, of which the first ones may be given by position."""
    kinds = inspect.Parameter
    return inspect.Signature(
        [
            kinds(
                name,
                kinds.POSITIONAL_OR_KEYWORD if place < positional else kinds.KEYWORD_ONLY,
                default=default,
            )
            for place, (name, default) in enumerate(defaults.items())
        ]
    )


def reserve(machine: "type[Machine]") -> None:
    """Keep kernels from having an option that the machine would take in their place.

    Raises:
        NfaError: one of `KERNELS` has one already.
    """
    if "kernel" in machine.defaults:
        own = (name for name in machine.defaults if name != "bandwidth")
        KERNELS.reserve(machine.__name__, own, FUNCTIONS)


def bound(machine: "type[Machine]", values: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a machine, and under ``kernel_options`` those of the kernel that it takes.

    Raises:
        NfaError: an option that neither knows.
    """
    own = {name: value for name, value in given.items() if name in machine.defaults}
    rest = {name: value for name, value in given.items() if name not in own}
    known_options(rest, machine, option_names() if "kernel" in machine.defaults else ())
    found = machine.__signature__.bind(*values, **own)
    return {**machine.defaults, **found.arguments, "kernel_options": rest}


def chosen(part: type[Part], options: Mapping[str, Any], **others: Any) -> Part:
    """A part of a machine, a dataclass, from those of the options that are its fields."""
    own = {f.name: options[f.name] for f in fields(part) if f.name in options}
    return part(**{**own, **others})


def point_kernel(name: Any, bandwidth: Any = 1.0, kernel_options: Mapping[str, Any] | None = None) -> Points:
    """The kernel of points of a name; those of an inner product have no bandwidth and no options.

    Raises:
        NfaError: an unknown name, or options that the kernel does not have.
    """
    if not (isinstance(name, str) and name in FUNCTIONS):
        return Radial(name, bandwidth, dict(kernel_options or {}))
    if kernel_options:
        raise NfaError(f"the kernel {name!r} takes no options, got {next(iter(kernel_options))!r}")
    return InnerProduct(name)


def kernel_of(machine: "type[Machine]", options: Mapping[str, Any]) -> Points:
    """The kernel of points of the options of a machine.

    Raises:
        NfaError: a bandwidth, for a kernel that has none.
    """
    name, bandwidth = options["kernel"], options["bandwidth"]
    own = isinstance(bandwidth, int | float) and bandwidth == machine.defaults["bandwidth"]
    if isinstance(name, str) and name in FUNCTIONS and not own:
        raise NfaError(f"the kernel {name!r} has no bandwidth, got {bandwidth!r}: leave it out")
    return point_kernel(name, bandwidth, options["kernel_options"])


def update_of(options: Mapping[str, Any]) -> Update:
    """The update of the name ``learn``; the options of the others are checked as well."""
    updates = {name: chosen(update, options) for name, update in UPDATES.items()}
    return updates[choice("learn", options["learn"], updates)]


def layer_of(options: Mapping[str, Any], kernel: Kernel, **others: Any) -> Layer:
    """A layer with this kernel and the options of a machine."""
    update, solver = update_of(options), chosen(Solver, options)
    layer = chosen(Layer, options, kernel=kernel, update=update, solver=solver, **others)
    for name, value in update.without.items():
        if options.get(name, value) != value:
            raise NfaError(
                f"learn={update.name!r} has no use for {name}={options[name]!r}: leave it out, or choose "
                "'agop'"
            )
    return layer


def held(given: Mapping[str, Any], layer: Layer) -> dict[str, Any]:
    """The options of a machine as plain values: as its first layer holds them, else as they were given."""
    found = {name: plain(value) for name, value in given.items() if name not in ("device", "kernel_options")}
    for part in (layer.lift, layer, layer.update, layer.solver):
        own = () if part is None else fields(part)
        found |= {f.name: getattr(part, f.name) for f in own if f.name in found}
    return found | layer.kernel.options
