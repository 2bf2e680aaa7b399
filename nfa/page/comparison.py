"""A comparison of finished runs as one self-contained HTML page."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nfa.ansatz.words import UNDEFINED
from nfa.compare import Comparison
from nfa.compare.comparison import Difference, Group
from nfa.compare.words import FEW, above_null_words, score_words
from nfa.files import write_whole
from nfa.page import svg
from nfa.page.assets import COMPARISON_GUIDE
from nfa.page.comparison_charts import ansatz_section, cost_section, learning_section, looks
from nfa.page.document import document, meta_section, notes_list
from nfa.page.matrix import eigenvectors_section, similarity_section
from nfa.page.svg import Series
from nfa.page.table import head, number, region, shown
from nfa.page.text import escape, unbroken

_MOST_NOTES, _MOST_LEFT_OUT = 8, 4  # beyond, they are folded


def write_comparison(
    path: str | os.PathLike,
    comparison: Comparison,
    *,
    sentence: str,
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write a comparison as a page; whole or not at all. What there is nothing to show of is left out.

    Args:
        path: the file; an existing one is replaced.
        comparison: of two runs or more.
        sentence: who won, under the heading.
        meta: versions, command, folders, …, listed at the end; may hold mappings.
    """
    title = _title(comparison)
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lede">{escape(unbroken(sentence))}</p>',
        _notes(comparison.notes, "notes", _MOST_NOTES),
        _notes(comparison.left_out, "folders or runs left out", _MOST_LEFT_OUT),
        '<p class="note"><a href="#guide">How to read this page</a></p>',
        _models_section(comparison),
        cost_section(comparison),
        learning_section(comparison),
        similarity_section(comparison.spaces) if comparison.spaces else "",
        eigenvectors_section(comparison.spaces),
        ansatz_section(comparison),
        COMPARISON_GUIDE,
        meta_section(meta) if meta else "",
    ]
    write_whole(path, document(title, "\n".join(filter(None, sections))))


def _title(comparison: Comparison) -> str:
    groups = comparison.groups
    if len(groups) == 1:
        return f"{len(comparison.runs)} runs of {groups[0].label} on {comparison.data}"
    return f"{len(groups)} models on {comparison.data}"


def _notes(notes: Sequence[str], what: str, most: int) -> str:
    if len(notes) <= most:
        return notes_list(notes) if notes else ""
    return f'<details class="fold"><summary>{len(notes)} {what}</summary>{notes_list(notes)}</details>'


# -- tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column of numbers: of a group, or of a group of one run."""

    label: str
    explanation: str
    value: Callable[[Group], float]
    spec: str


def _share_above(group: Group) -> float:
    above, told = group.above_null
    return above / told if told else math.nan


_COSTS = (
    _Column("fit s", "seconds of fitting, without measuring", lambda g: g.number("fit_seconds"), "time"),
    _Column(
        "memory", "at its peak, beyond libraries and data, MB", lambda g: g.number("fit_memory_mb"), ",.0f"
    ),
    _Column("parameters", "numbers that were fitted", lambda g: g.number("num_parameters"), ",.0f"),
    _Column("centers", "training points that it stores", lambda g: g.number("num_centers"), ",.0f"),
    _Column("epochs", "of a kernel machine rounds", lambda g: _first(g, "rounds", "epochs"), ",.0f"),
)
_BEST = _Column("best round", "0 is the plain kernel", lambda g: g.number("best_round"), ",.0f")
_ANSATZ = (
    _Column("ansatz align", "mean over layers; 0 by chance", lambda g: g.ansatz("alignment"), "+z.3f"),
    _Column("above null", "layers whose alignment is beyond chance, z > 2", _share_above, "layers"),
    _Column("ansatz cos", "of NFM and AGOP, mean over layers", lambda g: g.ansatz("cosine"), ".3f"),
    _Column("null", "mean cosine with C rotated at random", lambda g: g.ansatz("null_mean"), ".3f"),
)


def _first(group: Group, *names: str) -> float:
    return next((v for v in map(group.number, names) if math.isfinite(v)), math.nan)


def _models_section(comparison: Comparison) -> str:
    columns = _told((*_COSTS, *_ANSATZ), comparison.groups)
    heads = [
        head("#", "best first"),
        head("model", kind="text name"),
        head(comparison.metric, "mean ± standard deviation over runs"),
        head("from best", "with half the 95 % interval, on the seeds that both have"),
        head("runs", "seeds and folds"),
        head("kind", kind="text"),
        *(head(column.label, column.explanation) for column in columns),
    ]
    gaps = {difference.other: difference for difference in comparison.differences}
    names = _names(comparison)
    rows = [
        f"<tr><td>{i}</td>{names[group.label]}"
        f"{number(group.score, _score(group, comparison.metric))}"
        f"{_gap(gaps.get(group.label), comparison.metric)}<td>{len(group.runs)}</td>"
        f'<td class="text">{_kind(group)}</td>{_numbers(group, columns)}</tr>'
        for i, group in enumerate(comparison.groups, start=1)
    ]
    table = region("Models", "".join(heads), "\n".join(rows), kind="tight")
    return (
        '<h2>Models</h2>\n<p class="note">A heading sorts by its column. Means over runs; behind a score ± '
        "is the standard deviation over its runs, behind a difference from the best half its 95 % confidence "
        "interval. The marker is that of the charts, filled for nets and hollow for kernel machines.</p>\n"
        f"{table}{_runs(comparison)}"
    )


def _names(comparison: Comparison) -> dict[str, str]:
    """Label to the cell that names it, with its marker in the charts."""
    return {
        label: f'<th scope="row" class="text name" title="{escape(label)}">'
        f"{svg.key(Series(label, (), (), **style))}{escape(label)}</th>"
        for label, style in looks(comparison.groups).items()
    }


def _told(columns: Sequence[_Column], groups: Sequence[Group]) -> list[_Column]:
    """The columns in which there is a number."""
    return [column for column in columns if any(math.isfinite(column.value(g)) for g in groups)]


def _kind(group: Group) -> str:
    return "kernel" if group.is_kernel else "net"


def _score(group: Group, metric: str) -> str:
    spread = (
        f"\u00a0±\u00a0{score_words(group.score_std, metric, spread=True)}" if len(group.runs) > 1 else ""
    )
    return score_words(group.score, metric) + spread


def _gap(difference: Difference | None, metric: str) -> str:
    """A cell: how far a group is from the best, and whether by more than seeds bring about."""
    if difference is None:
        return number(0.0, "best")
    if not difference.count:
        return number(math.nan, f'{UNDEFINED}<small class="chance">no seed in common</small>')
    gap = -difference.mean if metric == "test/accuracy" else difference.mean
    words = ("+" if gap > 0 else "") + score_words(gap + 0.0, metric).replace("-", "\u2212")
    if difference.count == 1:
        return number(gap, f'{words}<small class="chance">one seed: noise unknown</small>')
    words += f"\u00a0±\u00a0{score_words(difference.margin, metric, spread=True)}"
    if difference.is_constant:
        return number(gap, f'{words}<small class="chance">same for all seeds</small>')
    if difference.is_clear:
        return number(gap, f'{words}<small class="clear">beyond seed noise</small>')
    if difference.count <= FEW:
        return number(gap, f'{words}<small class="chance">not settled, {difference.count} seeds</small>')
    return number(gap, f'{words}<small class="chance">within seed noise</small>')


def _numbers(group: Group, columns: Sequence[_Column]) -> str:
    values = [(column.value(group), column.spec) for column in columns]
    return "".join(number(value, _words(group, value, spec)) for value, spec in values)


def _words(group: Group, value: float, spec: str) -> str:
    if spec == "layers":
        return above_null_words(group)
    return _time(value) if spec == "time" else shown(value, spec)


def _time(seconds: float) -> str:
    return shown(seconds, ",.0f" if seconds >= 100 else ".3g")


def _runs(comparison: Comparison) -> str:
    """Fold the same numbers run by run below the table."""
    single = [(run, Group(comparison.label_of(run), (run,))) for run in comparison.runs]
    columns = _told((*_COSTS, _BEST, *_ANSATZ), [group for _, group in single])
    heads = [
        head("#", "in the order of the models"),
        head("model", kind="text name"),
        head("seed, fold", kind="text"),
        head(comparison.metric, "on the test samples"),
        *(head(column.label, column.explanation) for column in columns),
        head("folder", kind="text"),
    ]
    names = _names(comparison)
    rows = (
        f'<tr><td>{i}</td>{names[group.label]}<td class="text">{escape(run.replicate)}</td>'
        f"{number(run.score, score_words(run.score, comparison.metric))}"
        f'{_numbers(group, columns)}<td class="text">{escape(str(run.path))}</td></tr>'
        for i, (run, group) in enumerate(single, start=1)
    )
    kind = "tight long" if len(single) > 20 else "tight"
    table = region("Runs", "".join(heads), "\n".join(rows), kind=kind)
    return f'<details class="fold"><summary>All {len(single)} runs</summary>{table}</details>'
