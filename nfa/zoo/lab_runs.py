"""``file:PATH``: the network in a run of this lab, rebuilt from what its checkpoint says.

The checkpoint holds under ``hyper_parameters`` the ``net`` (a ``_target_`` and its arguments), under
``inputs`` how images were normalised, and in the state of the monitor the weights at initialisation.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nfa.audit import AnsatzReport
from nfa.errors import NfaError
from nfa.maps import map_kind
from nfa.preprocessing import Preprocessing
from nfa.rows import AnsatzRow
from nfa.zoo.loaded import Loaded, checked_twin, file_words, in_float32, seeded
from nfa.zoo.names import near
from nfa.zoo.targets import build_target, importable_from_here
from nfa.zoo.weights import find_state, load_state, read_file, read_weights

_LAST = Path("checkpoints") / "last.ckpt"


def load(name: str, weights: str | os.PathLike | None, seed: int) -> Loaded:
    """Rebuild the network of a run; see `nfa.zoo.load`.

    Args:
        name: a checkpoint, or the folder of a run.
        weights: file of weights to load into its network instead of its own.
        seed: of what the network draws while it is built; the weights overwrite it.
    """
    path = _checkpoint_path(Path(name))
    checkpoint = read_file(path)
    hyper = _hyper_parameters(checkpoint, path)
    build = _builder(hyper, path)
    model = seeded(build, seed)
    if weights is None:
        load_state(model, find_state(checkpoint, path), path)
        words = f"{path.name}{_epochs(checkpoint)}"
    else:
        load_state(model, read_weights(weights), weights)
        words = file_words(weights)
    inputs = checkpoint.get("inputs")
    return Loaded(
        model=in_float32(model),
        title=f"{hyper['net']['_target_'].rsplit('.', 1)[-1]} ({name})",
        weights=words,
        preprocessing=_preprocessing(inputs),
        twin=checked_twin(build),
        initial=_initial(checkpoint),
        notes=[inputs["unknown"]] if isinstance(inputs, Mapping) and "unknown" in inputs else [],
    )


def _checkpoint_path(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists() and path.parent.is_dir():
            beside = near(path.name, [p.name for p in path.parent.iterdir()])
            raise NfaError(f"no checkpoint and no run folder at {path}{beside}")
        return path
    if not (path / _LAST).is_file():
        raise NfaError(f"the folder {path} has no {_LAST}: give the folder of a run, or a checkpoint file")
    return path / _LAST


def _hyper_parameters(checkpoint: Any, path: Path) -> dict[str, Any]:
    hyper = checkpoint.get("hyper_parameters") if isinstance(checkpoint, Mapping) else None
    net = hyper.get("net") if isinstance(hyper, Mapping) else None
    if isinstance(net, Mapping) and isinstance(net.get("_target_"), str):
        return dict(hyper)
    if isinstance(checkpoint, Mapping) and "pytorch-lightning_version" in checkpoint:
        raise NfaError(
            f"{path} does not say what network it holds: expected hyper_parameters with net, as the runs of "
            "this lab on networks have. Give a function that builds it: my_module:build --weights FILE"
        )
    raise NfaError(
        f"{path} holds weights and no network: name the network and give the file as --weights {path}, for "
        "instance torchvision:resnet18 --weights FILE or my_module:build --weights FILE"
    )


def _builder(hyper: Mapping[str, Any], path: Path) -> Callable[[], nn.Module]:
    return partial(_build, dict(hyper["net"]), float(hyper.get("init_scale", 1.0)), path)


def _build(net: dict[str, Any], init_scale: float, path: Path) -> nn.Module:
    """The network as a run starts with it."""
    with importable_from_here():
        model = build_target(net, path)
    if not isinstance(model, nn.Module):
        raise NfaError(f"{path}: {net['_target_']} must return an nn.Module, got {type(model).__name__}")
    if init_scale != 1.0:
        with torch.no_grad():
            for module in model.modules():
                if map_kind(module) is not None:
                    module.weight.mul_(init_scale)
    return model


def _epochs(checkpoint: Mapping[str, Any]) -> str:
    """``, 3 epochs``, where the checkpoint tells."""
    try:
        done = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError):
        return ""
    return f", {done} epoch{'' if done == 1 else 's'}"


def _preprocessing(inputs: Any) -> Preprocessing | None:
    if not isinstance(inputs, Mapping) or "mean" not in inputs:
        return None
    height, width = inputs["size"]
    return Preprocessing(
        mean=tuple(inputs["mean"]),
        std=tuple(inputs["std"]),
        size=(int(height), int(width)),
        channels=int(inputs["channels"]),
    )


def _initial(checkpoint: Mapping[str, Any]) -> AnsatzReport | None:
    """What the monitor of the run measured at initialisation, with the weights of then."""
    states = checkpoint.get("callbacks")
    for state in states.values() if isinstance(states, Mapping) else ():
        if isinstance(state, Mapping) and state.get("initial_rows") and state.get("initial_weights"):
            known = {field.name for field in dataclasses.fields(AnsatzRow)}
            rows = [
                AnsatzRow(**{k: v for k, v in row.items() if k in known}) for row in state["initial_rows"]
            ]
            return AnsatzReport(rows=rows, weights=dict(state["initial_weights"]))
    return None
