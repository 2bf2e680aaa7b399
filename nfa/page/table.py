"""The table of all numbers of a page, which sorts and filters."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nfa.ansatz.row import CHANCE, CLEAR, TRAIN_COLUMNS, VERDICTS, AnsatzRow
from nfa.ansatz.words import alignment_words, finite, show
from nfa.page.assets import NUMBER_COLUMNS, TEXT_COLUMNS
from nfa.page.text import escape

_LONG = 12  # rows beyond which there is something to filter
_ALWAYS = ("in_features", "out_features", "alignment", "z", "cosine")


def table_section(rows: Sequence[AnsatzRow], places: Mapping[str, str]) -> str:
    """Lay out all numbers, a row a layer.

    Args:
        rows: one a layer.
        places: for layers with pictures the anchor of these in the page.
    """
    columns, left_out = _columns(rows)
    heads = head("#", "order of depth") + "".join(map(_head, columns))
    body = "\n".join(_row(i, row, columns, places) for i, row in enumerate(rows, start=1))
    long = len(rows) > _LONG
    errors = any(math.isfinite(row.alignment_stderr) for row in rows)
    spread = " Behind an alignment, ± is its standard error." if errors else ""
    omitted = f" Not measured here: {', '.join(left_out)}." if left_out and rows else ""
    return (
        "<h2>All numbers</h2>\n"
        f'<p class="note">A heading sorts by its column. Bold z: beyond {CLEAR:g}; grey: within chance, '
        f"trivial, or skipped.{spread}{omitted}</p>\n{_filter(rows) if long else ''}"
        + region("All numbers", heads, body, kind="long" if long else "")
    )


def region(label: str, heads: str, body: str, *, kind: str = "") -> str:
    """A table that scrolls on its own, by touch and by keyboard.

    Args:
        label: its name for screen readers.
        heads: ``<th>`` elements.
        body: ``<tr>`` elements.
        kind: further classes.
    """
    return (
        f'<div class="scroll{" " + kind if kind else ""}" tabindex="0" role="region" '
        f'aria-label="{escape(label)}"><table class="sortable"><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def head(label: str, explanation: str = "", *, kind: str = "") -> str:
    """The heading of a column, which sorts by it; of the kinds ``text`` and ``name``, or of numbers."""
    looks = f' class="{kind}"' if kind else ""
    title = f' title="{escape(explanation)}"' if explanation else ""
    return f'<th scope="col"{looks}><button type="button"{title}>{escape(label)}</button></th>'


def shown(value: float, spec: str = ".3f") -> str:
    """Format a number, with the sign that typography has for minus; an undefined one is a dash."""
    return show(value, spec).replace("-", "\u2212")


def number(value: float, text: str, kind: str = "") -> str:
    """A cell that shows ``text`` and is sorted by ``value``; last where that is undefined."""
    exact = f"{value:.7g}" if math.isfinite(value) else ""
    looks = f' class="{kind}"' if kind else ""
    return f'<td{looks} data-v="{exact}">{text}</td>'


def _columns(rows: Sequence[AnsatzRow]) -> tuple[list[str], list[str]]:
    """Columns of the table in their order, and headings of those left out since they would hold nothing."""
    columns, left_out = ["layer", "kind"], []
    for column in TRAIN_COLUMNS:
        if column not in NUMBER_COLUMNS:
            continue
        values = [getattr(row, column) for row in rows]
        if column in _ALWAYS or (any(v != 1 for v in values) if column == "groups" else finite(values)):
            columns.append(column)
        elif column not in ("epoch", "groups"):
            left_out.append(NUMBER_COLUMNS[column][0])
        if column == "z":
            columns.append("verdict")
    return columns, left_out


def _filter(rows: Sequence[AnsatzRow]) -> str:
    counts = Counter(row.verdict for row in rows)
    options = "".join(
        f'<option value="{verdict}">{verdict} ({counts[verdict]})</option>'
        for verdict in VERDICTS
        if counts[verdict]
    )
    return (  # shown by the script, without which it would do nothing
        '<div class="filter" role="search" hidden><input type="search" aria-label="Filter by layer or kind" '
        'placeholder="Filter: words of layer, kind, reason" spellcheck="false" autocomplete="off">'
        f'<select aria-label="Filter by verdict"><option value="">all verdicts</option>{options}</select>'
        f"<output>{len(rows)} of {len(rows)}</output></div>\n"
    )


def _head(column: str) -> str:
    if column in TEXT_COLUMNS:
        return head(column, kind="text name" if column == "layer" else "text")
    label, _, explanation = NUMBER_COLUMNS[column]
    return head(label, explanation)


def _row(number: int, row: AnsatzRow, columns: Iterable[str], places: Mapping[str, str]) -> str:
    kind = "" if row.measured else f' class="{row.verdict}"'
    cells = "".join(_cell(row, column, places) for column in columns)
    return f"<tr{kind}><td>{number}</td>{cells}</tr>"


def _cell(row: AnsatzRow, column: str, places: Mapping[str, str]) -> str:
    value = getattr(row, column)
    if column == "layer":
        name = escape(value)
        linked = f'<a href="#{places[value]}" title="its pictures">{name}</a>' if value in places else name
        reason = f"<small>{escape(row.status)}</small>" if row.skipped else ""
        return f'<th scope="row" class="text name">{linked}{reason}</th>'
    if column in TEXT_COLUMNS:
        return f'<td class="text">{escape(value)}</td>'
    if column == "alignment":
        return number(value, alignment_words(row))
    emphasis = _emphasis(value) if column == "z" and math.isfinite(value) else ""
    return number(value, show(value, NUMBER_COLUMNS[column][1]), emphasis)


def _emphasis(z: float) -> str:
    return "clear" if z > CLEAR else "chance" if abs(z) <= CHANCE else "some"
