"""What one pass over the data measured, and who looks on meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nfa.ansatz.sensitivity import Sensitivity

if TYPE_CHECKING:
    from nfa.sweep.footprint import Footprint


@dataclass
class Sweep:
    """What one pass over the data measured.

    Attributes:
        sensitivities: by the name of the map, all maps in order.
        samples: samples seen.
        outputs: scalar outputs a sample.
        probes: probes a sample, None in exact mode.
        most_probes: probes a sample in the maps that got more than the others.
        backwards: backwards a sample.
        neglected: share of the head's squared weight that was left out.
        stopped: whether the watch asked to stop before the samples ended.
        through_head: whether the backwards of the exact mode started at the head's input.
        noise: how much the outputs change from call to call, relative to their size.
        unit_length: whether outputs are vectors of length one.
    """

    sensitivities: dict[str, Sensitivity] = field(default_factory=dict)
    samples: int = 0
    outputs: int = 0
    probes: int | None = None
    most_probes: int | None = None
    backwards: int = 0
    neglected: float = 0.0
    stopped: bool = False
    through_head: bool = False
    noise: float = 0.0
    unit_length: bool = False

    @property
    def mode(self) -> str:
        """How the outputs were taken, in words."""
        if self.probes is not None:
            more = f" to {self.most_probes}" if self.most_probes != self.probes else ""
            return f"{self.probes}{more} probes"
        if not self.through_head:
            return "exact"
        nearly = f"nearly exact, {self.neglected:.2g} of the head neglected," if self.neglected else "exact"
        return f"{nearly} through the head: {self.backwards} backwards for {self.outputs} outputs"


class Observer:
    """Looks on while a sweep runs; this one lets it run to the end."""

    def begin(self, footprint: "Footprint", replicates: int, piece: int | None) -> None:
        """What it takes was estimated; so many replicates will be kept and samples carried at a time."""

    def rows(self, done: int, total: int) -> None:
        """The statistics of so many layers are computed."""

    def progress(self, samples: float, backwards: int) -> None:
        """So many samples are done, a sample under way in part; each takes so many backwards."""

    def further(self, number: int, samples: float, probes: int) -> None:
        """In pass ``number`` over the samples, 2 or more, so many are done, each with so many new probes."""

    def stop(self) -> bool:
        """Whether to end as soon as what is measured is consistent; asked after every backward."""
        return False

    def enough(self, sweep: Callable[[], Sweep], samples: int) -> bool:
        """Whether what is measured suffices; asked after every batch."""
        return False

    def again(self, sweep: Callable[[], Sweep]) -> "Again | None":
        """What to do in another pass over the samples; None ends the sweep. Asked at the end of each pass."""
        return None


@dataclass(frozen=True)
class Again:
    """Another pass: new probes for some maps. Backwards end at the first of these, whatever lies below.

    Attributes:
        layers: names of the maps.
        probes: new probes a sample.
    """

    layers: frozenset[str]
    probes: int
