"""Ctrl-C while the ``nfa`` command is still importing, which takes seconds: one line, and no traceback."""

import sys
from pathlib import PurePath
from types import TracebackType


def be_brief() -> None:
    """Let an interrupt that nobody handles end the ``nfa`` command in one line; of use before its imports.

    Other programs that import nfa keep their own way to end.
    """
    words = sys.orig_argv[1:3]
    if words[:1] and (PurePath(words[0]).stem == "nfa" or words == ["-m", "nfa"]):
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted: nothing was written", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


be_brief()
