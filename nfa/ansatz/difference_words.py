"""Differences of two reports in words, as tables for a terminal, and as CSV files."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nfa.ansatz.difference import FELL, OUTCOMES, ROSE, UNKNOWN, WITHIN, LayerDifference
from nfa.ansatz.difference_groups import LEVELS, GroupDifference
from nfa.ansatz.words import UNDEFINED, abbreviate, show
from nfa.files import csv_text, write_whole
from nfa.terminal import one_line

TABLES = ("diff.csv", "diff_groups.csv")
_LONGEST = 40  # characters of a name
_NAMED = 3  # groups of many in a sentence
_LAYER_COLUMNS = (
    "layer", "kind", "alignment_before", "alignment_after", "alignment", "alignment_stderr", "z", "outcome",
    "cosine_before", "cosine_after", "cosine", "stderr", "cosine_z", "cosine_outcome", "basis", "alpha_fit",
    "verdict_before", "verdict_after", "basis_stderr", "alpha_stderr",
)  # fmt: skip
_GROUP_COLUMNS = ("level", "group", "layers", *OUTCOMES, "alignment", "alignment_stderr", "cosine", "stderr")


# ---- sentences ---------------------------------------------------------------------------------------------


def difference_sentence(changes: Sequence[LayerDifference]) -> str:
    """In how many layers alignment and cosine changed by more than their errors, and where most."""
    if not changes:
        return "No layer was measured in both."
    count = f"{len(changes)} layer" + ("" if len(changes) == 1 else "s")
    parts = [f"Of {count} measured in both, alignment {_counted([c.outcome for c in changes])}."]
    clear = [c for c in changes if c.outcome in (ROSE, FELL)]
    if clear:
        most = max(clear, key=lambda change: abs(change.alignment))
        parts.append(f"It {most.outcome} most in {most.layer}, by {_change(most)} (z {_z(most.z)}).")
    parts.append(f"The cosine {_counted([c.cosine_outcome for c in changes])}.")
    return " ".join(parts)


def _counted(outcomes: Iterable[str]) -> str:
    counts = Counter(outcomes)
    words = {
        ROSE: "rose by more than two errors in",
        FELL: "fell by more than two errors in",
        WITHIN: "stayed within two errors in",
        UNKNOWN: "has no errors to be judged by in",
    }
    parts = [f"{words[outcome]} {counts[outcome]}" for outcome in OUTCOMES if counts[outcome]]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _change(change: LayerDifference | GroupDifference) -> str:
    return _with_error(change.alignment, change.alignment_stderr)


def _z(z: float) -> str:
    return "beyond measure" if math.isinf(z) else f"{z:.1f}"


def group_sentences(groups: Sequence[GroupDifference]) -> list[str]:
    """Where the alignment changed most, for each level that has several groups."""
    return [
        sentence
        for level in LEVELS
        if (sentence := _level_sentence(level, [g for g in groups if g.level == level]))
    ]


def _level_sentence(level: str, groups: Sequence[GroupDifference]) -> str:
    changed = [g for g in groups if g.counts[ROSE] + g.counts[FELL]]
    if len(groups) < 2:
        return ""
    if not changed:
        return f"By {level}: no change beyond the errors in any of {len(groups)}."
    ordered = sorted(changed, key=lambda g: -abs(g.alignment) if math.isfinite(g.alignment) else 0.0)
    words = [
        f"{g.group} {_change(g)} on average ("
        + ", ".join(f"{g.counts[o]} {o}" for o in (ROSE, FELL) if g.counts[o])
        + f" of {g.layers})"
        for g in ordered[:_NAMED]
    ]
    rest = len(changed) - len(words)
    more = f"; {rest} more with changes" if rest else ""
    return f"By {level}: {'; '.join(words)}{more}."


# ---- tables ------------------------------------------------------------------------------------------------


def _with_error(value: float, error: float) -> str:
    return show(value, "+z.3f") + (f" ± {error:.3f}" if math.isfinite(error) else "")


def _pair(before: float, after: float, spec: str) -> str:
    return f"{show(before, spec)} → {show(after, spec)}"


def verdicts(change: LayerDifference) -> str:
    """The verdict, or both where it changed."""
    before, after = change.verdicts
    return after if before == after else f"{before} → {after}"


def _name(text: str) -> str:
    return abbreviate(one_line(text), _LONGEST)


_LAYERS: dict[str, Callable[[LayerDifference], str]] = {
    "layer": lambda c: _name(c.layer),
    "alignment": lambda c: _pair(c.before[0], c.after[0], "+z.3f"),
    "change ± se": _change,
    "z": lambda c: show(c.z, ".1f"),
    "outcome": lambda c: c.outcome,
    "cosine": lambda c: _pair(c.before[1], c.after[1], ".3f"),
    "change ± se ": lambda c: _with_error(c.cosine, c.stderr),
    "z ": lambda c: show(c.cosine_z, ".1f"),
    "Δ basis ± se": lambda c: _with_error(c.basis, c.basis_stderr),
    "Δ α ± se": lambda c: _with_error(c.alpha_fit, c.alpha_stderr),
    "verdict": verdicts,
}
_GROUPS: dict[str, Callable[[GroupDifference], str]] = {
    "by": lambda g: g.level,
    "group": lambda g: _name(g.group),
    "layers": lambda g: str(g.layers),
    "rose": lambda g: str(g.counts[ROSE]),
    "fell": lambda g: str(g.counts[FELL]),
    "within": lambda g: str(g.counts[WITHIN]),
    "no errors": lambda g: str(g.counts[UNKNOWN]),
    "Δ alignment ± se": _change,
    "Δ cosine ± se": lambda g: _with_error(g.cosine, g.stderr),
}
_LEFT = ("layer", "by", "group", "verdict", "outcome")


def format_layers(changes: Sequence[LayerDifference]) -> str:
    """A line a layer, for a terminal; columns without any number are left out."""
    return _table({head: [cell(c) for c in changes] for head, cell in _LAYERS.items()})


def format_groups(groups: Sequence[GroupDifference]) -> str:
    """A line a group, for a terminal."""
    return _table({head: [cell(g) for g in groups] for head, cell in _GROUPS.items()})


def _table(columns: dict[str, list[str]]) -> str:
    columns = {head: cells for head, cells in columns.items() if set(cells) != {UNDEFINED}}
    widths = {head: max(len(head.strip()), *map(len, cells)) for head, cells in columns.items()}

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if head in _LEFT else cell.rjust(width)
            for cell, (head, width) in zip(cells, widths.items(), strict=True)
        ).rstrip()

    rows = zip(*columns.values(), strict=True)
    rule = "─" * (sum(widths.values()) + 2 * (len(widths) - 1))
    return "\n".join([line([head.strip() for head in columns]), rule, *map(line, rows)])


# ---- files -------------------------------------------------------------------------------------------------


def layer_record(change: LayerDifference) -> dict[str, object]:
    """The cells of a layer, by column."""
    values = (
        change.layer, change.kind, change.before[0], change.after[0], change.alignment,
        change.alignment_stderr, change.z, change.outcome, change.before[1], change.after[1], change.cosine,
        change.stderr, change.cosine_z, change.cosine_outcome, change.basis, change.alpha_fit,
        *change.verdicts, change.basis_stderr, change.alpha_stderr,
    )  # fmt: skip
    return dict(zip(_LAYER_COLUMNS, values, strict=True))


def group_record(group: GroupDifference) -> dict[str, object]:
    """The cells of a group, by column."""
    counts = [group.counts[outcome] for outcome in OUTCOMES]
    numbers = (group.alignment, group.alignment_stderr, group.cosine, group.stderr)
    return dict(zip(_GROUP_COLUMNS, (group.level, group.group, group.layers, *counts, *numbers), strict=True))


def write_tables(folder: Path, changes: Sequence[LayerDifference], groups: Sequence[GroupDifference]) -> None:
    """Write ``diff.csv``, a row a layer, and ``diff_groups.csv``, a row a group, each whole or not at all."""
    layers = csv_text(_LAYER_COLUMNS, (layer_record(change).values() for change in changes))
    write_whole(folder / TABLES[0], layers)
    write_whole(folder / TABLES[1], csv_text(_GROUP_COLUMNS, (group_record(g).values() for g in groups)))
