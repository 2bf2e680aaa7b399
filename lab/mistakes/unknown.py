"""Options that there are not."""

from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.checks.known import known_options
from lab.mistakes.near import option_like, value_like
from lab.mistakes.overrides import choices, is_group, typed_value


def no_such_option(key: str, value: str, names: Sequence[str], chosen: str = "") -> str:
    """What to say of an option there is not.

    Args:
        key: such as ``model.depht``.
        value: as it was typed.
        names: all options there are.
        chosen: what the group was set to, such as ``model=resnet``.
    """
    near = option_like(key, value, names)
    with_ = f" with {chosen}" if chosen else ""
    if near is not None:
        return f"there is no option {key}{with_}: did you mean {near}?"
    group = key.rpartition(".")[0]
    siblings = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == group]
    if not group or not siblings:
        return f"there is no option {key}{with_}: python train.py --help shows all there are"
    return f"there is no option {key}{with_}: there are {', '.join(sorted(siblings))}"


def first_unknown(typed: Sequence[Override], config: DictConfig | None) -> str | None:
    """What to say of the first option that the configuration of the groups chosen does not have."""
    if config is None:
        return None
    names, groups = known_options(config), set(config.hydra.runtime.choices)
    for override in typed:
        key = override.key_or_group
        if key.startswith("hydra") or override.is_force_add() or key in groups:
            continue
        if is_group(key) and not override.is_add():  # a group of no default, such as experiment
            return _no_default(key, typed_value(override))
        if override.is_add() or OmegaConf.select(config, key, throw_on_missing=False) is not None:
            continue
        if _has(config, key):
            continue
        if key in names:
            return f"{key} is in no configuration file: add it with +{str(override.input_line).lstrip('~')}"
        return no_such_option(key, typed_value(override), names, _choice_of(key, config))
    return None


def _no_default(group: str, value: str) -> str:
    known = choices(group)
    if value in known:
        return f"{group} has no default: choose one with +{group}={value}"
    near = value_like(group, value, known)
    return f"there is no {group}={value}: " + (
        f"did you mean +{near}?" if near else f"there are {', '.join(known)}"
    )


def _choice_of(key: str, config: DictConfig) -> str:
    """``model=resnet`` for ``model.depth``; an empty text where there is no such group."""
    group = key.partition(".")[0]
    choice = config.hydra.runtime.choices.get(group)
    return f"{group}={choice}" if choice and "." in key else ""


def _has(config: DictConfig, key: str) -> bool:
    """Whether there is such an option, be it null or still to be given."""
    group, _, name = key.rpartition(".")
    try:
        node = OmegaConf.select(config, group, throw_on_missing=False) if group else config
    except OmegaConfBaseException:
        return False
    return isinstance(node, DictConfig) and name in node
