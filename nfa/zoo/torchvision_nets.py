"""``torchvision:NAME[@WEIGHTS]``: the networks of torchvision, and how their weights want their images."""

import inspect
import os
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from nfa.checks import near
from nfa.errors import NfaError
from nfa.inputs.preprocessing import Preprocessing
from nfa.zoo.downloads import downloading
from nfa.zoo.loaded import (
    Loaded,
    file_words,
    filled,
    in_float32,
    interpolation,
    random_weights,
    seeded,
    zoo_package,
)

_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}  # heads for training alone


def load(name: str, weights: str | os.PathLike | None, seed: int) -> Loaded:
    """Build a network of torchvision; see `nfa.zoo.load`.

    Args:
        name: ``NAME``, ``NAME@WEIGHTS`` or ``NAME@none``.
        weights: file of weights to load instead.
        seed: of random weights.
    """
    spec = f"torchvision:{name}"
    models = zoo_package("torchvision.models", spec)
    name, _, wanted = name.partition("@")
    name = name.lower()
    _check_name(name, models, spec)
    entries = models.get_model_weights(name)
    default = getattr(entries, "DEFAULT", None)
    chosen = _choose(entries, wanted, name, weights)
    build = partial(_random, models, name)
    options: dict[str, object] = {}
    if weights is not None:
        model, options = filled(build, weights)
        words = file_words(weights)
    elif chosen is None:
        model, words = seeded(build, seed), random_weights(seed)
    else:
        with downloading(spec):
            model = models.get_model(name, weights=chosen)
        words = chosen.name
    return Loaded(
        model=in_float32(_without_auxiliary(model, name)),
        title=f"{name} (torchvision)",
        weights=words,
        preprocessing=_preprocessing(chosen or default),
        twin=lambda seed: in_float32(_without_auxiliary(seeded(partial(build, **options), seed), name)),
    )


def names() -> list[str]:
    """Specs of all networks, once for each of their weights."""
    models = zoo_package("torchvision.models", "torchvision")
    specs = []
    for name in _known(models):
        tags = [entry.name for entry in models.get_model_weights(name)] or ["none"]
        specs += [f"torchvision:{name}@{tag}" for tag in tags]
    return specs


def _known(models: ModuleType) -> list[str]:
    return [name for name in models.list_models() if not name.startswith("quantized_")]


def _check_name(name: str, models: ModuleType, spec: str) -> None:
    if name.startswith("quantized_"):
        raise NfaError(
            f"{spec}: a quantised network has no derivatives; take {name.removeprefix('quantized_')}"
        )
    known = _known(models)
    if name not in known:
        raise NfaError(
            f"torchvision has no network {name!r}{near(name, known)} (nfa list 'torchvision:*' shows all)"
        )


def _choose(entries: Any, wanted: str, name: str, file: str | os.PathLike | None) -> Any:
    """The weights asked for, None for random ones or a file."""
    tags = [entry.name for entry in entries]
    if wanted.lower() == "none":
        return None
    if file is not None:
        if wanted:
            raise NfaError(
                f"torchvision:{name}@{wanted} and a file of weights were given: give one of the two"
            )
        return None
    if not tags:
        raise NfaError(
            f"torchvision has no weights for {name}: give torchvision:{name}@none or --weights FILE"
        )
    if wanted.upper() in ("", "DEFAULT"):
        return entries.DEFAULT
    found = [entry for entry in entries if entry.name.lower() == wanted.lower()]
    if not found:
        raise NfaError(
            f"torchvision:{name} has no weights {wanted!r}: expected {', '.join(tags)} or none after the @"
        )
    return found[0]


def _random(models: ModuleType, name: str, **options: object) -> nn.Module:
    """The network as it is for its published weights, with weights drawn at random."""
    takes = inspect.signature(models.get_model_builder(name)).parameters
    if "weights_backbone" in takes:
        options["weights_backbone"] = None
    if "aux_loss" in takes and list(models.get_model_weights(name)):
        options["aux_loss"] = True
    if name in _AUXILIARY:
        options |= {"init_weights": True, "transform_input": True}
    return models.get_model(name, weights=None, **options)


def _without_auxiliary(model: nn.Module, name: str) -> nn.Module:
    """Take heads away that work in training alone, as torchvision does when it loads published weights."""
    for head in _AUXILIARY.get(name, ()):
        for attribute, value in ((head, None), ("aux_logits", False)):
            setattr(model, attribute, value)
    return model


def _preprocessing(entry: Any) -> Preprocessing | None:
    """What the transforms of published weights do; None where they are not those of single images.

    Segmentation has a length for the shorter side and no cut: the cut is a square of it here.
    """
    transforms = entry.transforms() if entry is not None else None
    if transforms is None or type(transforms).__name__ not in ("ImageClassification", "SemanticSegmentation"):
        return None  # videos, pairs of images, and detectors, which normalise by themselves
    resize = transforms.resize_size[0]
    cut = getattr(transforms, "crop_size", [resize])
    return Preprocessing(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        size=(cut[0], cut[-1]),
        resize=resize,
        interpolation=interpolation(transforms.interpolation.value),
        channels=3,
    )
