"""What is wrong with the options ends the process with one line."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

_FULL = "HYDRA_FULL_ERROR"  # set by somebody who wants Hydra's own words, with all frames


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
        from lab.mistakes.explain import explain

        message = explain(error, arguments)
    finally:
        os.environ.pop(_FULL)
        if before is not None:
            os.environ[_FULL] = before
    if message:
        stop(message)


def stop(message: str) -> NoReturn:
    """End the process with one line."""
    from nfa.terminal import error_line, say

    say(f"error: {error_line(' '.join(message.split()))}", stream=sys.stderr)
    raise SystemExit(1)


def _is_about_options(error: Exception) -> bool:
    """Whether it is of Hydra's reading of the options, and of nothing that was run with them."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    module = frames[-1][0].f_globals.get("__name__", "").partition(".")[0] if frames else ""
    running = any(frame.f_code.co_name == "run_job" for frame, _ in frames)
    return module in ("hydra", "omegaconf", "antlr4") and not running
