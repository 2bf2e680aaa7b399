"""``timm:NAME[@none]``: the networks of timm, and how their weights want their images."""

import math
import os
from collections.abc import Mapping
from functools import partial
from types import ModuleType

from torch import nn

from nfa.checks import near
from nfa.errors import NfaError
from nfa.inputs.preprocessing import Preprocessing
from nfa.zoo.downloads import cached_file, check_reachable, downloading
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


def load(name: str, weights: str | os.PathLike | None, seed: int) -> Loaded:
    """Build a network of timm; see `nfa.zoo.load`.

    Args:
        name: ``ARCHITECTURE[.TAG]``, with ``@none`` behind it for random weights.
        weights: file of weights to load instead.
        seed: of random weights.
    """
    spec = f"timm:{name}"
    timm = zoo_package("timm", spec)
    name, _, wanted = name.partition("@")
    _check_name(name, wanted, timm)
    build = partial(timm.create_model, name, pretrained=False)
    options: dict[str, object] = {}
    if weights is not None:
        model, options = filled(build, weights)
        words = file_words(weights)
    elif wanted:
        model, words = seeded(build, seed), random_weights(seed)
    else:
        model = _pretrained(timm, name, spec)
        words = vars(model)["pretrained_cfg"].get("tag") or "pretrained"
    return Loaded(
        model=in_float32(model),
        title=f"{name} (timm)",
        weights=words,
        preprocessing=_preprocessing(timm.data.resolve_model_data_config(model)),
        twin=lambda seed: in_float32(seeded(partial(build, **options), seed)),
    )


def names() -> list[str]:
    """Specs of all networks, once for each of their weights."""
    timm = zoo_package("timm", "timm")
    tagged = timm.list_models(pretrained=True)
    trained = {name.split(".")[0] for name in tagged}
    untrained = [f"{name}@none" for name in timm.list_models() if name not in trained]
    return [f"timm:{name}" for name in sorted([*tagged, *untrained])]


def _check_name(name: str, wanted: str, timm: ModuleType) -> None:
    if wanted.lower() not in ("", "none"):
        raise NfaError(
            f"expected none after the @ of timm:{name}@{wanted}; weights are chosen by a tag, timm:{name}.TAG"
        )
    architecture, _, tag = name.partition(".")
    tagged = timm.list_models(pretrained=True)
    if not timm.is_model(architecture):
        known = [*timm.list_models(), *tagged]
        raise NfaError(f"timm has no network {name!r}{near(name, known)} (nfa list 'timm:*' shows all)")
    own = [known for known in tagged if known.split(".")[0] == architecture]
    if tag and name not in own:
        raise NfaError(
            f"timm has no weights {tag!r} of {architecture}: expected "
            + (f"one of {', '.join(own[:6])}" if own else f"timm:{architecture}@none")
        )


def _pretrained(timm: ModuleType, name: str, spec: str) -> nn.Module:
    """The network with its published weights, from the cache of the hub where they are there."""
    published = timm.get_pretrained_cfg(name)
    if published is None or not published.has_weights:
        raise NfaError(f"timm has no weights for {name}: give timm:{name}@none or --weights FILE")
    overlay = {}
    if published.hf_hub_id:
        named = published.hf_hub_filename
        file = cached_file(
            published.hf_hub_id, [named] if named else ["model.safetensors", "pytorch_model.bin"]
        )
        if file is None:
            check_reachable(spec)
        else:
            overlay = {"file": file}
    with downloading(spec):
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)


def _preprocessing(config: Mapping) -> Preprocessing | None:
    """What timm does with the images of an evaluation; ``squash`` and ``border`` become a central cut."""
    if len(config["input_size"]) != 3:
        return None
    channels, height, width = config["input_size"]
    return Preprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        size=(height, width),
        resize=math.floor(max(height, width) / config["crop_pct"]),
        interpolation=interpolation(config["interpolation"]),
        channels=channels,
    )
