"""The words of a command line: options of Hydra, overrides, their keys and values."""

import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

_OPTIONS_WITH_VALUE = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c",
)  # fmt: skip
_QUOTED = re.compile(r"""(["']).*\1""", re.DOTALL)


def split_options(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part options (``--config-dir PATH``, ``-m``) from overrides (``key=value``), in whatever order."""
    options, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        options.append(argument)
        if argument in _OPTIONS_WITH_VALUE:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, overrides


def config_folders(options: Sequence[str]) -> list[str]:
    """Further folders of configurations that are named with ``--config-dir``."""
    return [value for name, value in pairwise(options) if name in ("--config-dir", "-cd")]


def quoted(value: str) -> str:
    """A text as a quoted value of Hydra's grammar."""
    inner = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), value)
    return f"'{inner}'"


def key_of(override: str) -> str:
    """What an override is of: ``model.width`` of ``+model.width=8``."""
    return override.split("=", 1)[0].lstrip("+~")


def value_of(overrides: Iterable[str], key: str) -> str | None:
    """The value that is given last for a key, without quotes."""
    given = [
        override.split("=", 1)[1] for override in overrides if "=" in override and key_of(override) == key
    ]
    if not given:
        return None
    return given[-1][1:-1].replace(r"\'", "'") if _QUOTED.fullmatch(given[-1]) else given[-1]


def typed_override(key: str, path: Path) -> str:
    """An override with a path as it is typed: quoted for Hydra, and for the shell, where that is needed."""
    plain = re.fullmatch(r"[\w./-]+", str(path), re.ASCII)
    return f"{key}={path}" if plain else shlex.quote(f"{key}='{path}'")
