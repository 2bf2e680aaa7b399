"""Signatures that are made while the library is imported, for the pages of the API.

Machines take the options of their parts, and measurements those of the batch axis: where the source has
``*values, **options``, the pages show what a caller sees.
"""

import importlib
import inspect
from dataclasses import MISSING, fields
from typing import Any

import griffe

from nfa.kernels.conv import ConvKernel
from nfa.machines.layer import Layer
from nfa.machines.radial import Radial
from nfa.machines.random_features import RandomFeatures
from nfa.machines.random_filters import ConvFeatures
from nfa.machines.system import Solver
from nfa.machines.update import Agop

_PARTS = (Layer, Agop, Solver, Radial, RandomFeatures, ConvFeatures, ConvKernel)
_OF_PARTS = {field.name: field.type for part in _PARTS for field in fields(part)}
_OF_MACHINES = {"device": "torch.device | str | None", "patience": "int | None", "agop_images": "int | None"}


class Signatures(griffe.Extension):
    """Puts the signatures of the imported library in the place of the written ones, where they differ."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """A class whose constructor is shown as its options."""
        machine = _imported(cls) if cls.path.startswith("nfa.machines.") else None
        shown = vars(machine).get("__signature__") if machine is not None else None
        if shown is not None:
            options = [_option(parameter) for parameter in shown.parameters.values()]
            if "kernel" in machine.defaults:
                options.append(griffe.Parameter("kernel_options", kind=griffe.ParameterKind.var_keyword))
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*options)))

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """A function that a decorator gave further options."""
        if func.parent.is_module and any("with_batch_dim" in str(d.value) for d in func.decorators):
            written = {parameter.name: parameter for parameter in func.parameters}
            shown = inspect.signature(_imported(func)).parameters.values()
            func.parameters = griffe.Parameters(*(written.get(p.name) or _option(p) for p in shown))


def _imported(obj: griffe.Object) -> Any:
    found: Any = importlib.import_module(obj.module.path)
    for name in obj.path.removeprefix(f"{obj.module.path}.").split("."):
        found = getattr(found, name)
    return found


def _option(parameter: inspect.Parameter) -> griffe.Parameter:
    default = None if parameter.default is parameter.empty else repr(parameter.default)
    kind = griffe.ParameterKind[parameter.kind.name.lower()]
    return griffe.Parameter(parameter.name, annotation=_type(parameter), kind=kind, default=default)


def _type(parameter: inspect.Parameter) -> str | None:
    known = _OF_PARTS.get(parameter.name) or _OF_MACHINES.get(parameter.name)
    if known is not None:
        return (
            known
            if isinstance(known, str)
            else inspect.formatannotation(known).replace("collections.abc.", "")
        )
    if parameter.annotation is not parameter.empty:
        return inspect.formatannotation(parameter.annotation)
    return None if parameter.default in (None, MISSING) else type(parameter.default).__name__
