"""Files, written whole or not at all; and cells of CSV, which a spreadsheet shows and does not run."""

import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_RUN = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # what a spreadsheet takes for the beginning of a formula
_FORMULA = re.compile(f"'*[{_RUN}]")
_GUARDED = re.compile(f"'+[{_RUN}]")


@contextmanager
def replaced_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to that replaces ``path`` at the end: an interrupted write leaves the previous file."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe stays one
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / "whole"
            yield partial
            path.write_bytes(partial.read_bytes())
        return
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # through a link of that name something else would be overwritten
    partial.touch()
    usual = partial.stat().st_mode  # of new files here
    partial.unlink()
    try:
        yield partial
        if partial.stat().st_mode != usual:  # some libraries write what its owner alone may read
            with suppress(OSError):
                partial.chmod(usual)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, text: str) -> None:
    r"""Write a UTF-8 text file, whole or not at all; what UTF-8 cannot hold is written out, ``\udc80``."""
    with replaced_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def make_writable(folder: str | os.PathLike) -> None:
    """Make a folder and try to write in it: work of hours should not end at a missing permission.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".writable-{secrets.token_hex(4)}"
    probe.touch()
    probe.unlink()


# ---- cells of a CSV file ------------------------------------------------------------------------------


def cell(value: object) -> str:
    """A value as text: undefined numbers and None are empty, a would-be formula begins with an apostrophe."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and _FORMULA.match(text) else text


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """The text of a CSV file: a line of names, and the `cell` of each value of each row."""
    lines = [columns, *(map(cell, row) for row in rows)]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def _quoted(text: str) -> str:
    # The writer of the standard library leaves a lone return unquoted, at which its reader ends the row.
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def text_of(written: str) -> str:
    """The text that `cell` wrote."""
    return written[1:] if _GUARDED.match(written) else written
