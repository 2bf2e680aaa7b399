"""From a ``_target_`` configuration and a datamodule to a Lightning module ready to train."""

import inspect
from collections.abc import Mapping
from typing import Any

import hydra.utils
import pytorch_lightning as pl

from lab.options import VARIANTS, check_all
from models.base import LabModule
from models.neural import NeuralModule
from nfa import NfaError
from nfa.nets.allowance import Allowance


def build_model(model: Mapping[str, Any], training: Mapping[str, Any], data: Any) -> LabModule:
    """Build the model of a run.

    A ``_target_`` that is a Lightning module is built as it is. Any other ``nn.Module``, a user's own
    among them, is trained by `NeuralModule` with the options of ``training``. What the data decide is
    passed to whatever asks for it by name: ``input_shape``, ``num_outputs``, ``task``.

    Args:
        model: ``_target_`` and keyword arguments, plain types.
        training: keyword arguments of `NeuralModule` beside the network.
        data: a datamodule after ``setup``.

    Raises:
        NfaError: no or unknown ``_target_``, or arguments it does not take.
    """
    if not isinstance(model.get("_target_"), str):
        raise NfaError("the model configuration needs a _target_: the dotted path of an nn.Module")
    target = _locate(model["_target_"])
    known = {"input_shape": list(data.input_shape), "num_outputs": data.num_outputs, "task": data.task}
    spec = {**{k: v for k, v in known.items() if _takes(target, k)}, **model}
    if inspect.isclass(target) and issubclass(target, pl.LightningModule):
        return _lightning_module(spec)
    with Allowance(f"model {model['_target_']}"):
        return NeuralModule(
            net=varied(spec, target), task=data.task, num_outputs=data.num_outputs, **training
        )


def varied(spec: dict[str, Any], target: Any) -> dict[str, Any]:
    """A network as the options of `VARIANTS` want it, unless it has options of these names itself.

    Raises:
        NfaError: values that these have not.
    """
    own = {name for name in VARIANTS if _takes(target, name)}
    wanted = {name: spec.get(name) for name in VARIANTS if name not in own}
    check_all("model", VARIANTS, {k: v for k, v in wanted.items() if k in spec})
    net = {k: v for k, v in spec.items() if k not in wanted}
    if wanted.get("parameterization") == "ntk":
        net = {"_target_": "nfa.nets.ntk", "net": net}
    if wanted.get("initialization") == "balanced":
        net = {"_target_": "nfa.nets.balanced", "net": net}
    if wanted.get("expand") is not None:
        net = {"_target_": "nfa.nets.Expansion", "net": net, "order": wanted["expand"]}
    return net


def _lightning_module(spec: dict[str, Any]) -> LabModule:
    try:
        with Allowance(f"model {spec['_target_']}"):
            return hydra.utils.instantiate(spec, _convert_="all")
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, NfaError):
            raise error.__cause__ from None
        raise NfaError(f"cannot build model {spec['_target_']}: {' '.join(str(error).split())}") from error


def _locate(path: str) -> Any:
    try:
        return hydra.utils.get_object(path)
    except Exception as error:
        cause = error.__cause__ or error
        raise NfaError(f"cannot import model._target_={path}: {cause}") from None


def _takes(target: Any, name: str) -> bool:
    """Whether the callable has a parameter of that name (``**kwargs`` asks for nothing)."""
    return name in inspect.signature(target).parameters
