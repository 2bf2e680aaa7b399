"""Options that are harmless whoever wrote them: plain values, and the project's own configurations."""

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from lab.checkout import CONFIGS

_PLAIN_NAME = r"[A-Za-z0-9]\w*"  # no _target_, _args_, …: these begin with an underscore
_KEY = re.compile(rf"{_PLAIN_NAME}(\.{_PLAIN_NAME})*")
_CHOICE = re.compile(r"\w[\w-]*")
_GROUPS = ("model", "data", "trainer", "callbacks", "logger", "experiment")
_OPTIONS = ("model", "data", "training", "trainer", "callbacks", "logger", "rates", "epochs", "seed")
_PLACES = ("ckpt_path", "hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra.output_subdir")


def naming_code(overrides: Iterable[str]) -> list[str]:
    """Those overrides that are more than a plain value, or one of the project's own configurations."""
    parser = OverridesParser.create()
    return [override for override in overrides if not _is_plain(parser, override)]


def _is_plain(parser: OverridesParser, text: str) -> bool:
    if "${" in text:  # takes a value from elsewhere, or calls a resolver
        return False
    try:
        override = parser.parse_override(text)
    except (HydraException, RecursionError):
        return False
    key = override.key_or_group
    if override.package is not None:
        return False
    if key in _PLACES:
        return True
    if key in _GROUPS:
        return override.is_delete() or all(_is_own(key, choice) for choice in _choices(override))
    if key.endswith("dir"):  # where else something would be written to
        return False
    return bool(_KEY.fullmatch(key)) and key.split(".")[0] in _OPTIONS and _is_value(override.value())


def _choices(override: Override) -> list[object]:
    value = override.value()
    return list(value.list) if isinstance(value, ChoiceSweep) else [value]


def _is_own(group: str, choice: object) -> bool:
    """Whether a configuration is the project's: no configuration of that name elsewhere comes before it."""
    name = choice.text if isinstance(choice, QuotedString) else choice
    return (
        isinstance(name, str)
        and bool(_CHOICE.fullmatch(name))
        and ((CONFIGS / group / f"{name}.yaml").is_file())
    )


def _is_value(value: object) -> bool:
    if isinstance(value, ChoiceSweep):
        return all(map(_is_value, value.list))
    if isinstance(value, dict):
        return all(_is_key(key) for key in value) and all(map(_is_value, value.values()))
    if isinstance(value, list):
        return all(map(_is_value, value))
    return value is None or isinstance(value, str | int | float | QuotedString | RangeSweep | IntervalSweep)


def _is_key(key: object) -> bool:
    return isinstance(key, int | float) or (isinstance(key, str) and bool(_KEY.fullmatch(key)))
