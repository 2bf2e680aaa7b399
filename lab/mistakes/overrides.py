"""Overrides as Hydra parses them: of which option or group they are, and what was typed."""

import contextlib
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lab.checkout import CONFIGS


def parsed(overrides: Sequence[str]) -> list[Override]:
    """Those that can be parsed."""
    parser, found = OverridesParser.create(), []
    for override in overrides:
        with contextlib.suppress(HydraException, ValueError):
            found += parser.parse_overrides([override])
    return found


def typed(config: DictConfig) -> list[str]:
    """The options as they were typed; interpolations in them are left for later."""
    overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    return [str(override) for override in overrides] if isinstance(overrides, list) else []


def is_group(key: str) -> bool:
    """Whether the project has such a group of configurations: ``model``, ``experiment``."""
    return bool(key) and (CONFIGS / key).is_dir()


def typed_value(override: Override) -> str:
    """What was typed after the = sign."""
    return str(override.input_line).partition("=")[2]


def parsed_value(override: Override) -> object:
    """The value, or what was typed for several."""
    return typed_value(override) if override.is_sweep_override() else override.value()


def choices(group: str) -> list[str]:
    """The configurations of a group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
