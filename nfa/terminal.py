"""What goes to a terminal: one line stays one line, and no character in it is a command.

Names come from files (of layers, classes, folders, runs), and so does much of the text of an error. In these
a terminal acts on escapes, a newline forges a line of a table, and a mark of direction turns letters round.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import TextIO

_LONGEST = 2000  # characters of the line of an error: the end of a name of megabytes tells nobody anything


def one_line(text: object, *, keep: str = "") -> str:
    r"""Text with every character written out that a terminal does not show: ``\x1b``, ``\n``, ``\u202e``.

    These are control characters (C0, DEL, C1), line and paragraph separators, marks of direction and other
    invisible ones, and halves of surrogate pairs, as names that are not UTF-8 have them.

    Args:
        text: of any origin.
        keep: characters that stay nevertheless.
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in str(text))


def error_line(message: object) -> str:
    """A message on one line of bounded length, its middle left out where it is longer."""
    line = one_line(str(message).strip())
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[:half]} … {line[-half:]}"


def say(*lines: object, stream: TextIO | None = None) -> None:
    r"""Print each of ``lines`` as one line, whatever it holds; standard output by default.

    What is laid out in several lines, like a table, is passed as ``*table.split("\n")``.
    """
    print(*map(one_line, lines or ("",)), sep="\n", file=stream or sys.stdout, flush=True)


def tolerate_any_encoding() -> None:
    """Let standard output and error show ``?`` for what their encoding lacks, and not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def typed(program: str) -> str:
    """How to type a program of this environment: its name where the shell finds that one, else its path.

    Args:
        program: ``python``, ``wandb``, ….
    """
    here = Path(sys.executable).parent / program
    found = shutil.which(program)
    if not here.exists() or (found and Path(found).parent.resolve() == here.parent.resolve()):
        return program
    relative = os.path.relpath(here)
    return relative if not relative.startswith(os.pardir) else str(here)
