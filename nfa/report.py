"""Rows in words: the summary sentence, the console table and JSON; and what a page draws of one layer."""

import dataclasses
import json
import math
import os
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from nfa.files import write_whole
from nfa.rows import AnsatzRow

UNDEFINED = "–"
CLEAR, CHANCE = 5.0, 2.0  # |z| up to 2 is what chance gives in 19 of 20 layers; beyond 5 it hardly ever does
_KIND_WIDTH = 10
_LEAST_NAME_WIDTH = 12


@dataclass(frozen=True)
class LayerPicture:
    """What there is to draw of one layer; the scale of each tensor has no influence.

    Attributes:
        layer: dotted module name, as in its `AnsatzRow`.
        nfm: neural feature matrix N, ``(d, d)``; pooled beforehand where d is large.
        agop: ``G^power``, as compared with N, ``(d, d)``.
        nfm_spectrum: eigenvalues of N, descending, ``(r,)``.
        agop_spectrum: eigenvalues of ``G^power``, descending, ``(r,)``.
        filters: rows of W as images, ``(k, c, h, w)``.
        nfm_eigenvectors: leading eigenvectors of N as images, ``(k, c, h, w)``.
        agop_eigenvectors: leading eigenvectors of G as images, ``(k, c, h, w)``.
    """

    layer: str
    nfm: Tensor | None = None
    agop: Tensor | None = None
    nfm_spectrum: Tensor | None = None
    agop_spectrum: Tensor | None = None
    filters: Tensor | None = None
    nfm_eigenvectors: Tensor | None = None
    agop_eigenvectors: Tensor | None = None


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
            _alignment_sentence([row.z for row in measured]),
            *_alpha_sentence(measured),
            *_cosine_sentence(measured),
            *_skipped_sentence(rows),
        ]
    )


def _alignment_sentence(z: Sequence[float]) -> str:
    counts = {
        f"far beyond chance (z > {CLEAR:g})": sum(v > CLEAR for v in z),
        f"above chance ({CHANCE:g} < z ≤ {CLEAR:g})": sum(CHANCE < v <= CLEAR for v in z),
        f"within chance (|z| ≤ {CHANCE:g})": sum(abs(v) <= CHANCE for v in z),
        f"below chance (z < −{CHANCE:g})": sum(v < -CHANCE for v in z),
        "undefined": sum(math.isnan(v) for v in z),
    }
    parts = [f"{words} in {count}" for words, count in counts.items() if count]
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return f"Of {_count(len(z), 'measured layer')}, alignment is {listed}."


def _alpha_sentence(rows: Sequence[AnsatzRow]) -> list[str]:
    alphas = finite(row.alpha_fit for row in rows if row.z > CHANCE)  # without alignment the fit says nothing
    if not alphas:
        return []
    return [f"Where it is above chance, the median fitted exponent α is {statistics.median(alphas):.2f}."]


def _cosine_sentence(rows: Sequence[AnsatzRow]) -> list[str]:
    cosines, nulls = finite(row.cosine for row in rows), finite(row.null_mean for row in rows)
    if not cosines:
        return []
    chance = f", by chance alone {_range(nulls)}" if nulls else ""
    return [f"The cosine of NFM and AGOP is {_range(cosines)}{chance}."]


def _skipped_sentence(rows: Sequence[AnsatzRow]) -> list[str]:
    skipped = sum(not row.measured for row in rows)
    if not skipped:
        return []
    return [f"{_count(skipped, 'layer')} {'was' if skipped == 1 else 'were'} skipped."]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


# -- console table ---------------------------------------------------------------------------------


def _size(row: AnsatzRow) -> str:
    return f"{row.in_features}→{row.out_features}" + (f" ×{row.groups}" if row.groups > 1 else "")


def _alpha(row: AnsatzRow) -> str:
    if not math.isfinite(row.alpha_fit):
        return UNDEFINED
    return f"{row.alpha_fit:.2f} ({show(row.alpha_r, '+.2f')})"


def _null(row: AnsatzRow) -> str:
    if not math.isfinite(row.null_mean):
        return UNDEFINED
    return f"{row.null_mean:.3f} ± {show(row.null_std)}"


_COLUMNS: dict[str, Callable[[AnsatzRow], str]] = {
    "alignment": lambda row: show(row.alignment, "+.3f"),
    "z": lambda row: show(row.z, ".1f"),
    "α fit (r)": _alpha,
    "cosine": lambda row: show(row.cosine),
    "null": _null,
    "init align": lambda row: show(row.init_alignment, "+.3f"),
    "init cos": lambda row: show(row.init_cosine),
}


def format_table(rows: Sequence[AnsatzRow], *, width: int | None = None) -> str:
    """Lay out rows as plain text for a terminal, one line a layer.

    Names lose their middle where the lines would exceed ``width``, down to 12 characters; numbers never do. A
    skipped layer shows its reason instead of numbers, wrapped; an undefined number is a dash.

    Args:
        rows: one a layer.
        width: greatest number of characters a line; None means 120.

    Returns:
        The table, without a final newline.
    """
    heads = ["layer", "kind", "in→out", *_COLUMNS]
    lines = [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *_padded(lines, len(heads)), strict=True)]
    free = (width or 120) - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(free, _LEAST_NAME_WIDTH))
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    body = [_line(cells, widths, row) for row, cells in zip(rows, lines, strict=True)]
    return "\n".join([_aligned(heads, widths), rule, *body])


def _cells(row: AnsatzRow) -> list[str]:
    cells = [row.layer, abbreviate(row.kind, _KIND_WIDTH), _size(row)]
    return cells + [text(row) for text in _COLUMNS.values()] if row.measured else cells


def _padded(lines: Iterable[list[str]], length: int) -> Iterable[list[str]]:
    return (cells + [""] * (length - len(cells)) for cells in lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Text to the left, numbers to the right."""
    text = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=False)]
    return "  ".join(text + numbers)


def _line(cells: Sequence[str], widths: Sequence[int], row: AnsatzRow) -> str:
    line = _aligned([abbreviate(cells[0], widths[0]), *cells[1:]], widths)
    if row.measured:
        return line
    reason = textwrap.wrap(row.status, max(sum(widths) + 2 * (len(widths) - 1) - len(line) - 2, 20)) or [""]
    return "\n".join([f"{line}  {reason[0]}", *(" " * (len(line) + 2) + part for part in reason[1:])])


# -- files -----------------------------------------------------------------------------------------


def write_json(path: str | os.PathLike, rows: Iterable[AnsatzRow], meta: Mapping[str, object]) -> None:
    """Write ``{"meta": …, "rows": […]}``, whole or not at all; an undefined number is ``null``.

    Args:
        path: the file; an existing one is replaced.
        rows: one a layer and measurement.
        meta: versions, command, seed, sizes, timings, …; what JSON does not know is written as text.
    """
    content = {"meta": dict(meta), "rows": [dataclasses.asdict(row) for row in rows]}
    write_whole(path, json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _plain(value: object) -> object:
    """Only what JSON knows: NaN and infinities as None, anything foreign as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
