"""A comparison in words and as text: who won and by how much, the console table, the CSV files."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path

from nfa.ansatz.row import CHANCE
from nfa.ansatz.words import UNDEFINED, finite, show
from nfa.compare.comparison import Comparison, Difference, Group
from nfa.compare.runs import Run
from nfa.compare.similarity import COVARIANCE, FeatureSpace
from nfa.files import csv_text, write_whole
from nfa.terminal import one_line

TABLES = ("comparison.csv", "similarity.csv")
_EQUAL = 1e-6  # differences of scores that are none
_LAYERS = ("layers_above_null", "layers_with_z")
FEW = 3  # seeds, of which the interval is too wide to tell much
_ANSATZ = ("alignment", "cosine", "null_mean", "alpha_fit")


# ---- sentences ---------------------------------------------------------------------------------------------


def score_words(value: float, metric: str, *, spread: bool = False) -> str:
    """A test accuracy or error as it is printed; a spread of errors with two digits."""
    return show(value, ".4f" if metric == "test/accuracy" else ".2g" if spread else ".4g")


def winner_sentence(comparison: Comparison) -> str:
    """Who won, by how much, and whether that exceeds what seeds, or the size of the test set, bring about."""
    best, metric = comparison.groups[0], comparison.metric
    name = "test accuracy" if metric == "test/accuracy" else "test error (mse)"
    degree = "highest" if metric == "test/accuracy" else "lowest"
    if not comparison.differences:
        return f"{best.label} alone: {name} {_spread(best, metric)}."
    lead = f"{best.label} has the {degree} {name}, {_spread(best, metric)}."
    next_group = comparison.groups[1]
    parts = [lead, _against(next_group, comparison.differences[0], metric)]
    unclear = [d.other for d in comparison.differences[1:] if d.count > FEW and not d.is_clear]
    if unclear:
        too = "" if comparison.differences[0].is_clear else " too"
        parts.append(f"The interval of the difference from {_listed(unclear)} holds 0{too}.")
    parts += _test_set_sentence(comparison)
    return " ".join(parts)


def _spread(group: Group, metric: str) -> str:
    count = len(group.runs)
    if count == 1:
        return f"{score_words(group.score, metric)}, one run"
    spread = score_words(group.score_std, metric, spread=True)
    return f"{score_words(group.score, metric)} ± {spread} (sd over {count} runs)"


def _against(other: Group, difference: Difference, metric: str) -> str:
    ahead = f"ahead of {other.label}, {_spread(other, metric)},"
    if difference.count == 0:
        return f"No seed is common with {other.label}, {_spread(other, metric)}, so the two are not paired."
    if abs(difference.mean) < _EQUAL:
        return f"On the seeds that both have, {other.label}, {_spread(other, metric)}, is equal to it."
    if difference.mean < 0:
        by = score_words(-difference.mean, metric)
        return f"But on the seeds that both have ({difference.count}), {other.label} is ahead by {by}."
    by = f"by {score_words(difference.mean, metric)}"
    if difference.count == 1:
        return f"It is {ahead} {by}; one common seed tells nothing of the noise: run more seeds."
    if difference.is_constant:
        return f"It is {ahead} {by}, the same for all {difference.count} seeds, which tell nothing of noise."
    if difference.count <= FEW and not difference.is_clear:
        margin = score_words(difference.margin, metric, spread=True)
        return (
            f"It is {ahead} {by}; {difference.count} seeds do not settle whether that is noise "
            f"(95 % interval ± {margin}): run five or more."
        )
    margin = score_words(difference.margin, metric, spread=True)
    margin = f"95 % interval ± {margin} over {difference.count} paired seeds"
    verdict = "which exceeds" if difference.is_clear else "which does not exceed"
    return f"It is {ahead} {by}, {verdict} the seed noise ({margin})."


def _test_set_sentence(comparison: Comparison) -> list[str]:
    """The binomial error of the difference of two accuracies, where all seeds share one test set."""
    splits = {run.summary["test_split"] for run in comparison.runs}
    count = comparison.runs[0].summary.get("n_test")
    paired = comparison.differences[0].count and comparison.differences[0].mean >= _EQUAL
    if comparison.metric != "test/accuracy" or len(splits) > 1 or not count or not paired:
        return []
    shares = [(group.score * count + 2) / (count + 4) for group in comparison.groups[:2]]  # Agresti and Coull
    error = math.sqrt(sum(p * (1 - p) for p in shares) / (count + 4))
    return [
        f"All runs share one test set, whose {count} samples leave a standard error of up to {error:.4f} on "
        "that difference, however many the seeds."
    ]


def similarity_sentences(comparison: Comparison) -> list[str]:
    """For each kind of feature matrix the net and the kernel machine that are most alike, against chance.

    Where there are only nets, or only kernel machines, it is two of these.
    """
    kernels = {group.label for group in comparison.groups if group.is_kernel}
    return [sentence for space in comparison.spaces for sentence in _most_alike(space, kernels)]


def _most_alike(space: FeatureSpace, kernels: set[str]) -> list[str]:
    pairs = list(combinations([label for label in space.labels if label != COVARIANCE], 2))
    pairs = [(a, b) for a, b in pairs if (a in kernels) != (b in kernels)] or pairs
    alignment = {(a, b): space.between(a, b, space.alignment) for a, b in pairs}
    known = {pair: value for pair, value in alignment.items() if math.isfinite(value)}
    if not known:
        return []
    a, b = max(known, key=lambda pair: known[pair])
    who = "net and kernel machine" if (a in kernels) != (b in kernels) else "models"
    cosine, null, z = (space.between(a, b, values) for values in (space.cosine, space.null_mean, space.z))
    if z <= CHANCE:
        return [f"{space.name}: no {who} are more alike than by chance."]
    data = [space.between(label, COVARIANCE, space.cosine) for label in (a, b)]
    beside = (
        f"; theirs with the covariance of the data {data[0]:.3f} and {data[1]:.3f}" if finite(data) else ""
    )
    return [
        f"{space.name}: the {who} most alike are {a} and {b}, cosine {cosine:.3f} against {null:.3f} "
        f"by chance{beside}."
    ]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# ---- console -----------------------------------------------------------------------------------------------


def _size(group: Group) -> str:
    centers = group.number("num_centers")
    words = show(group.number("num_parameters"), ",.0f")
    return f"{words} ({centers:,.0f} centers)" if math.isfinite(centers) else words


def _margin(comparison: Comparison, group: Group) -> str:
    found = next((d for d in comparison.differences if d.other == group.label), None)
    if found is None or not found.count:
        return UNDEFINED
    gap = -found.mean if comparison.metric == "test/accuracy" else found.mean
    return _plus_minus(gap + 0.0, found.margin, comparison.metric)


def above_null_words(group: Group) -> str:
    """How many layers are above their null, like ``2 of 3``; means over runs."""
    above, told = group.above_null
    return f"{above:.3g} of {told:.3g}" if told else UNDEFINED


def _plus_minus(value: float, spread: float, metric: str) -> str:
    words = score_words(value, metric)
    return f"{words} ± {score_words(spread, metric, spread=True)}" if math.isfinite(spread) else words


def format_comparison(comparison: Comparison) -> str:
    """Lay out the groups as plain text, best first: one line a model."""
    metric = comparison.metric
    columns: dict[str, Callable[[Group], str]] = {
        "model": lambda g: one_line(g.label),
        "runs": lambda g: str(len(g.runs)),
        metric: lambda g: _plus_minus(g.score, g.score_std, metric),
        "from best (95 %)": lambda g: _margin(comparison, g),
        "fit s": lambda g: show(g.number("fit_seconds"), ".1f"),
        "memory MB": lambda g: show(g.number("fit_memory_mb"), ",.0f"),
        "parameters": _size,
        "ansatz alignment": lambda g: show(g.ansatz("alignment"), "+.3f"),
        "above null": above_null_words,
        "ansatz cosine": lambda g: show(g.ansatz("cosine")),
        "null": lambda g: show(g.ansatz("null_mean")),
    }
    lines = [list(columns), *([make(group) for make in columns.values()] for group in comparison.groups)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(cells))
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    return "\n".join([texts[0], "─" * len(texts[0]), *texts[1:], *_spreads(comparison)])


def _spreads(comparison: Comparison) -> list[str]:
    """Say what each ± of the table is, where there is one."""
    parts = []
    if any(len(group.runs) > 1 for group in comparison.groups):
        parts.append("behind a score, the standard deviation (sd) over its runs")
    if any(difference.count > 1 for difference in comparison.differences):
        parts.append("behind a difference from the best, half its 95 % confidence interval")
    return [f"±: {'; '.join(parts)}"] if parts else []


# ---- files -------------------------------------------------------------------------------------------------


def write_tables(out: Path, comparison: Comparison) -> None:
    """Write ``comparison.csv``, a row a run, and ``similarity.csv``, a row a pair of matrices."""
    columns = (
        "label", "model", "kind", "data", "seed", "replicate", "options", comparison.metric, "test_split",
        "n_train", "n_test", "fit_seconds", "fit_memory_mb", "peak_memory_mb", "num_parameters",
        "num_centers", "epochs", "rounds", "best_round", *(f"mean_{name}" for name in _ANSATZ),
        *_LAYERS, "nfa", "torch", "folder",
    )  # fmt: skip
    _write(out / TABLES[0], columns, (_record(comparison, run) for run in comparison.runs))
    names = ("space", "dimension", "a", "a_replicate", "b", "b_replicate",
             "cosine", "null_mean", "null_std", "alignment", "z", "in_mean")  # fmt: skip
    pairs = (row for space in comparison.spaces for row in _pairs(space))
    _write(out / TABLES[1], names, (dict(zip(names, row, strict=True)) for row in pairs))


def _record(comparison: Comparison, run: Run) -> dict[str, object]:
    own = {
        "label": comparison.label_of(run),
        "replicate": run.replicate,
        "options": " ".join(sorted(run.options)),
        "folder": str(run.path),
    }
    means = {f"mean_{name}": run.mean(name) for name in _ANSATZ}
    return run.summary | own | means | dict(zip(_LAYERS, run.above_null, strict=True))


def _pairs(space: FeatureSpace) -> Iterable[tuple[object, ...]]:
    labels = space.labels
    counted = {pair for a in labels for b in labels for pair in space.pairs(a, b)}
    for (i, a), (j, b) in combinations(enumerate(space.members), 2):
        values = (space.cosine, space.null_mean, space.null_std, space.alignment, space.z)
        numbers = (float(value[i, j]) for value in values)
        in_mean = int((i, j) in counted)
        yield (space.name, space.dimension, a.label, a.replicate, b.label, b.replicate, *numbers, in_mean)


def _write(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[dict[str, object]]) -> None:
    write_whole(path, csv_text(columns, (map(row.get, columns) for row in rows)))
