"""A network in training on W&B runs of other people's projects: the same keys, whoever trains it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nfa.ansatz.curves import summary_metrics
from nfa.ansatz.row import AnsatzRow
from nfa.integrations import wandb_sink

if TYPE_CHECKING:
    from wandb import Run

AXIS = "nfa/epoch"  # the epoch of a trainer leaves out the one that runs, or is no axis of its own


def is_of(thing: object, kind: str) -> bool:
    """Whether a class of that name is among those of an object; several frameworks have it."""
    return any(own.__name__ == kind for own in type(thing).__mro__)


class TrainingCurves:
    """Curves at every measurement; a table of all layers with charts, the more rarely the longer it is."""

    def __init__(self):
        self._drawn = 0  # measurements that the last table had

    def begin_anew(self) -> None:
        """Another training begins."""
        self._drawn = 0

    def tell(
        self, runs: Sequence["Run"], rows: Sequence[AnsatzRow], history: Sequence[AnsatzRow], epoch: float
    ) -> None:
        """Log a measurement.

        Args:
            runs: that are open in this process.
            rows: of the measurement.
            history: of all, this one among them.
            epoch: behind the network.
        """
        measurements = len({row.epoch for row in history})
        is_drawn = wandb_sink.has_grown(measurements, self._drawn)
        for run in runs:
            # by name: of two patterns, "*" of the trainers among them, W&B takes either
            wandb_sink.define_axes(run, AXIS, [*summary_metrics(rows)], hidden=(AXIS,))
            wandb_sink.log_measurement(run, rows, epoch, AXIS)
            if is_drawn:
                wandb_sink.log_layers(run, history, epoch, AXIS)
        self._drawn = measurements if is_drawn else self._drawn
