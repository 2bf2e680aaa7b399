"""Mistakes on the command line of ``train.py``, in one line each: what Hydra says in ten, or does not see."""

import contextlib
import importlib.metadata
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_FULL = "HYDRA_FULL_ERROR"  # set by somebody who wants Hydra's own words, with all frames
_NOT_TOLD = ("To append to", "Search path", "Config search path", "See https", "full_key:", "object_type=",
             "reference_type=", "provider=", "Available options", "Set the environment")  # fmt: skip
_ONE_OF = ("model", "data", "trainer", "logger")
_REFUSED = ("--experimental-rerun",)  # it reads a pickle


class CheckOptions(Callback):
    """Hydra's callback that looks into all options before there is a folder for the run."""

    def on_run_start(self, config: DictConfig, **options: Any) -> None:
        """Of a single run."""
        _check_or_stop(config, set())

    def on_multirun_start(self, config: DictConfig, **options: Any) -> None:
        """Of a sweep: what all of its jobs have in common. Each of them looks into the rest."""
        parser = OverridesParser.create()
        given = parser.parse_overrides(_typed(config))
        varied = OmegaConf.select(config, "hydra.sweeper.params") or {}
        swept = {o.get_key_element().lstrip("+") for o in given if o.is_sweep_override()} | set(varied)
        _check_or_stop(config, swept)


def version_line() -> str:
    """``nfa 0.1.0, torch 2.14.1, pytorch-lightning 2.6.6``."""
    found = []
    for name in ("nfa", "torch", "pytorch-lightning"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)


def check_flags(arguments: Sequence[str]) -> None:
    """Refuse words with dashes that are none of Hydra's: options of a run are written ``NAME=VALUE``."""
    parser = get_args_parser()
    parser.error = _stop_parsing
    known = {flag for action in parser._actions for flag in action.option_strings}
    for word in arguments:
        flag, equals, value = word.partition("=")
        if flag.startswith("-") and (flag not in known or flag in _REFUSED):
            name = flag.lstrip("-").replace("-", "_")
            if flag not in _REFUSED and name and not re.fullmatch(r"[\d.]+.*", name):
                hint = _unknown(name, value if equals else "VALUE", _default_names())
                if "did you mean" in hint:
                    near = hint.rpartition("did you mean ")[2].rstrip("?")
                    typed = near if "=" in near else f"{near}={value or 'VALUE'}"
                    stop(f"options are written NAME=VALUE, without dashes, got {word}: did you mean {typed}?")
            stop(
                f"no flag is called {flag}: options are written NAME=VALUE; python train.py --help shows them"
            )
    parser.parse_intermixed_args(list(arguments))


@contextlib.contextmanager
def told_in_one_line(arguments: Sequence[str]) -> Iterator[None]:
    """Context in which Hydra's own errors end the process with one line.

    Args:
        arguments: the command line.
    """
    before, message = os.environ.get(_FULL), None
    os.environ[_FULL] = "1"  # Hydra raises, and leaves the words to us
    try:
        yield
    except Exception as error:
        if before == "1" or not _is_about_options(error):
            raise
        message = explain(error, arguments)
    finally:
        os.environ.pop(_FULL)
        if before is not None:
            os.environ[_FULL] = before
    if message:
        stop(message)


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Say in one line what is wrong with the options.

    Args:
        error: of Hydra or OmegaConf.
        arguments: the command line.
    """
    from lab.near import value_like

    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, value = str(error.missing_cfg_file).rpartition("/")
        known = sorted(error.options)
        near = value_like(group, value, known)
        hint = f"did you mean {_as_typed(near, arguments)}? " if near else ""
        return f"there is no {group}={value}: {hint}There are {', '.join(known)}".replace(": T", ": t")
    overrides, places = _split(arguments)
    typed = _parsed(overrides)
    swept = next((o for o in typed if o.is_sweep_override()), None)
    if swept is not None and ("Ambiguous value" in str(error) or "requires --multirun" in str(error)):
        return (
            f"{swept.input_line} asks for several runs: add -m to have them, or write "
            f"{swept.key_or_group}=[…] for a list"
        )
    added = re.search(r"already at '(.*)'", str(error))
    if added:
        return f"{added[1]} is an option already: write {added[1]}=VALUE, without the +"
    for override in typed:
        if not override.key_or_group:
            return _unreadable(str(override.input_line))
        group = override.key_or_group
        if (
            _is_group(group)
            and not override.is_delete()
            and not isinstance(_parsed_value(override), str | list)
        ):
            known = sorted(path.stem for path in (_CONFIGS / group).glob("*.yaml"))
            return f"{group} must be one of {', '.join(known)}, got {_value(override)}"
    problem = _first_unknown(typed, _composed(typed, places))
    return problem or _plain_words(error)


def stop(message: str) -> NoReturn:
    """End the process with one line."""
    from nfa.terminal import say

    say(f"error: {' '.join(message.split())}", stream=sys.stderr)
    raise SystemExit(1)


def _check_or_stop(config: DictConfig, swept: set[str]) -> None:
    from lab.check import check_options, known_options, unknown_option
    from nfa.errors import NfaError

    try:
        for override in _parsed(_typed(config)):
            if override.key_or_group in _ONE_OF and isinstance(_parsed_value(override), list):
                raise NfaError(
                    f"{override.key_or_group} must be one choice, got {_value(override)}: "
                    "-m with commas and no brackets has a run for each"
                )
        check_options(config, early=True, swept=swept)
        for key, value in _idle(config):
            raise unknown_option(key, value, known_options(config))
    except NfaError as error:
        stop(str(error))


def _idle(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Options added beside the groups, which nothing refers to."""
    text = OmegaConf.to_yaml(config, resolve=False)
    for override in _parsed(_typed(config)):
        key = override.key_or_group
        if override.is_add() and "." not in key and "/" not in key and override.package is None:
            used = f"${{{key}" in text or key in config.hydra.runtime.choices
            if not used:
                yield key, _value(override)


def _first_unknown(typed: Sequence[Override], config: DictConfig | None) -> str | None:
    """What to say of the first option that the configuration of the groups chosen does not have."""
    from lab.check import known_options
    from lab.near import value_like

    if config is None:
        return None
    names, groups = known_options(config), set(config.hydra.runtime.choices)
    for override in typed:
        key, value = override.key_or_group, _value(override)
        if key.startswith("hydra") or override.is_force_add() or key in groups:
            continue
        if _is_group(key) and not override.is_add():  # a group of no default, such as experiment
            known = sorted(path.stem for path in (_CONFIGS / key).glob("*.yaml"))
            if value not in known:
                near = value_like(key, value, known)
                hint = f"did you mean +{near}?" if near else f"there are {', '.join(known)}"
                return f"there is no {key}={value}: {hint}"
            return f"{key} has no default: choose one with +{key}={value}"
        if override.is_add() or OmegaConf.select(config, key, throw_on_missing=False) is not None:
            continue
        if _has(config, key):
            continue
        if key in names:
            return f"{key} is in no configuration file: add it with +{override.input_line.lstrip('~')}"
        group = key.partition(".")[0]
        choice = config.hydra.runtime.choices.get(group)
        return _unknown(key, value, names, f"{group}={choice}" if choice and "." in key else "")
    return None


def _is_about_options(error: Exception) -> bool:
    """Whether it is of Hydra's reading of the options, and of nothing that was run with them."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    module = frames[-1][0].f_globals.get("__name__", "").partition(".")[0] if frames else ""
    running = any(frame.f_code.co_name == "run_job" for frame, _ in frames)
    return module in ("hydra", "omegaconf", "antlr4") and not running


def _has(config: DictConfig, key: str) -> bool:
    """Whether there is such an option, be it null or still to be given."""
    group, _, name = key.rpartition(".")
    try:
        node = OmegaConf.select(config, group, throw_on_missing=False) if group else config
    except OmegaConfBaseException:
        return False
    return isinstance(node, DictConfig) and name in node


def _unknown(key: str, value: str, names: Sequence[str], chosen: str = "") -> str:
    from lab.check import unknown_option

    return str(unknown_option(key, value, names, chosen))


def _default_names() -> list[str]:
    from lab.check import known_options

    config = _composed([], [])
    return [] if config is None else known_options(config)


def _composed(typed: Sequence[Override], places: Sequence[str]) -> DictConfig | None:
    """The configuration of the groups that were chosen, without any other option.

    Args:
        typed: options and choices.
        places: further folders of configurations.
    """
    chosen = [
        str(o.input_line)
        for o in typed
        if "." not in o.key_or_group and not o.is_sweep_override() and not o.is_delete()
    ]
    urls = [f"file://{Path(place).absolute()}" for place in places if Path(place).is_dir()]
    ours = [option for option in chosen if _is_group(option.lstrip("+").partition("=")[0])]
    for attempt in ([*chosen, f"hydra.searchpath=[{','.join(urls)}]"], ours, []):
        with contextlib.suppress(HydraException, OmegaConfBaseException, ValueError), _fresh_hydra():
            return compose("train", attempt, return_hydra_config=True)
    return None


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options as they were typed, and the folders of ``--config-dir``."""
    overrides, places, rest = [], [], iter(arguments)
    for word in rest:
        if word in ("--config-dir", "-cd"):
            places += [place for place in [next(rest, None)] if place]
        elif not word.startswith("-"):
            overrides.append(word)
    return overrides, places


@contextlib.contextmanager
def _fresh_hydra() -> Iterator[None]:
    """Context in which configurations can be composed, whatever Hydra is doing."""
    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(_CONFIGS), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()
        if state is not None:
            GlobalHydra.instance().initialize(state)


def _parsed(overrides: Sequence[str]) -> list[Override]:
    parser, found = OverridesParser.create(), []
    for override in overrides:
        with contextlib.suppress(HydraException, ValueError):
            found += parser.parse_overrides([override])
    return found


def _typed(config: DictConfig) -> list[str]:
    """The options as they were typed; interpolations in them are left for later."""
    return OmegaConf.to_container(config.hydra.overrides.task, resolve=False)


def _is_group(key: str) -> bool:
    return bool(key) and (_CONFIGS / key).is_dir()


def _value(override: Override) -> str:
    """What was typed after the = sign."""
    return str(override.input_line).partition("=")[2]


def _parsed_value(override: Override) -> Any:
    return _value(override) if override.is_sweep_override() else override.value()


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


def _stop_parsing(message: str) -> NoReturn:
    stop(f"{message}: python train.py --help shows what there is")
