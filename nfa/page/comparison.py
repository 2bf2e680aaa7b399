"""A comparison of finished runs as one self-contained HTML page."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nfa.ansatz.row import CHANCE
from nfa.ansatz.words import UNDEFINED, show
from nfa.compare import Comparison
from nfa.compare.comparison import Difference, Group
from nfa.compare.words import FEW, above_null_words, score_words
from nfa.files import write_whole
from nfa.page import svg
from nfa.page.comparison_charts import (
    ansatz_charts,
    cost_charts,
    feature_charts,
    learning_chart,
    looks,
    size_chart,
)
from nfa.page.examined import samples_of
from nfa.page.lists import entries, notes_of
from nfa.page.matrix import eigenvector_strips, similarity_matrix
from nfa.page.svg import Series
from nfa.page.table import Heading, Number
from nfa.page.template import render
from nfa.page.text import minus, unbroken


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
    page = render(
        "comparison.html",
        title=_title(comparison),
        sentence=unbroken(sentence),
        notes=notes_of(comparison.notes),
        left_out=notes_of(comparison.left_out),
        metric=comparison.metric,
        models=_models(comparison),
        runs=_runs(comparison),
        keys=_keys(comparison),
        costs=cost_charts(comparison),
        samples=samples_of(comparison),
        sizes=size_chart(comparison),
        learning=learning_chart(comparison),
        by_epoch=feature_charts(comparison),
        similarity=[similarity_matrix(space) for space in comparison.spaces],
        chance=CHANCE,
        undefined=UNDEFINED,
        eigenvectors=eigenvector_strips(comparison.spaces),
        ansatz=ansatz_charts(comparison),
        meta=entries(meta or {}),
    )
    write_whole(path, page)


def _title(comparison: Comparison) -> str:
    groups = comparison.groups
    if len(groups) == 1:
        return f"{len(comparison.runs)} runs of {groups[0].label} on {comparison.data}"
    return f"{len(groups)} models on {comparison.data}"


# -- tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """A row for each of some models, beside their names."""

    headings: Sequence[Heading]
    rows: Sequence[tuple[str, Sequence[str | int | Number]]]


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
_MODEL = Heading("model", kind="text name")
_BEST = _Column("best round", "0 is the plain kernel", lambda g: g.number("best_round"), ",.0f")
_ANSATZ = (
    _Column("ansatz align", "mean over layers; 0 by chance", lambda g: g.ansatz("alignment"), "+z.3f"),
    _Column("above null", "layers whose alignment is beyond chance, z > 2", _share_above, "layers"),
    _Column("ansatz cos", "of NFM and AGOP, mean over layers", lambda g: g.ansatz("cosine"), ".3f"),
    _Column("null", "mean cosine with C rotated at random", lambda g: g.ansatz("null_mean"), ".3f"),
)


def _first(group: Group, *names: str) -> float:
    return next((v for v in map(group.number, names) if math.isfinite(v)), math.nan)


def _models(comparison: Comparison) -> _Table:
    columns = _told((*_COSTS, *_ANSATZ), comparison.groups)
    headings = [
        Heading("#", "best first"),
        _MODEL,
        Heading(comparison.metric, "mean ± standard deviation over runs"),
        Heading("from best", "with half the 95 % interval, on the seeds that both have"),
        Heading("runs", "seeds and folds"),
        Heading("kind", kind="text"),
        *(Heading(column.label, column.explanation) for column in columns),
    ]
    gaps = {difference.other: difference for difference in comparison.differences}
    cells = [
        (
            Number(group.score, _score(group, comparison.metric)),
            _gap(gaps.get(group.label), comparison.metric),
            len(group.runs),
            "kernel" if group.is_kernel else "net",
            *_numbers(group, columns),
        )
        for group in comparison.groups
    ]
    return _Table(headings, list(zip([group.label for group in comparison.groups], cells, strict=True)))


def _keys(comparison: Comparison) -> dict[str, Markup]:
    """Label to its marker in the charts."""
    return {
        label: svg.key(Series(label, (), (), **style)) for label, style in looks(comparison.groups).items()
    }


def _told(columns: Sequence[_Column], groups: Sequence[Group]) -> list[_Column]:
    """The columns in which there is a number."""
    return [column for column in columns if any(math.isfinite(column.value(g)) for g in groups)]


def _score(group: Group, metric: str) -> str:
    spread = (
        f"\u00a0±\u00a0{score_words(group.score_std, metric, spread=True)}" if len(group.runs) > 1 else ""
    )
    return score_words(group.score, metric) + spread


def _gap(difference: Difference | None, metric: str) -> Number:
    """How far a group is from the best, and whether by more than seeds bring about."""
    if difference is None:
        return Number(0.0, "best")
    if not difference.count:
        return Number(math.nan, UNDEFINED, remark="no seed in common", remark_kind="chance")
    gap = -difference.mean if metric == "test/accuracy" else difference.mean
    words = ("+" if gap > 0 else "") + minus(score_words(gap + 0.0, metric))
    if difference.count > 1:
        words += f"\u00a0±\u00a0{score_words(difference.margin, metric, spread=True)}"
    kind = "clear" if difference.is_clear else "chance"
    return Number(gap, words, remark=_noise_words(difference), remark_kind=kind)


def _noise_words(difference: Difference) -> str:
    if difference.count == 1:
        return "one seed: noise unknown"
    if difference.is_constant:
        return "same for all seeds"
    if difference.is_clear:
        return "beyond seed noise"
    if difference.count <= FEW:
        return f"not settled, {difference.count} seeds"
    return "within seed noise"


def _numbers(group: Group, columns: Sequence[_Column]) -> list[Number]:
    values = [(column.value(group), column.spec) for column in columns]
    return [Number(value, _words(group, value, spec)) for value, spec in values]


def _words(group: Group, value: float, spec: str) -> str:
    if spec == "layers":
        return above_null_words(group)
    return _time(value) if spec == "time" else minus(show(value, spec))


def _time(seconds: float) -> str:
    return show(seconds, ",.0f" if seconds >= 100 else ".3g")


def _runs(comparison: Comparison) -> _Table:
    """The same numbers run by run."""
    single = [(run, Group(comparison.label_of(run), (run,))) for run in comparison.runs]
    columns = _told((*_COSTS, _BEST, *_ANSATZ), [group for _, group in single])
    headings = [
        Heading("#", "in the order of the models"),
        _MODEL,
        Heading("seed, fold", kind="text"),
        Heading(comparison.metric, "on the test samples"),
        *(Heading(column.label, column.explanation) for column in columns),
        Heading("folder", kind="text"),
    ]
    rows: list[tuple[str, Sequence[str | int | Number]]] = [
        (
            group.label,
            [
                run.replicate,
                Number(run.score, score_words(run.score, comparison.metric)),
                *_numbers(group, columns),
                str(run.path),
            ],
        )
        for run, group in single
    ]
    return _Table(headings, rows)
