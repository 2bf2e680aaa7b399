"""Two measurements of one network as one self-contained HTML page."""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial

from nfa.ansatz.difference import FELL, OUTCOMES, ROSE, LayerDifference
from nfa.ansatz.difference_groups import GroupDifference
from nfa.ansatz.difference_words import verdicts
from nfa.ansatz.words import show
from nfa.files import write_whole
from nfa.page import svg
from nfa.page.lists import entries, notes_of
from nfa.page.svg import Band, Figure, Series, figure, line_chart
from nfa.page.table import Heading, Number
from nfa.page.template import render
from nfa.page.text import minus, unbroken

_LAYER_HEADINGS = (
    Heading("layer", kind="text name"),
    Heading("kind", kind="text"),
    Heading("alignment", "before"),
    Heading("after"),
    Heading("change", "± its standard error, that of both"),
    Heading("z", "change over its standard error"),
    Heading("outcome", "beyond two errors", kind="text"),
    Heading("cosine", "before"),
    Heading("after"),
    Heading("change", "± its standard error"),
    Heading("z", "of the cosine"),
    Heading("basis", "change"),
    Heading("α", "change of the fitted exponent"),
    Heading("verdict", "before and after, where it changed", kind="text"),
)
_GROUP_HEADINGS = (
    Heading("group", kind="text name"),
    Heading("by", kind="text"),
    Heading("layers"),
    *(Heading(outcome, "layers, by their alignment") for outcome in OUTCOMES),
    Heading("alignment", "mean change, ± the most that its standard error may be"),
    Heading("cosine", "likewise"),
)


def write_difference(
    path: str | os.PathLike,
    changes: Sequence[LayerDifference],
    groups: Sequence[GroupDifference],
    *,
    sentences: Sequence[str],
    notes: Sequence[str],
    meta: Mapping[str, object],
) -> None:
    """Write the page; whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        changes: a layer each, input side first.
        groups: of these layers.
        sentences: the result, the first of which stands under the heading.
        notes: what a reader should know beside it.
        meta: what was compared, by which command and version.
    """
    several = len({change.kind for change in changes}) > 1  # one kind of all needs no column
    headings = [heading for heading in _LAYER_HEADINGS if several or heading.label != "kind"]
    rows = [(change.layer, _layer_cells(change)[0 if several else 1 :]) for change in changes]
    page = render(
        "difference.html",
        title="What changed, layer by layer",
        sentence=unbroken(sentences[0]),
        more=notes_of([unbroken(sentence) for sentence in sentences[1:]]),
        notes=notes_of(notes),
        chart=_chart(changes) if changes else None,
        layers=(headings, rows),
        groups=(_GROUP_HEADINGS, [(group.group, _group_cells(group)) for group in groups]),
        meta=entries(meta),
    )
    write_whole(path, page)


def _chart(changes: Sequence[LayerDifference]) -> Figure:
    """Changes of alignment and cosine by depth, over two errors of the alignment to either side of none."""
    depth = range(len(changes))
    errors = [2 * change.alignment_stderr for change in changes]
    series = [
        Series("alignment", depth, [change.alignment for change in changes], svg.BLUE),
        Series(
            "cosine", depth, [change.cosine for change in changes], svg.VERMILLION, line=False, hollow=True
        ),
    ]
    bands = [Band("± 2 errors of the alignment", depth, [-error for error in errors], errors)]
    chart = partial(
        line_chart, series, title="Change by depth", x_label="layer, from input to output",
        y_label="change", x_names=[change.layer for change in changes], bands=bands, rules=[0.0],
    )  # fmt: skip
    return figure(partial(chart, plot_height=280))


def _number(value: float, spec: str, kind: str = "") -> Number:
    return Number(value, minus(show(value, spec)), kind)


def _with_error(value: float, error: float) -> Number:
    spread = f"\u00a0±\u00a0{error:.3f}" if math.isfinite(error) else ""
    return Number(value, minus(show(value, "+z.3f")) + spread)


def _layer_cells(change: LayerDifference) -> list[str | int | Number]:
    emphasis = "clear" if change.outcome in (ROSE, FELL) else "chance"
    return [
        change.kind,
        _number(change.before[0], "+z.3f"),
        _number(change.after[0], "+z.3f"),
        _with_error(change.alignment, change.alignment_stderr),
        _number(change.z, ".1f", emphasis),
        change.outcome,
        _number(change.before[1], ".3f"),
        _number(change.after[1], ".3f"),
        _with_error(change.cosine, change.stderr),
        _number(change.cosine_z, ".1f"),
        _with_error(change.basis, change.basis_stderr),
        _with_error(change.alpha_fit, change.alpha_stderr),
        verdicts(change),
    ]


def _group_cells(group: GroupDifference) -> list[str | int | Number]:
    return [
        group.level,
        group.layers,
        *(group.counts[outcome] for outcome in OUTCOMES),
        _with_error(group.alignment, group.alignment_stderr),
        _with_error(group.cosine, group.stderr),
    ]
