"""Words with dashes: those that Hydra has, and ``--version``."""

import importlib.metadata
import re
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from lab.mistakes.told import stop

_REFUSED = ("--experimental-rerun",)  # it reads a pickle


def version_line() -> str:
    """``nfa 0.2.0, torch 2.14.1, pytorch-lightning 2.6.6``."""
    import nfa  # seconds, for this line alone

    found = [f"nfa {nfa.__version__}"]
    for name in ("torch", "pytorch-lightning"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)


def check_flags(arguments: Sequence[str]) -> None:
    """Refuse words with dashes that are none of Hydra's: options of a run are written ``NAME=VALUE``."""
    parser = get_args_parser()
    vars(parser)["error"] = _stop_parsing
    known = {flag for action in parser._actions for flag in action.option_strings}
    for word in arguments:
        flag = word.partition("=")[0]
        if flag.startswith("-") and (flag not in known or flag in _REFUSED):
            if option := _meant(word):
                stop(f"options are written NAME=VALUE, without dashes, got {word}: did you mean {option}?")
            stop(
                f"no flag is called {flag}: options are written NAME=VALUE; python train.py --help shows them"
            )
    parser.parse_intermixed_args(list(arguments))


def _meant(word: str) -> str | None:
    """``training.lr=3`` of ``--lr=3``; None where no option is near."""
    flag, equals, value = word.partition("=")
    name = flag.lstrip("-").replace("-", "_")
    if flag in _REFUSED or not name or re.fullmatch(r"[\d.]+.*", name):
        return None
    hint = _no_such_option(name, value if equals else "VALUE")
    if "did you mean" not in hint:
        return None
    near = hint.rpartition("did you mean ")[2].rstrip("?")
    return near if "=" in near else f"{near}={value or 'VALUE'}"


def _no_such_option(name: str, value: str) -> str:
    from lab.checks.known import known_options
    from lab.mistakes.composed import composed
    from lab.mistakes.unknown import no_such_option

    config = composed([], [])
    return no_such_option(name, value, [] if config is None else known_options(config))


def _stop_parsing(message: str) -> NoReturn:
    stop(f"{message}: python train.py --help shows what there is")
