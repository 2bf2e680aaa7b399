"""The page that leads to the comparisons of several data sets."""

import os
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from nfa.files import write_whole
from nfa.page.document import document, meta_section, notes_list
from nfa.page.text import escape, unbroken


def write_contents(
    path: str | os.PathLike,
    entries: Mapping[str, tuple[str, str]],
    *,
    left_out: Sequence[str] = (),
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write a page of links; whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        entries: address of each comparison, from the folder of this page, to its data set and its result.
        left_out: sentences on folders and runs that no comparison has.
        meta: as for the page of one comparison.
    """
    title = f"Comparisons on {len(entries)} data sets"
    sections = [
        f"<h1>{escape(title)}</h1>",
        '<p class="lede">Scores on different data say nothing of each other: a comparison each.</p>',
        *(
            f'<h2><a href="{quote(address)}">{escape(data)}</a></h2>\n<p>{escape(unbroken(result))}</p>'
            for address, (data, result) in entries.items()
        ),
        f"<h2>Left out</h2>{notes_list(left_out)}" if left_out else "",
        meta_section(meta) if meta else "",
    ]
    write_whole(path, document(title, "\n".join(filter(None, sections))))
