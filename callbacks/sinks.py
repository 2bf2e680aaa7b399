"""What a run tells its loggers: numbers to every one, pictures and files to those that take them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from nfa import AnsatzRow
from nfa.ansatz.curves import ALL_STATISTICS, metrics_of, summary_metrics
from nfa.ansatz.pictures import LayerPicture


@runtime_checkable
class Sink(Protocol):
    """A logger of the lab: it is told more than the metrics that Lightning logs."""

    def file_under(
        self, kind: str, group: str | None = None, description: Mapping[str, Any] | None = None
    ) -> None:
        """Say what the run is of, before anything is logged.

        Args:
            kind: of the model, ``net`` or ``kernel``.
            group: of the runs that are compared; None for a run by itself.
            description: ``model``, ``data``, ``seed`` and the ``options`` that were typed.
        """

    def log_measurement(
        self, rows: Sequence[AnsatzRow], epoch: float, step: int, history: Sequence[AnsatzRow] = ()
    ) -> None:
        """Log one measurement; ``history`` has the rows of all up to it."""

    def log_layers(self, pictures: Sequence[LayerPicture], history: Sequence[AnsatzRow]) -> None:
        """Log the pictures of the final network, and all measurements as one table."""

    def log_results(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Log what a finished run left in its folder."""

    @property
    def sync_command(self) -> str | None:
        """What is typed to upload the run; None where there is nothing to upload."""


class NumbersAlone:
    """A `Sink` before any other logger: it gets the numbers of every measurement, and no table of them."""

    sync_command = None

    def __init__(self, logger: Logger):
        self.logger = logger

    def file_under(
        self, kind: str, group: str | None = None, description: Mapping[str, Any] | None = None
    ) -> None:
        """Not told."""

    def log_measurement(
        self, rows: Sequence[AnsatzRow], epoch: float, step: int, history: Sequence[AnsatzRow] = ()
    ) -> None:
        """Log one measurement: its curves, and all statistics as metrics ``nfa/<statistic>/<layer>``."""
        numbers = {**metrics_of(rows, ALL_STATISTICS), **summary_metrics(rows)}
        self.logger.log_metrics({**numbers, "nfa/epoch": epoch}, step=step)

    def log_layers(self, pictures: Sequence[LayerPicture], history: Sequence[AnsatzRow]) -> None:
        """Not told."""

    def log_results(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Not told."""


def sink_of(logger: Any) -> Sink:
    """The logger itself where it is a `Sink`."""
    return logger if isinstance(logger, Sink) else NumbersAlone(logger)


def sinks_of(trainer: pl.Trainer) -> list[Sink]:
    """Those of a trainer's loggers."""
    return [sink_of(logger) for logger in trainer.loggers]
