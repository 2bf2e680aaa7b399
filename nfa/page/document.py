"""A measurement as one self-contained HTML page, which fetches nothing and opens from disk anywhere."""

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence

from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import AnsatzRow
from nfa.ansatz.words import summary_sentence
from nfa.files import write_whole
from nfa.page.assets import GUIDE, SCRIPT, STYLE
from nfa.page.charts import Curves, curves_section, depth_section, history_section
from nfa.page.layers import anchors, pictures_section
from nfa.page.table import table_section
from nfa.page.text import escape

_WARNING = "partial"
_MOST_ENTRIES, _LONGEST_LINE = 8, 140  # of a nested mapping: beyond, it is folded; beyond, a list of its own


def write_html(
    path: str | os.PathLike,
    *,
    title: str,
    rows: Sequence[AnsatzRow],
    history: Sequence[AnsatzRow] = (),
    curves: Curves | None = None,
    pictures: Sequence[LayerPicture] = (),
    meta: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write one measurement, and the training that led to it, as a page; whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        title: heading of the page.
        rows: one a layer, input side first: the measurement to show.
        history: rows of all measurements of a training, with their epochs.
        curves: metric name to its ``(epoch, value)`` pairs; names that end alike after a ``/`` share a chart.
        pictures: of some layers.
        meta: versions, command, seed, sizes, timings, …, listed at the end; may hold mappings.
        notes: sentences on what was measured, under the summary. One that begins with ``Partial`` is a
            warning and marks the whole page.
    """
    measured = [row for row in rows if row.measured]
    partial = any(map(_is_warning, notes))
    badge = ' <span class="badge">partial</span>' if partial else ""
    body = [
        f"<h1>{escape(title)}{badge}</h1>",
        f'<p class="lede">{escape(_unbroken(summary_sentence(rows)))}</p>',
        *([notes_list(notes)] if notes else []),
        '<p class="note"><a href="#guide">How to read this page</a></p>',
        *([depth_section(measured)] if measured else []),
        *([history_section(history)] if any(row.measured for row in history) else []),
        *([curves_section(curves)] if curves else []),
        table_section(rows, anchors(pictures)),
        *([pictures_section(pictures, rows)] if pictures else []),
        GUIDE,
        *([meta_section(meta)] if meta else []),
    ]
    write_whole(path, document(f"Partial: {title}" if partial else title, "\n".join(body)))


def document(title: str, body: str) -> str:
    """The text of a page that holds ``body`` (HTML), in the style of all pages and with their script."""
    # The policy lets the browser hold the page to its promise: no request, and no script but the one below.
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _unbroken(text: str) -> str:
    """Keep what is in brackets on one line."""
    return re.sub(r"\(.*?\)", lambda match: match[0].replace(" ", "\u00a0"), text)


# -- notes -----------------------------------------------------------------------------------------


def _is_warning(note: str) -> bool:
    return note.strip().lower().startswith(_WARNING)


def notes_list(notes: Sequence[str]) -> str:
    """List the sentences, warnings first; what stands before a colon is emphasised."""
    ordered = sorted(notes, key=lambda note: not _is_warning(note))
    return f'<ul class="notes">{"".join(map(_note_item, ordered))}</ul>'


def _note_item(note: str) -> str:
    topic, colon, rest = note.partition(": ")
    words = f"<b>{escape(topic)}:</b> {escape(rest)}" if colon and len(topic) < 60 else escape(note)
    return f'<li class="warning" role="alert">{words}</li>' if _is_warning(note) else f"<li>{words}</li>"


# -- meta ------------------------------------------------------------------------------------------


def meta_section(meta: Mapping[str, object]) -> str:
    """List what a page was made of and how."""
    return f"<h2>How this was made</h2>\n{_definitions(meta)}"


def _definitions(meta: Mapping[str, object]) -> str:
    entries = (f"<dt>{escape(str(key))}</dt><dd>{_value(value)}</dd>" for key, value in meta.items())
    return f"<dl>{''.join(entries)}</dl>"


def _value(value: object) -> str:
    """Write a value; a mapping as a line where it is short, else as a list, folded where it is long."""
    line = _words(value)
    if not isinstance(value, Mapping) or not value:
        return escape(line)
    if len(line) <= _LONGEST_LINE and not any(isinstance(item, Mapping) for item in value.values()):
        return escape(line)
    if len(value) <= _MOST_ENTRIES:
        return _definitions(value)
    return f"<details><summary>{len(value)} entries</summary>{_definitions(value)}</details>"


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
