"""Statistics by depth, drawn for papers with matplotlib, which is imported when it is asked for."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nfa.ansatz.row import AnsatzRow
from nfa.errors import NfaError

if TYPE_CHECKING:
    import numpy
    from matplotlib.axes import Axes

_BLUE, _VERMILLION, _GREY = "#0072B2", "#D55E00", "#8A939B"  # Okabe and Ito's: told apart by all eyes
_MOST_NAMES = 40  # layers: beyond, numbers are all there is room for


def plot_rows(rows: Sequence[AnsatzRow], axes: "Sequence[Axes] | None" = None) -> "numpy.ndarray":
    """Draw alignment and cosine of measured rows by depth; see `nfa.AnsatzReport.plot`.

    Raises:
        NfaError: matplotlib is not installed, or there are not two axes.
    """
    try:
        import numpy
        from matplotlib import pyplot
    except ImportError:
        raise NfaError('plot needs matplotlib: pip install "neural-feature-ansatz[plots]"') from None
    measured = [row for row in rows if row.measured]
    if axes is None:
        width = min(max(3.5 + 0.12 * len(measured), 4.5), 12.0)
        axes = pyplot.subplots(2, sharex=True, figsize=(width, 5.0), layout="constrained")[1]
    drawn = numpy.asarray(axes, dtype=object).ravel()
    if len(drawn) != 2 or not all(hasattr(ax, "errorbar") for ax in drawn):
        raise NfaError(f"plot draws on two axes, of alignment and of cosine, got {axes!r}")
    _draw_alignment(drawn[0], measured)
    _draw_cosine(drawn[1], measured)
    _name_layers(drawn[1], [row.layer for row in measured])
    return drawn


def _draw_alignment(ax: "Axes", rows: Sequence[AnsatzRow]) -> None:
    _band(ax, [0.0] * len(rows), [2 * row.chance_sd for row in rows], "chance, ± 2 sd")
    ax.axhline(0, color=_GREY, linewidth=0.8, linestyle=":")
    _reference(ax, [row.init_alignment for row in rows])
    errors = [2 * row.alignment_stderr if math.isfinite(row.alignment_stderr) else 0.0 for row in rows]
    known = any(errors)
    ax.errorbar(
        range(len(rows)),
        [row.alignment for row in rows],
        yerr=errors if known else None,
        color=_BLUE,
        marker="o",
        markersize=4,
        linewidth=1,
        capsize=2,
        label="alignment, ± 2 standard errors" if known else "alignment",
    )
    ax.set_ylabel("alignment")
    ax.legend(fontsize="small", frameon=False)


def _draw_cosine(ax: "Axes", rows: Sequence[AnsatzRow]) -> None:
    _band(ax, [row.null_mean for row in rows], [2 * row.null_std for row in rows], "null, mean ± 2 sd")
    _reference(ax, [row.init_cosine for row in rows])
    values = [row.cosine for row in rows]
    ax.plot(range(len(rows)), values, color=_BLUE, marker="o", markersize=4, linewidth=1, label="cosine")
    powers = sorted({row.power for row in rows if math.isfinite(row.power)})
    agop = f"AGOP$^{{{powers[0]:g}}}$" if len(powers) == 1 and powers[0] != 1 else "AGOP"
    ax.set_ylabel(f"cosine of NFM and {agop}")
    ax.legend(fontsize="small", frameon=False)


def _band(ax: "Axes", middles: Sequence[float], spreads: Sequence[float], label: str) -> None:
    """One step a layer, as wide as its slot."""
    known = [(i, m, s) for i, (m, s) in enumerate(zip(middles, spreads, strict=True)) if math.isfinite(m + s)]
    if known:
        heights, bottoms = [2 * s for _, _, s in known], [m - s for _, m, s in known]
        places = [i for i, _, _ in known]
        ax.bar(places, heights, 1.0, bottoms, color=_GREY, alpha=0.25, linewidth=0, label=label)


def _reference(ax: "Axes", values: Sequence[float]) -> None:
    if any(map(math.isfinite, values)):
        places = range(len(values))
        ax.plot(places, values, "o", color=_VERMILLION, markersize=4, mfc="none", label="at initialisation")


def _name_layers(ax: "Axes", names: Sequence[str]) -> None:
    ax.set_xlabel("layer, from input to output")
    if names and len(names) <= _MOST_NAMES:
        plain = [name.replace("$", r"\$") for name in names]  # no name is a formula
        ax.set_xticks(range(len(names)), plain, rotation=50, ha="right", fontsize="small")
