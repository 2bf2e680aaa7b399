"""From the name of a network to the network: torchvision, timm, transformers, runs of this lab, own code.

======================================  ==============================================================
``torchvision:resnet18``                published weights; ``@IMAGENET1K_V1`` chooses, ``@none`` is random
``timm:resnet18.a1_in1k``               likewise; the tag behind the dot chooses the weights
``hf:openai-community/gpt2``            of the Hugging Face hub, or a folder
``file:runs/mine``                      the last checkpoint of a run of this lab, or the path of one
``my_package.my_module:build``          what a function of yours returns
======================================  ==============================================================
"""

import copy
import fnmatch
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from nfa.checks import near
from nfa.errors import NfaError
from nfa.nets.imports import import_attribute, importable_from_here, is_own_code
from nfa.nets.registry import TARGET
from nfa.zoo import hf_nets, lab_runs, timm_nets, torchvision_nets
from nfa.zoo.loaded import Loaded, checked_twin, file_words, in_float32, seeded
from nfa.zoo.weights import load_state, load_weights, read_file

__all__ = ["Loaded", "list_models", "load"]

_ZOOS = {
    "torchvision": torchvision_nets.load,
    "timm": timm_nets.load,
    "hf": hf_nets.load,
    "file": lab_runs.load,
}
_LISTED = {"torchvision": torchvision_nets.names, "timm": timm_nets.names}
_FORMS = "torchvision:NAME, timm:NAME, hf:NAME, file:CHECKPOINT or my_module:my_function"


def load(spec: str, *, weights: str | os.PathLike | None = None, seed: int = 0) -> Loaded:
    """Build the network that a name stands for, with its weights.

    Nothing in a file of weights or a checkpoint is run; the random states are left as they were.

    Args:
        spec: ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME[@none]``, ``hf:NAME_OR_PATH[@none]``,
            ``file:CHECKPOINT_OR_RUN``, or ``package.module:callable``. The callable is called without
            arguments, or with those that a run of this lab kept of it, where ``weights`` is one.
        weights: file of weights to load instead of published ones, or the folder of a run; see
            `nfa.zoo.weights.load_weights`.
        seed: of random weights.

    Raises:
        NfaError: no such name, a package that is not installed, weights that cannot be had or do not fit.
    """
    scheme, colon, name = spec.strip().partition(":")
    if not colon or not scheme or not name:
        raise NfaError(f"expected {_FORMS}, got {spec!r}{_suggestion(spec.strip(':'))}")
    zoo = _ZOOS.get(scheme)
    weights = None if weights is None else lab_runs.last_checkpoint(Path(weights))
    return zoo(name, weights, seed) if zoo else _load_callable(scheme, name, weights, seed)


def list_models(pattern: str = "*") -> list[str]:
    """Specs of the networks with published weights that the installed zoos know, sorted.

    Networks without published weights are listed with ``@none``. The hub of transformers is not listed.

    Args:
        pattern: glob on the spec, or on what stands behind the colon; a word without wildcards matches
            wherever it occurs.

    Raises:
        NfaError: no zoo is installed.
    """
    wanted = pattern.lower() if any(c in pattern for c in "*?[") else f"*{pattern.lower()}*"
    specs, failures = [], []
    for names in _LISTED.values():
        try:
            specs += names()
        except NfaError as error:
            failures.append(error)
    if len(failures) == len(_LISTED):
        raise failures[0]
    return sorted(spec for spec in specs if _matches(spec.lower(), wanted))


def _matches(spec: str, pattern: str) -> bool:
    name = spec.partition(":")[2]
    forms = (spec, spec.partition("@")[0], name, name.partition("@")[0])
    return any(fnmatch.fnmatchcase(form, pattern) for form in forms)


def _suggestion(name: str) -> str:
    """What a name without a zoo may have meant."""
    if Path(name).exists():
        return f"; did you mean file:{name}?"
    plain, _, choice = name.partition("@")
    for scheme, names in _LISTED.items():
        try:
            known = {spec.partition(":")[2].partition("@")[0] for spec in names()}
        except NfaError:
            continue
        if plain.lower() in known | {k.partition(".")[0] for k in known}:
            return f"; did you mean {scheme}:{plain.lower()}{'@' + choice if choice else ''}?"
    return "; nfa list PATTERN shows names"


def _load_callable(module: str, path: str, weights: Path | None, seed: int) -> Loaded:
    """What a function (or class, or a network kept in a module) named by the user gives."""
    spec = f"{module}:{path}"
    try:
        with importable_from_here():
            target = import_attribute(module, path)
    except NfaError as error:
        mistyped = near(module, _ZOOS, cutoff=0.7)
        text = f"no zoo and no module {module!r}{mistyped}" if mistyped else error
        raise NfaError(f"{text}; expected {_FORMS}") from error.__cause__
    recorded = None if weights is None else lab_runs.recorded_in(read_file(weights), weights)
    is_same = recorded is not None and recorded.net[TARGET] == f"{module}.{path}" and is_own_code(target)
    same = recorded if is_same else None
    build: Callable[[], nn.Module] | None = None
    if isinstance(target, nn.Module):
        model = copy.deepcopy(target)
    else:
        build = _caller(target, spec, same)
        model = seeded(build, seed)
    if recorded is not None:
        load_state(model, recorded.state, recorded.path)
    elif weights is not None:
        load_weights(model, weights)
    half = {p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16}
    if half:
        raise NfaError(
            f"{spec} returns a network with {half.pop()} weights, which is measured in float32: "
            "return model.float()"
        )
    if same is not None and build is not None:
        return same.loaded(model, spec, build, same.words)
    return Loaded(
        model=in_float32(model),
        title=spec,
        weights=f"as built by {spec}" if weights is None else file_words(weights),
        twin=checked_twin(build) if build else None,
    )


def _caller(target: object, spec: str, recorded: lab_runs.Recorded | None) -> Callable[[], nn.Module]:
    """What calls a function or class: with the arguments that a run kept of it, or without any."""
    if not callable(target):
        raise NfaError(
            f"{spec} is a {type(target).__name__}: expected a function that returns an nn.Module when called "
            "without arguments"
        )
    positional, named = recorded.arguments if recorded else ([], {})
    kept = ", ".join([*map(repr, positional), *(f"{k}={v!r}" for k, v in named.items())])
    given = f"with what its run kept ({kept})" if kept else "without arguments"

    def build() -> nn.Module:
        try:
            with importable_from_here():
                model = target(*positional, **named)
        except NfaError:
            raise
        except Exception as error:
            line = (str(error).splitlines() or ["no message"])[0]
            raise NfaError(f"{spec}, called {given}, raised {type(error).__name__}: {line}") from error
        if not isinstance(model, nn.Module):
            raise NfaError(f"{spec} must return an nn.Module, got a {type(model).__name__}")
        return recorded.scaled(model) if recorded else model

    return build
