"""Write a file whole or not at all, where writing is possible."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    try:
        yield partial
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
