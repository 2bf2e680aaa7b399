"""Write a file whole or not at all."""

import os
from pathlib import Path


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all: an interrupted write leaves the previous file."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
