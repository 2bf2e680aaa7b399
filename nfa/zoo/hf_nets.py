"""``hf:NAME_OR_PATH[@none]``: the networks of transformers, from the hub, its cache or a folder."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from nfa.device import check_fits
from nfa.errors import NfaError
from nfa.inputs.preprocessing import Preprocessing
from nfa.nets.imports import without_network
from nfa.zoo.downloads import cached_or_fetched, quietly
from nfa.zoo.hf_folder import check_folder
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

_SAFE = {"trust_remote_code": False}  # never code that comes with the weights
_OUTPUTS = ("logits", "logits_per_image", "image_embeds", "text_embeds", "last_hidden_state", "pooler_output")
_TOKENIZERS = ("tokenizer_config.json", "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
T = TypeVar("T")
_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # numbers of PIL


class _Config(Protocol):
    """What is used of a configuration of transformers; other entries may be there."""

    architectures: list[str] | None


class _Class(Protocol):
    """What is used of a class of networks of transformers."""

    from_config: Callable[..., nn.Module]
    from_pretrained: Callable[..., tuple[nn.Module, dict[str, set[str]]]]


def load(name: str, weights: str | os.PathLike | None, seed: int) -> Loaded:
    """Build a network of transformers; see `nfa.zoo.load`.

    Attention is computed step by step (``eager``): the fused kernels have no rule for several derivatives at
    once.

    Args:
        name: repository of the hub or folder, with ``@none`` behind it for random weights.
        weights: file of weights to load instead.
        seed: of random weights.
    """
    spec = f"hf:{name}"
    transformers = zoo_package("transformers", spec)
    name, none = (name[: -len("@none")], True) if name.lower().endswith("@none") else (name, False)
    _check_name(name)
    with without_network(name) if Path(name).is_dir() else nullcontext():
        return _load(transformers, name, spec, none, weights, seed)


def _load(
    transformers: ModuleType, name: str, spec: str, none: bool, weights: str | os.PathLike | None, seed: int
) -> Loaded:
    config = _config(transformers, name, spec)
    cls = _class_of(transformers, config)
    build = partial(_random, cls, config)
    _check_memory(build, spec)
    notes: list[str] = []
    if weights is not None:
        model, _ = filled(build, weights)
        words = file_words(weights)
    elif none:
        model, words = seeded(build, seed), random_weights(seed)
    else:
        model, notes = _pretrained(transformers, cls, config, name, spec, seed)
        words = "pretrained"
    reads_text = getattr(model, "main_input_name", "") in ("input_ids", "decoder_input_ids")
    return Loaded(
        model=in_float32(model),
        title=f"{Path(name).name} ({type(model).__name__}, transformers)",
        weights=words,
        preprocessing=_preprocessing(transformers, name, spec, config) if not reads_text else None,
        twin=lambda seed: in_float32(seeded(build, seed)),
        tokenize=_tokenizer(transformers, name, spec) if reads_text else None,
        output_fn=pick_output,
        notes=notes,
    )


def pick_output(raw: object) -> object:
    """The tensor to differentiate: logits, else embeddings, else the last hidden state of every token.

    What has none of these comes back as it is.
    """
    found = (getattr(raw, key, None) for key in _OUTPUTS)
    return next((value for value in found if isinstance(value, Tensor)), raw)


def _check_name(name: str) -> None:
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not Path(name).is_dir():
        raise NfaError(
            f"no folder {name}: expected one with config.json, or the name of a repository of the hub"
        )
    if Path(name).is_dir():
        check_folder(Path(name))
        if not (Path(name) / "config.json").is_file():
            raise NfaError(f"the folder {name} has no config.json: expected what save_pretrained writes")
    if "@" in name and not Path(name).is_dir():
        raise NfaError(f"expected hf:NAME or hf:NAME@none, got hf:{name}: after the @ comes none or nothing")


def _fetch(transformers: ModuleType, get: Callable[..., T], spec: str, name: str) -> T:
    """``get(local_files_only=…)`` with the errors of transformers in one sentence."""
    try:
        if Path(name).is_dir():
            with without_network(name):
                return quietly(transformers, partial(get, local_files_only=True))
        return cached_or_fetched(
            lambda local: quietly(transformers, partial(get, local_files_only=local)), spec
        )
    except NfaError:
        raise
    except OSError as error:
        raise NfaError(f"{spec} cannot be loaded: {_line(error)}") from error
    except Exception as error:  # an unknown architecture, remote code, a damaged file
        raise NfaError(
            f"transformers cannot build {spec} ({type(error).__name__}: {_line(error)})"
        ) from error


def _config(transformers: ModuleType, name: str, spec: str) -> _Config:
    get = partial(transformers.AutoConfig.from_pretrained, name, attn_implementation="eager", **_SAFE)
    config = _fetch(transformers, get, spec, name)
    if getattr(config, "quantization_config", None):
        raise NfaError(f"{spec} is quantised and has no derivatives: take the repository of the full network")
    if hasattr(config, "use_cache"):
        config.use_cache = False  # keys and values of past tokens, which nothing here reads
    return config


def _class_of(transformers: ModuleType, config: _Config) -> _Class:
    """The class the weights were saved from, else the bare network of that type."""
    for named in config.architectures or ():
        found = getattr(transformers, str(named), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return getattr(transformers, str(named))
    return transformers.AutoModel


def _check_memory(build: Callable[[], nn.Module], spec: str) -> None:
    """Hold the sizes of a configuration against the memory: on the meta device they take none."""
    try:
        with torch.device("meta"):
            model = build()
    except NfaError:
        raise
    except Exception as error:
        raise NfaError(
            f"transformers cannot build {spec} ({type(error).__name__}: {_line(error)})"
        ) from error
    check_fits(4 * sum(p.numel() for p in model.parameters()), spec, "take a smaller network")


def _random(cls: _Class, config: _Config) -> nn.Module:
    build = getattr(cls, "_from_config", None) or cls.from_config
    return build(config, attn_implementation="eager", dtype=torch.float32)


def _pretrained(
    transformers: ModuleType, cls: _Class, config: _Config, name: str, spec: str, seed: int
) -> tuple[nn.Module, list[str]]:
    """The network with its weights, and a note on those that the files lack."""
    get = partial(
        cls.from_pretrained,
        name,
        config=config,
        attn_implementation="eager",
        dtype=torch.float32,
        weights_only=True,
        output_loading_info=True,
        **_SAFE,
    )
    model, info = seeded(lambda: _fetch(transformers, get, spec, name), seed)
    missing = sorted(info["missing_keys"])
    note = (
        f"{len(missing)} tensors are not in the files, their weights are {random_weights(seed)}: "
        + ", ".join(missing[:3])
        + (", …" if len(missing) > 3 else "")
    )
    return model, [note] if missing else []


def _tokenizer(transformers: ModuleType, name: str, spec: str) -> Callable[[str], list[int]] | None:
    """Text -> ids, without special tokens; read when first called. None for a folder without one."""
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in _TOKENIZERS):
        return None

    @cache
    def tokenizer() -> Callable[..., Mapping[str, list[int]]]:
        return _fetch(
            transformers, partial(transformers.AutoTokenizer.from_pretrained, name, **_SAFE), spec, name
        )

    def tokenize(text: str) -> list[int]:
        # quietly: a whole book is longer than the network can read at once, and is cut into blocks afterwards
        made = tokenizer()
        try:
            return quietly(transformers, lambda: made(text, add_special_tokens=False)["input_ids"])
        except Exception as error:  # the tokenizers of Rust raise plain exceptions
            raise NfaError(f"the tokenizer of {spec} cannot read the text ({_line(error)})") from error

    return tokenize


def _preprocessing(transformers: ModuleType, name: str, spec: str, config: _Config) -> Preprocessing | None:
    """What the image processor does; None where there is none or its size is not one of those known here."""
    try:
        get = partial(transformers.AutoImageProcessor.from_pretrained, name, **_SAFE)
        known = _fetch(transformers, get, spec, name).to_dict()
    except NfaError:
        return None
    try:
        return _as_preprocessing(known, getattr(config, "num_channels", None))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise NfaError(f"{spec}: its preprocessor_config.json is damaged ({_line(error)})") from None


def _as_preprocessing(known: Mapping, channels: int | None) -> Preprocessing:
    size, resize = _sizes(known)
    unit = 255 * known.get("rescale_factor", 1 / 255) if known.get("do_rescale", True) else 255.0
    normalised = known.get("do_normalize", True) and known.get("image_mean") is not None
    mean, std = (known["image_mean"], known["image_std"]) if normalised else ((0.0,), (1.0,))
    return Preprocessing(
        mean=tuple(m / unit for m in _as_list(mean)),
        std=tuple(s / unit for s in _as_list(std)),
        size=size,
        resize=resize,
        interpolation=interpolation(_RESAMPLE.get(int(known.get("resample") or 2), "bilinear")),
        channels=channels or len(_as_list(mean)),
    )


def _sizes(known: Mapping) -> tuple[tuple[int, int] | None, int | None]:
    """(height, width) of the cut, and the shorter side before it."""
    size, cut = _as_size(known.get("size")), _as_size(known.get("crop_size"))
    resize = min(size) if size and known.get("do_resize", True) else None
    if known.get("do_center_crop") and cut:
        return cut, resize
    if known.get("crop_pct") and size and min(size) < 384:  # ConvNeXt: larger, then cut; from 384 on squashed
        return size, int(min(size) / known["crop_pct"])
    return (size, None) if resize else (None, None)


def _as_size(value: object) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if not isinstance(value, dict):
        return None
    height, width = value.get("height"), value.get("width")
    side = value.get("shortest_edge")
    return (height, width) if height and width else (side, side) if side else None


def _as_list(value: float | Iterable[float]) -> list[float]:
    return [value] if isinstance(value, int | float) else list(value)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
