"""A report in a notebook: a fragment with a style of its own, without a script, that fetches nothing."""

from collections.abc import Sequence

from nfa.ansatz.row import AnsatzRow
from nfa.ansatz.words import summary_sentence
from nfa.page.charts import depth_charts
from nfa.page.lists import notes_of
from nfa.page.table import table_of
from nfa.page.template import render
from nfa.page.text import unbroken

_COLUMNS = ("in_features", "out_features", "groups", "alignment", "z", "alpha_fit", "cosine", "null_mean")
_WIDTH = 760  # px of a chart: cells of notebooks are narrower than pages


def fragment(rows: Sequence[AnsatzRow], notes: Sequence[str] = ()) -> str:
    """HTML of the summary, the charts by depth and the table; names of layers are harmless in it.

    Args:
        rows: one a layer, input side first.
        notes: sentences on what was measured.
    """
    measured = [row for row in rows if row.measured]
    return render(
        "notebook.html",
        sentence=unbroken(summary_sentence(rows)),
        notes=notes_of(notes),
        depth=depth_charts(measured, width=_WIDTH) if measured else None,
        table=table_of(rows, _COLUMNS),
    )
