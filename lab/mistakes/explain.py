"""What Hydra or OmegaConf refused, in one line."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException, OverrideParseException

from lab.command_line.words import config_folders, split_options
from lab.mistakes.composed import composed
from lab.mistakes.near import value_like
from lab.mistakes.overrides import choices, is_group, parsed, parsed_value, typed_value
from lab.mistakes.unknown import first_unknown

_NOT_TOLD = ("To append to", "Search path", "Config search path", "See https", "full_key:", "object_type=",
             "reference_type=", "provider=", "Available options", "Set the environment")  # fmt: skip


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Say in one line what is wrong with the options.

    Args:
        error: of Hydra or OmegaConf.
        arguments: the command line.
    """
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        return _no_such_choice(str(error.missing_cfg_file), sorted(error.options), arguments)
    options, overrides = split_options(arguments)
    given = parsed(overrides)
    return (
        _several_values(given, str(error))
        or _added_though_there(str(error))
        or _no_choice(given)
        or first_unknown(given, composed(given, config_folders(options)))
        or _plain_words(error)
    )


def _no_such_choice(file: str, known: Sequence[str], arguments: Sequence[str]) -> str:
    group, _, value = file.rpartition("/")
    near = value_like(group, value, known)
    hint = f"did you mean {_as_typed(near, arguments)}? " if near else ""
    return f"there is no {group}={value}: {hint}There are {', '.join(known)}".replace(": T", ": t")


def _several_values(given: Sequence[Override], words: str) -> str | None:
    """Of values with commas in a run that is no sweep."""
    swept = next((override for override in given if override.is_sweep_override()), None)
    if swept is None or not ("Ambiguous value" in words or "requires --multirun" in words):
        return None
    return (
        f"{swept.input_line} asks for several runs: add -m to have them, or write "
        f"{swept.key_or_group}=[…] for a list"
    )


def _added_though_there(words: str) -> str | None:
    added = re.search(r"already at '(.*)'", words)
    return added and f"{added[1]} is an option already: write {added[1]}=VALUE, without the +"


def _no_choice(given: Sequence[Override]) -> str | None:
    """Of a value for a group that is no name of a configuration."""
    for override in given:
        group = override.key_or_group
        if not group:
            return _unreadable(str(override.input_line))
        if is_group(group) and not (override.is_delete() or isinstance(parsed_value(override), str | list)):
            return f"{group} must be one of {', '.join(choices(group))}, got {typed_value(override)}"
    return None


def _unreadable(override: str) -> str:
    name, equals, value = override.partition("=")
    if not equals:
        return f"options are written NAME=VALUE, got {override!r}"
    if not re.fullmatch(r"[+~]*[\w./@:-]+", name):
        return f"options are written NAME=VALUE, got {override!r}: {name!r} is no name"
    return (
        f"the value of {name.lstrip('+~')} cannot be read, got {value!r}: quote what holds spaces, commas, "
        f"brackets, quotes or = signs, such as {name}=\\'VALUE\\'"
    )


def _as_typed(near: str, overrides: Sequence[str]) -> str:
    """With the + that the group was typed with."""
    group = near.partition("=")[0]
    return f"+{near}" if any(o.startswith(f"+{group}=") for o in overrides) else near


def _plain_words(error: BaseException) -> str:
    """The sentences of an error and of its cause, without advice and search paths."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    told = [line for line in lines if line and not line.startswith(_NOT_TOLD)]
    return "; ".join(dict.fromkeys(line.rstrip(".") for line in told)) or type(error).__name__
