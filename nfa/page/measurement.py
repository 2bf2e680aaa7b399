"""A measurement as one self-contained HTML page, which fetches nothing and opens from disk anywhere."""

import os
import re
from collections.abc import Mapping, Sequence

from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import CLEAR, AnsatzRow
from nfa.ansatz.words import summary_sentence
from nfa.files import write_whole
from nfa.page.charts import Curves, curve_charts, depth_charts, history_charts
from nfa.page.layers import anchors, layers_of
from nfa.page.lists import entries, notes_of
from nfa.page.steps import StepCurves, step_charts
from nfa.page.table import tables_of
from nfa.page.template import render


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
    steps: Sequence[StepCurves] = (),
    headline: Mapping[str, str] | None = None,
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
        steps: curves of the training step by step, a chart each.
        headline: what stands at the top: the score, what training and measuring cost; see
            `nfa.page.headline`.
    """
    measured, listed = [row for row in rows if row.measured], notes_of(notes)
    page = render(
        "measurement.html",
        title=title,
        sentence=_unbroken(summary_sentence(rows)),
        notes=listed,
        headline=headline or {},
        partial=any(note.is_warning for note in listed),
        depth=depth_charts(measured) if measured else None,
        history=history_charts(history) if any(row.measured for row in history) else None,
        curves=curve_charts(curves or {}),
        steps=step_charts(steps),
        tables=tables_of(rows),
        clear=CLEAR,
        places=anchors(pictures),
        measured=len(measured),
        layers=layers_of(pictures, rows),
        meta=entries(meta or {}),
    )
    write_whole(path, page)


def _unbroken(text: str) -> str:
    """Keep what is in brackets on one line."""
    return re.sub(r"\(.*?\)", lambda match: match[0].replace(" ", "\u00a0"), text)
