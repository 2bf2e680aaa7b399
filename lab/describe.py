"""What a run is, in plain values: names, options, settings, and a digest of all of them."""

import hashlib
import json
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

_NO_SETTING = {  # where and how it runs, and which repetition it is
    "data.root", "data.fold", "trainer._target_", "trainer.default_root_dir", "trainer.accelerator",
    "trainer.devices", "trainer.strategy", "trainer.num_nodes", "trainer.log_every_n_steps",
    "trainer.enable_model_summary", "trainer.num_sanity_val_steps", "trainer.use_distributed_sampler",
}  # fmt: skip
_NOTHING_IF_NULL = ("precision", "max_steps", "max_time")  # of the trainer: as if they were not there
_NOTATION = ("decimal", "thousands", "missing")  # of tables, likewise
_AS_BEFORE: dict[str, dict[str, object]] = {  # what runs did before they had these options
    "model": {"expand": None, "parameterization": "standard", "initialization": "standard"},
    "training": {"lr_over_critical": None, "betas": [0.9, 0.999]},
    "data": {"passes": 1},
}
_WHAT_IS_TRAINED = ("model.", "data.", "training.", "trainer.max_", "trainer.precision")


def describe(cfg: DictConfig) -> dict[str, object]:
    """Model, data and seed by name, the other options that were given for them, and a digest of all options.

    A ``_target_`` given on the command line is the name.
    """
    hydra_config = HydraConfig.get()
    choices = hydra_config.runtime.choices
    names = {"model": choices["model"], "data": choices["data"]}
    options = []
    for override in hydra_config.overrides.task:
        key, _, value = override.partition("=")
        if key in ("model._target_", "data._target_"):
            names[key.split(".")[0]] = value.rsplit(".", 1)[-1]
        elif key.lstrip("+").startswith(_WHAT_IS_TRAINED):
            options.append(override.lstrip("+"))
    about = {"options": sorted(options), "settings": _settings(cfg), "config": _digest(cfg)}
    return {**names, "seed": cfg.seed, **about}


def plain(config: DictConfig, *, complete: bool = False) -> dict[str, Any]:
    """A configuration in plain types, interpolations resolved; a ``complete`` one leaves none to be given."""
    found = OmegaConf.to_container(config, resolve=True, throw_on_missing=complete)
    assert isinstance(found, dict)  # as of every DictConfig
    return {str(name): value for name, value in found.items()}


def trainer_options(cfg: DictConfig) -> dict[str, Any]:
    """What the trainer is given."""
    options = plain(cfg.trainer)
    return {k: v for k, v in options.items() if v is not None or k not in _NOTHING_IF_NULL}


def _filed(cfg: DictConfig) -> dict[str, Any]:
    """All options as runs of every version tell them: the plain networks once stood in ``models``."""
    options = plain(cfg) | {"trainer": trainer_options(cfg)}
    options["data"] = {k: v for k, v in options["data"].items() if v is not None or k not in _NOTATION}
    for part, before in _AS_BEFORE.items():
        options[part] = {k: v for k, v in options[part].items() if k not in before or v != before[k]}
    target = options["model"].get("_target_")
    if isinstance(target, str) and target.startswith("nfa.nets."):
        options["model"]["_target_"] = f"models.{target.rpartition('.')[2]}"
    return options


def _settings(cfg: DictConfig) -> dict[str, object]:
    """Every option that makes another model or training, typed or from a file, under its dotted name."""
    settings: dict[str, object] = {}

    def collect(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                collect(f"{name}.{key}", item)
        elif name not in _NO_SETTING and not name.endswith(".seed"):
            settings[name] = value

    options = _filed(cfg)
    for part in ("model", "data", "training", "trainer"):
        collect(part, options[part])
    return settings


def _digest(cfg: DictConfig) -> str:
    """Tells runs with other options apart; where they are written to and logged makes no difference."""
    options = {k: v for k, v in _filed(cfg).items() if k not in ("ckpt_path", "logger")}
    options["trainer"].pop("default_root_dir", None)
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]
