"""Rows in words: the summary sentence, the console table, and values for JSON."""

import math
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

from nfa.ansatz.row import CHANCE, CLEAR, AnsatzRow
from nfa.layers.parts import common_start
from nfa.terminal import one_line

UNDEFINED = "–"
UNIT_LENGTH = (
    "Length one: the outputs have length one, and what changes their length alone does not count. That can "
    "draw the last map before them below null, whatever it learned, and hardly touches others: measure what "
    "is scaled to tell."
)
_KIND_WIDTH = 10
_LEAST_NAME_WIDTH, _READABLE_NAME_WIDTH = 12, 26


def show(value: float, spec: str = ".3f") -> str:
    """Format a number; an undefined one is a dash."""
    return format(value, spec) if math.isfinite(value) else UNDEFINED


def abbreviate(name: str, width: int) -> str:
    """Shorten a name to ``width`` characters by leaving out its middle: both ends tell layers apart."""
    if len(name) <= width:
        return name
    tail = width // 2
    return name[: width - 1 - tail] + "…" + name[len(name) - tail :]


def finite(values: Iterable[float]) -> list[float]:
    """Keep the values that are neither NaN nor infinite."""
    return [value for value in values if math.isfinite(value)]


def short_names(names: Sequence[str], width: int) -> list[str]:
    """Shorten dotted names to ``width`` characters, alike and so that they still tell layers apart.

    What most of them begin with is left out; then words are cut, but no numbers; then middles are left out.
    """
    start, longest = common_start(names), 10
    shortened = list(names)
    if max(map(len, shortened), default=0) > width and start:
        shortened = ["…" + name.removeprefix(start) if name.startswith(start) else name for name in names]
    whole = shortened
    while max(map(len, shortened), default=0) > width and longest > 2:
        longest -= 1
        word = rf"([^\W\d_]{{{longest}}})[^\W\d_]+"
        shortened = [name if len(name) <= width else re.sub(word, r"\1", name) for name in whole]
    return [abbreviate(name, width) for name in shortened]


# -- summary ---------------------------------------------------------------------------------------


def summary_sentence(rows: Sequence[AnsatzRow]) -> str:
    """Say in plain words how far the ansatz holds in the measured layers, and by how much more than chance.

    Args:
        rows: one a layer, of one measurement.
    """
    measured = [row for row in rows if row.measured]
    if not measured:
        return " ".join(["No layer was measured.", *_skipped_sentence(rows)])
    return " ".join(
        [
            _alignment_sentence(measured),
            *_alpha_sentence(measured),
            *_cosine_sentence(measured),
            *_skipped_sentence(rows),
        ]
    )


def _alignment_sentence(rows: Sequence[AnsatzRow]) -> str:
    z = [row.z for row in rows if row.verdict != "not settled"]
    counts = {
        f"far beyond chance (z > {CLEAR:g})": sum(v > CLEAR for v in z),
        f"above chance ({CHANCE:g} < z ≤ {CLEAR:g})": sum(CHANCE < v <= CLEAR for v in z),
        f"within chance (|z| ≤ {CHANCE:g})": sum(abs(v) <= CHANCE for v in z),
        f"below chance (z < −{CHANCE:g})": sum(v < -CHANCE for v in z),
        f"not settled (its error reaches across |z| = {CHANCE:g})": len(rows) - len(z),
        "undefined": sum(math.isnan(v) for v in z),
    }
    parts = [f"{words} in {count}" for words, count in counts.items() if count]
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"Of {_count(len(rows), 'measured layer')}, alignment is {listed}."


def _alpha_sentence(rows: Sequence[AnsatzRow]) -> list[str]:
    alphas = finite(
        row.alpha_fit for row in rows if row.verdict == "above null"
    )  # without alignment the fit says nothing
    if not alphas:
        return []
    median = statistics.median(alphas)
    return [f"Where it is above chance, the median fitted exponent α is {median:.2f} (chance gives 1)."]


def _cosine_sentence(rows: Sequence[AnsatzRow]) -> list[str]:
    cosines, nulls = finite(row.cosine for row in rows), finite(row.null_mean for row in rows)
    if not cosines:
        return []
    chance = f", by chance alone {_range(nulls)}" if nulls else ""
    return [f"The cosine of NFM and AGOP is {_range(cosines)}{chance}."]


def _skipped_sentence(rows: Sequence[AnsatzRow]) -> list[str]:
    skipped = sum(row.skipped for row in rows)
    if not skipped:
        return []
    return [f"{_count(skipped, 'layer')} {'was' if skipped == 1 else 'were'} skipped."]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def noise_sentence(noise: float) -> str:
    """What to tell of outputs that change from call to call by this share of their size."""
    return (
        f"Random: the outputs change from call to call, by {100 * noise:.2g} % of their size (dropout that "
        "is always on?). The numbers are averages over that noise too, of one draw a sample."
    )


# -- console table ---------------------------------------------------------------------------------


def _size(row: AnsatzRow) -> str:
    return f"{row.in_features}→{row.out_features}" + (f" ×{row.groups}" if row.groups > 1 else "")


def _alpha(row: AnsatzRow) -> str:
    if not math.isfinite(row.alpha_fit):
        return UNDEFINED
    return f"{row.alpha_fit:.2f} ({show(row.alpha_r, '+.2f')})"


def _effect(row: AnsatzRow) -> str:
    other = f" ({row.decided_by})" if row.decided_by != "alignment" else ""
    both = finite([row.basis, row.rank_correlation])  # of what earlier versions measured z alone decided
    return f"{row.effect}{other}" if row.effect and both else UNDEFINED


def _alpha_interval(row: AnsatzRow) -> str:
    if math.isnan(row.alpha_low):
        return UNDEFINED
    high = "∞" if math.isinf(row.alpha_high) else f"{row.alpha_high:.2f}"
    return f"{row.alpha_low:.2f}–{high}"


def alignment_words(row: AnsatzRow) -> str:
    """The alignment with its standard error, where that is known."""
    return _with_error(show(row.alignment, "+.3f"), row.alignment_stderr)


def _with_error(number: str, error: float) -> str:
    return number + (f" ± {error:.3f}" if math.isfinite(error) else "")


def _null(row: AnsatzRow) -> str:
    if not math.isfinite(row.null_mean):
        return UNDEFINED
    return f"{row.null_mean:.3f} ± {show(row.null_std)}"


_COLUMNS: dict[str, Callable[[AnsatzRow], str]] = {
    "layer": lambda row: one_line(row.layer),
    "kind": lambda row: abbreviate(one_line(row.kind), _KIND_WIDTH),
    "in→out": _size,
    "alignment": alignment_words,
    "z": lambda row: show(row.z, ".1f"),
    "verdict": lambda row: row.verdict,
    "effect": _effect,
    "α fit (r)": _alpha,
    "α 95 %": _alpha_interval,
    "basis": lambda row: _with_error(show(row.basis, "+.3f"), row.basis_stderr),
    "cosine": lambda row: _with_error(show(row.cosine), row.stderr),
    "null": _null,
    "init align": lambda row: show(row.init_alignment, "+.3f"),
    "init cos": lambda row: show(row.init_cosine),
}
_SPREADS = {
    "alignment": " ± se",
    "basis": " ± se",
    "cosine": " ± se",
    "null": " ± sd",
}  # what stands behind a number: standard error or deviation
_LEFT = ("layer", "kind")
_OF_ALL_ROWS = ("layer", "kind", "in→out")  # shown where a layer was skipped, too
_LEAST_IMPORTANT = ("basis", "α 95 %", "effect", "kind", "init cos", "init align", "in→out")
_WHERE_KNOWN = {"effect", "init align", "init cos", "α 95 %", "basis"}
_ERRORS = {"alignment": "alignment_stderr", "basis": "basis_stderr", "cosine": "stderr"}


def format_table(rows: Sequence[AnsatzRow], *, width: int | None = None) -> str:
    """Lay out rows as plain text for a terminal, one line a layer.

    The initial values, the basis and the interval of α have columns where there are any. Where lines would
    exceed ``width``, the least important columns are left out, the basis first, while names would
    fall below 26 characters; then names are shortened, down to 12 characters; numbers never are. A skipped
    layer shows its reason instead of numbers, wrapped; an undefined number is a dash.

    Args:
        rows: one a layer.
        width: greatest number of characters a line, say, that of the terminal; None means 120.

    Returns:
        The table, without a final newline.
    """
    width = width or 120
    numeric = [row for row in rows if not row.skipped]
    titles = {head: head + _SPREADS.get(head, "") for head in _COLUMNS}
    known = [h for h, error in _ERRORS.items() if any(math.isfinite(getattr(row, error)) for row in numeric)]
    titles |= {head: head for head in _ERRORS if head not in known}
    heads = [head for head in _COLUMNS if not (head in _WHERE_KNOWN and _undefined(head, numeric))]
    texts = {head: [_COLUMNS[head](row) for row in rows] for head in heads}
    widths = {head: max(map(len, [titles[head], *_shown(head, texts[head], rows)])) for head in heads}
    name = min(widths["layer"], _READABLE_NAME_WIDTH)
    for head in _LEAST_IMPORTANT:
        if _total(widths) - widths["layer"] + name > width:
            widths.pop(head, None)
    free = width - _total(widths) + widths["layer"]
    widths["layer"] = min(widths["layer"], max(free, _LEAST_NAME_WIDTH))
    texts["layer"] = short_names(texts["layer"], widths["layer"])
    lines = [_line({head: texts[head][i] for head in widths}, widths, row) for i, row in enumerate(rows)]
    return "\n".join(
        [_aligned({head: titles[head] for head in widths}, widths), "─" * _total(widths), *lines]
    )


def _undefined(head: str, rows: Sequence[AnsatzRow]) -> bool:
    return all(_COLUMNS[head](row) == UNDEFINED for row in rows)


def _shown(head: str, texts: Sequence[str], rows: Sequence[AnsatzRow]) -> list[str]:
    of_all = head in _OF_ALL_ROWS
    return [text for text, row in zip(texts, rows, strict=True) if of_all or not row.skipped]


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _aligned(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    """Text to the left, numbers to the right."""
    return "  ".join(
        text.ljust(widths[head]) if head in _LEFT else text.rjust(widths[head])
        for head, text in cells.items()
    )


def _line(cells: Mapping[str, str], widths: Mapping[str, int], row: AnsatzRow) -> str:
    if not row.skipped:
        return _aligned(cells, widths)
    line = _aligned({head: text for head, text in cells.items() if head in _OF_ALL_ROWS}, widths)
    reason = textwrap.wrap(one_line(row.status), max(_total(widths) - len(line) - 2, 20)) or [""]
    return "\n".join([f"{line}  {reason[0]}", *(" " * (len(line) + 2) + part for part in reason[1:])])


# -- files -----------------------------------------------------------------------------------------


def plain(value: object) -> object:
    """Turn a value into what JSON knows: NaN and infinities into None, anything foreign into text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
