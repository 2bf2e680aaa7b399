"""Links in a folder that somebody else laid out."""

import os
from pathlib import Path

from nfa import NfaError


def check_links(folder: Path) -> None:
    """Refuse a folder that this lab did not write where a link in it leads out of it.

    Raises:
        NfaError: there is one, through which something elsewhere would be overwritten.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise NfaError(
                    f"{path} leads out of {folder}, which was not written here: going on would overwrite "
                    "files elsewhere. Take the link away, or start a new run"
                )
