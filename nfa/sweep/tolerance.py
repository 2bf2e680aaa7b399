"""Measure until every cosine and every alignment is known well enough, by the cheaper of two ways."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from nfa.layers.maps import LinearMap
from nfa.sweep.batches import Replayable
from nfa.sweep.measure import measure_sensitivities
from nfa.sweep.observer import Again, Observer, Sweep
from nfa.sweep.options import AuditedSweep

_FEW = 16  # exact backwards a sample that probes would hardly undercut
_PROBES = 4  # a pass
_MOST_PROBES = 256
_FIRST_LOOK = 8  # batches: the groups of samples that errors are found from
_STALLED = 0.85  # of the error before: twice the probes should bring it to 0.71, and a drift to 0.5


def sweep_to_tolerance(
    model: nn.Module,
    batches: Replayable,
    maps: Sequence[LinearMap],
    tolerance: float,
    power: float,
    backwards: int,
    watch: Observer,
    options: AuditedSweep,
) -> Sweep:
    """Sweep until every layer's cosine and alignment are known to ``tolerance``, or nothing is left to gain.

    Known means that their standard errors are no larger, and that the cosine moves no further when the
    samples are halved: that of a C whose rank is limited by these goes on growing with them.

    A network with few outputs is measured exactly. Else each sample gets a few probes; where the samples
    end too soon they are gone over again with as many new ones, only for the layers that need them (those
    near the output, as a rule, to which a backward is short), and measured exactly where that takes fewer
    backwards.

    Args:
        model: the network.
        batches: its samples; those of an iterator are read once only.
        maps: what to measure.
        tolerance: greatest standard error of a cosine or an alignment.
        power: exponent of the AGOP in the cosine.
        backwards: backwards a sample of the exact mode.
        watch: looks on.
        options: further arguments of `measure_sensitivities`.
    """
    until = _Until(watch, maps, tolerance, power, backwards, repeatable=not batches.read_once)
    options = {**options, "replicates_over": "batches"}
    probes = _PROBES if backwards > _FEW else None
    sweep = measure_sensitivities(model, batches, maps, probes=probes, watch=until, **options)
    if not until.better_exact or sweep.stopped:
        return sweep
    exact = measure_sensitivities(model, batches, maps, watch=until, **options)
    if exact.stopped:  # the probes were complete: they say more than a part does
        sweep.stopped = True
        return sweep
    return exact


class _Until(Observer):
    """Looks at the standard errors each time the samples, or the probes, have doubled."""

    def __init__(
        self,
        inner: Observer,
        maps: Sequence[LinearMap],
        tolerance: float,
        power: float,
        backwards: int,
        repeatable: bool,
    ):
        self.inner, self.tolerance, self.power = inner, tolerance, power
        self.maps = sorted(maps, key=lambda m: min(m.in_features, m.out_features))
        self.backwards, self.repeatable = backwards, repeatable
        self.better_exact = False
        self.batches, self.next_look = 0, _FIRST_LOOK
        self.probes = _PROBES  # so far, a sample
        self.last: dict[str, float] = {}

    def progress(self, samples: float, backwards: int) -> None:
        """Pass it on."""
        self.inner.progress(samples, backwards)

    def further(self, number: int, samples: float, probes: int) -> None:
        """Pass it on."""
        self.inner.further(number, samples, probes)

    def stop(self) -> bool:
        """Pass it on, too."""
        return self.inner.stop()

    def enough(self, sweep: Callable[[], Sweep], samples: int) -> bool:
        """Whether every layer is precise enough, looked at each time the samples have doubled."""
        self.batches += 1
        if self.batches < self.next_look:
            return False
        self.next_look *= 2
        errors = self._errors(sweep(), self.maps)
        return all(error <= self.tolerance for _, error in errors)

    def again(self, sweep: Callable[[], Sweep]) -> Again | None:
        """As many new probes again, for the layers that are not known well enough yet."""
        layers = [m for m in self.maps if not self.last or m.name in self.last]
        errors = {name: error for name, error in self._errors(sweep(), layers) if error > self.tolerance}
        # What more probes hardly help is limited by the samples.
        falling = {k: e for k, e in errors.items() if e <= _STALLED * self.last.get(k, math.inf)}
        self.last = falling
        if not falling or not self.repeatable or not all(map(math.isfinite, falling.values())):
            return None
        if self.probes >= min(self.backwards, _MOST_PROBES):
            self.better_exact = self.backwards <= _MOST_PROBES
            return None
        again = Again(frozenset(falling), self.probes)
        self.probes *= 2
        return again

    def _errors(self, sweep: Sweep, maps: Sequence[LinearMap]) -> Iterator[tuple[str, float]]:
        """Errors of cosine and alignment, or drift, of each map: the largest; narrow maps first."""
        for m in maps:
            sensitivity = sweep.sensitivities[m.name]
            if (
                not (sensitivity.called and sensitivity.reached)
                or sensitivity.is_output
                or sensitivity.unfollowed
            ):
                continue
            groups, weight = len(sensitivity.sums), m.weight()
            if groups < 2:
                yield m.name, math.inf
                continue
            if not all(bool(torch.isfinite(t).all()) for t in (weight, *sensitivity.sums.values())):
                continue
            pair, corrected = sensitivity.pair(weight), sweep.probes is not None
            known = sensitivity.precision(pair, self.power, halves=True, corrected=corrected)
            errors = (known.cosine, known.alignment, known.drift)
            yield m.name, max((e for e in errors if not math.isnan(e)), default=0.0)
