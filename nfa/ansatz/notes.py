"""What a reader of an audit should know beside the numbers: how they were taken, and what they leave open."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from nfa.ansatz.contradictions import contradiction_sentence
from nfa.ansatz.gather_rows import NO_GRADIENT
from nfa.ansatz.words import UNIT_LENGTH, noise_sentence

if TYPE_CHECKING:
    from nfa.ansatz.report import AnsatzReport


def notes(report: "AnsatzReport", samples: int, power: float, tolerance: float) -> Iterator[str]:
    """Sentences for the reader of an audit, the most important first.

    Args:
        report: of the audit.
        samples: that there were to measure on.
        power: exponent of the AGOP.
        tolerance: standard error of cosine and alignment, and drift, that count as settled.
    """
    meta, initial = report.meta, report.meta.get("at initialisation", {})
    if meta.get("stopped"):
        yield f"Partial: stopped after {meta['samples']} of {samples} samples."
    if initial.get("stopped"):
        yield f"Partial initial values: stopped after {initial['samples']} of {samples} samples."
    if meta.get("noise"):
        yield noise_sentence(meta["noise"])
    stuck = [row.layer for row in report.rows if row.status == f"skipped: {NO_GRADIENT}"]
    if stuck:
        yield (
            f"No gradient reaches {len(stuck)} layer{'s' if len(stuck) > 1 else ''}, which are not covered. "
            "A network whose residual branches start at zero has them; with --random-scales it starts with "
            "small random ones."
        )
    how = meta["mode"][:1].upper() + meta["mode"][1:]
    early = meta["samples"] < samples and not meta.get("stopped")
    seen = (
        f"{meta['samples']} of {samples} samples, which sufficed" if early else f"{meta['samples']} samples"
    )
    yield f"{how}; {seen}; exponent of the AGOP {power:g}."
    if meta.get("unit length"):
        yield UNIT_LENGTH
    if opposed := contradiction_sentence(report):
        yield opposed
    yield from _precision_notes(tolerance, report)
    draws = set(report.null_draws.values())
    if len(draws) > 1:
        yield f"Nulls: {max(draws)} draws a layer, down to {min(draws)} in wider ones."
    yield f"Covered: {100 * meta['covered']:.1f} % of the parameters in weights of two or more dimensions."
    for first, others in meta["tied"].items():
        yield f"Tied: {first} is also {', '.join(others)}, and counts once."


def _precision_notes(tolerance: float, report: "AnsatzReport") -> Iterator[str]:
    """What the samples leave open."""
    known = {row.layer: report.precision[row.layer] for row in report.rows if row.measured}
    errors = {
        statistic: {layer: error for layer, error in values.items() if error > tolerance}
        for statistic, values in (
            ("cosine", {layer: p.cosine for layer, p in known.items()}),
            ("alignment", {layer: p.alignment for layer, p in known.items()}),
        )
    }
    drifts = {layer: p.drift for layer, p in known.items() if p.drift > tolerance}
    cuts = {layer: p.cut for layer, p in known.items() if p.cut > tolerance}
    imprecise = [
        f"the standard error of the {statistic} is above {tolerance:g} in {_layers(values)}, up to "
        f"{_worst(values)}"
        for statistic, values in errors.items()
        if values
    ]
    if imprecise:
        yield f"Imprecise: {'; '.join(imprecise)}. More samples would lower it."
    if drifts:
        yield (
            f"Not settled: in {_layers(drifts)} the cosine moves by more than {tolerance:g} when the samples "
            f"are halved, by up to {_worst(drifts)}. There it still depends on how many samples and probes "
            "there are: compare it with its null only."
        )
    if cuts:
        yield (
            f"Rounding: in {_layers(cuts)} the spectrum of C goes on below what single precision resolves, "
            f"and the power lets it count: the cosine hangs on it by up to {_worst(cuts)}, as its standard "
            "error says. A network in float64 resolves more."
        )


def _layers(values: Mapping[str, float]) -> str:
    return f"{len(values)} layer" + ("" if len(values) == 1 else "s")


def _worst(values: Mapping[str, float]) -> str:
    layer = max(values, key=values.__getitem__)
    return f"{values[layer]:.3f} ({layer})"
