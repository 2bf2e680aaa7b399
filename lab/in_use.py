"""The options of a run as loggers get them: without those that its model has no use for."""

from typing import Any

from omegaconf import DictConfig

from lab.describe import plain, trainer_options
from nfa.machines.inner import FUNCTIONS

_OF_LEARNING = (
    "power", "centering", "normalization", "metric", "agop_samples", "agop_images", "agop_draw",
)  # fmt: skip


def options_in_use(cfg: DictConfig, kind: str) -> dict[str, Any]:
    """All options in plain types, but for those that make no difference, and those that were left empty.

    Args:
        cfg: all of them.
        kind: of the model, ``net`` or ``kernel``: what is fitted by solving has no ``training``.
    """
    options = plain(cfg) | {"trainer": trainer_options(cfg)}
    model, training = options["model"], options["training"]
    if kind == "kernel":
        del options["training"]
    elif training.get("optimizer") != "sgd":
        training.pop("momentum", None)
    else:
        training.pop("betas", None)
    if kind == "net" and training.get("lr_over_critical") is not None:
        training.pop("lr", None)
    if kind == "kernel" and model.get("learn") == "none":
        options["model"] = model = {k: v for k, v in model.items() if k not in _OF_LEARNING}
    if kind == "kernel" and model.get("kernel") in FUNCTIONS:
        model.pop("bandwidth", None)
    return _filled(options)


def _filled(options: dict[str, Any]) -> dict[str, Any]:
    parts = {k: _filled(v) if isinstance(v, dict) else v for k, v in options.items()}
    return {k: v for k, v in parts.items() if v is not None and v != {}}
