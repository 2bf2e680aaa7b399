"""The page that leads to the comparisons of several data sets."""

import os
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from nfa.files import write_whole
from nfa.page.lists import entries, notes_of
from nfa.page.template import render
from nfa.page.text import unbroken


def write_contents(
    path: str | os.PathLike,
    comparisons: Mapping[str, tuple[str, str]],
    *,
    left_out: Sequence[str] = (),
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write a page of links; whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        comparisons: address of each, from the folder of this page, to its data set and its result.
        left_out: sentences on folders and runs that no comparison has.
        meta: as for the page of one comparison.
    """
    page = render(
        "contents.html",
        title=f"Comparisons on {len(comparisons)} data sets",
        comparisons=[
            (quote(address), data, unbroken(result)) for address, (data, result) in comparisons.items()
        ],
        left_out=notes_of(left_out),
        meta=entries(meta or {}),
    )
    write_whole(path, page)
