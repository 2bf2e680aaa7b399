"""What is under way: a forward pass of some samples, and one backward after it."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from nfa.layers.maps import LinearMap

Site = tuple[nn.Module, str]


@dataclass(frozen=True)
class Call:
    """The last call of a whole linear layer: what went in, the very tensor that came out, their versions."""

    lmap: LinearMap
    inputs: Tensor
    output: Tensor
    versions: tuple[int, int]

    @property
    def unchanged(self) -> bool:
        """Whether neither was changed in place since."""
        return self.versions == (self.inputs._version, self.output._version)


@dataclass
class Backward:
    """One backward: what it carries, and whose gradients came.

    Attributes:
        lines: the outputs or probes it carries.
        seeds: what it starts from, (lines, batch, outputs); None where it does not start at the outputs.
        known: gradients of each map, by name, that were added before memory ran out half-way through it: as
            many come again and are passed over.
        seen: gradients of each map that came.
    """

    lines: list[int]
    seeds: Tensor | None
    known: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    def is_known(self, name: str) -> bool:
        """Whether the gradient of a map that comes now was added before."""
        return self.seen.get(name, 0) < self.known.get(name, 0)

    def count(self, name: str) -> None:
        """A gradient of a map was dealt with."""
        self.seen[name] = self.seen.get(name, 0) + 1

    def added(self) -> dict[str, int]:
        """Gradients of each map that need not be added any more."""
        names = {*self.seen, *self.known}
        return {name: max(self.seen.get(name, 0), self.known.get(name, 0)) for name in names}


@dataclass
class Forward:
    """One forward pass and, when it is done, the backwards from its outputs.

    Attributes:
        rows: vectors that each map acted on, by name.
        most_bytes: of the largest output of a map.
        last_call: of a whole linear layer.
        ends: outputs of the maps measured, where not all are: no backward needs to go further.
        without_gradients: sites that were called so.
        done: whether it is over; what is called then is run again by a backward (checkpointing).
        backward: the one under way.
    """

    rows: dict[str, int] = field(default_factory=dict)
    most_bytes: int = 0
    last_call: Call | None = None
    ends: list[Tensor] = field(default_factory=list)
    without_gradients: set[Site] = field(default_factory=set)
    done: bool = False
    backward: Backward | None = None

    def end(self) -> None:
        """The outputs are there."""
        self.done = True

    def note(self, name: str, rows: int) -> None:
        """A map acted on so many vectors."""
        self.rows[name] = self.rows.get(name, 0) + rows

    def note_output(self, z: Tensor, *, is_end: bool) -> None:
        """The output of a site, at which backwards end where ``is_end``."""
        self.most_bytes = max(self.most_bytes, z.nbytes)
        if is_end:
            self.ends.append(z)

    def note_call(self, call: Call) -> None:
        """A whole linear layer was called."""
        self.last_call = call

    def begin(self, backward: Backward) -> None:
        """Gradients that come from now on belong to this backward."""
        self.backward = backward

    def finish(self) -> None:
        """Gradients that come from now on are none of a measurement."""
        self.backward = None
