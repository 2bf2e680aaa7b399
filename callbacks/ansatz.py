"""Measure the ansatz in every layer while a model trains, without changing the training by one bit."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from callbacks.epochs import epochs_trained
from callbacks.features import write_features
from callbacks.final import FinalNetwork, digest_of
from callbacks.memory import forget_peak, peak_memory_mb
from callbacks.sinks import sinks_of
from lab.options import ANSATZ, check_all
from nfa import AnsatzReport, AnsatzRow, NfaError, audit
from nfa.ansatz.pictures import LayerPicture, layer_pictures
from nfa.ansatz.row import write_csv
from nfa.layers.maps import find_maps, has_unbuilt


class AnsatzMonitor(FinalNetwork):
    """Audit ``pl_module.network`` at initialisation, every few epochs or steps, and as it is tested.

    The samples are a fixed, stratified subset of the training data, normalised and never augmented. Under
    DDP each rank measures its share and the sums are added up. Writes ``ansatz.csv`` after every
    measurement, logs ``nfa/<statistic>/<layer>`` to every logger, pictures and the table of all rows to
    W&B, and ``features.safetensors`` at the end.

    Args:
        every_n_epochs: measure after every so many epochs; 0 for only the beginning and the end.
        every_n_steps: also measure after every so many optimizer steps; None for not.
        samples: training samples to measure on.
        batch_size: samples a forward of the measurement.
        layers: glob pattern or patterns of layer names; None for all.
        power: exponent α in ``N ∝ G^α``.
        probes: random output combinations a sample; None differentiates every output.
        nulls: random rotations behind each null.
        chunk: outputs carried by one batched backward.
        pictures: layers drawn in the report and on W&B.
        seed: of the samples, probes and nulls.

    Attributes:
        history: the rows of all measurements, in order.
        report: the last measurement.
        drawn: pictures of some layers of the final network.
        seconds: time spent measuring.
        fitting_mb: peak memory up to the last measurement, measurements left out; and
        measuring_mb: that of the measurements.

    Raises:
        NfaError: numbers out of range (at once), unknown layers (when training starts).
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        samples: int = 256,
        batch_size: int = 64,
        layers: str | Sequence[str] | None = None,
        power: float = 0.5,
        probes: int | None = None,
        nulls: int = 32,
        chunk: int = 1,
        pictures: int = 8,
        seed: int = 0,
    ):
        self.options = {"layers": layers, "power": power, "probes": probes, "nulls": nulls, "chunk": chunk}
        when = {"every_n_epochs": every_n_epochs, "every_n_steps": every_n_steps}
        what = {"samples": samples, "batch_size": batch_size, "pictures": pictures, "seed": seed}
        check_all("callbacks.ansatz", ANSATZ, when | what | self.options)
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.samples, self.batch_size, self.pictures, self.seed = samples, batch_size, pictures, seed
        self.history: list[AnsatzRow] = []
        self.initial: AnsatzReport | None = None
        self.report: AnsatzReport | None = None
        self.seconds = 0.0
        self.fitting_mb = self.measuring_mb = 0.0
        self.drawn: list[LayerPicture] = []
        self._measured: tuple[int, str] | None = None  # at which step, and which weights
        self._probe: tuple[Tensor, Tensor] | None = None

    @property
    def power(self) -> float:
        """Exponent α in ``N ∝ G^α``."""
        return self.options["power"]

    # ---- when ----------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the initial network, unless a checkpoint brought that along."""
        self._choose_samples(trainer)
        if not has_unbuilt(pl_module.network):
            find_maps(
                pl_module.network, self.options["layers"]
            )  # unknown layers: say so before anything runs
        if self.initial is None:  # not so on resume, unless the run was not measured before
            self._measure(trainer, pl_module, float(trainer.current_epoch))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure every ``every_n_steps`` steps."""
        step, measured_at = trainer.global_step, self._measured and self._measured[0]
        if self.every_n_steps and step % self.every_n_steps == 0 and step != measured_at:
            self._measure(trainer, pl_module, epochs_trained(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure every ``every_n_epochs`` epochs."""
        epoch = trainer.current_epoch + 1
        due = self.every_n_epochs and epoch % self.every_n_epochs == 0
        if (due or epoch == trainer.max_epochs) and self._measured != self._now(trainer, pl_module):
            self._measure(trainer, pl_module, float(epoch))

    def conclude(self, trainer: pl.Trainer, pl_module: pl.LightningModule, digest: str) -> None:
        """Measure the final network if that was not just done; pictures, table and features."""
        self._choose_samples(trainer)
        measured = self._measured == (trainer.global_step, digest)
        if self.report is None or not measured:
            again = measured and self.history  # by the run that the checkpoint is of
            epoch = self.history[-1].epoch if again else float(trainer.current_epoch)
            self._measure(trainer, pl_module, epoch)
        if not trainer.is_global_zero:
            return
        with self._set_apart():
            shape = trainer.datamodule.input_shape
            self.drawn = self._draw(pl_module, shape)
            for sink in sinks_of(trainer):
                sink.log_layers(self.drawn, self.history)
            path = Path(trainer.default_root_dir) / "features.safetensors"
            write_features(path, pl_module.network, self.report, self._probe[0].split(self.batch_size))

    def _draw(self, pl_module: pl.LightningModule, input_shape: Sequence[int]) -> list[LayerPicture]:
        if not self.pictures:
            return []
        return layer_pictures(
            self.report, pl_module.network, power=self.power, count=self.pictures, input_shape=input_shape
        )

    def _choose_samples(self, trainer: pl.Trainer) -> None:
        self._probe = trainer.datamodule.probe(self.samples, seed=self.seed)
        if len(self._probe[0]) < trainer.world_size:
            raise NfaError(
                f"callbacks.ansatz.samples={len(self._probe[0])} cannot be shared by {trainer.world_size} "
                "processes: raise it"
            )

    @staticmethod
    def _now(trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[int, str]:
        return trainer.global_step, trainer.strategy.broadcast(digest_of(pl_module.network))

    # ---- what ----------------------------------------------------------------------------------------------

    @contextmanager
    def _set_apart(self) -> Iterator[None]:
        """Context whose seconds and memory count as measuring, and not as fitting."""
        start = time.perf_counter()
        self.fitting_mb = max(self.fitting_mb, peak_memory_mb())
        forget_peak()
        yield
        self.measuring_mb = max(self.measuring_mb, peak_memory_mb())
        forget_peak()
        self.seconds += time.perf_counter() - start

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: float) -> None:
        with self._set_apart():
            distributed = trainer.world_size > 1
            x, y = (part[trainer.global_rank :: trainer.world_size] for part in self._probe)
            batches = list(zip(x.split(self.batch_size), y.split(self.batch_size), strict=True))
            self.report = audit(
                pl_module.network,
                batches,
                initial_state=self.initial,
                seed=self.seed,
                distributed=distributed,
                **self.options,
            )
            if self.initial is None and epoch == 0:
                self.initial = self.report
            rows = [dataclasses.replace(row, epoch=epoch) for row in self.report.rows]
            self.history = [row for row in self.history if row.epoch != epoch] + rows
            self._measured = self._now(trainer, pl_module)
            if trainer.is_global_zero:
                write_csv(Path(trainer.default_root_dir) / "ansatz.csv", self.history, with_epoch=True)
                for sink in sinks_of(trainer):
                    sink.log_measurement(rows, epoch, trainer.global_step)

    # ---- resume --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, and the weights at initialisation; plain types and tensors."""
        return {
            "history": [dataclasses.asdict(row) for row in self.history],
            "initial_rows": [dataclasses.asdict(row) for row in self.initial.rows] if self.initial else None,
            "initial_weights": self.initial.weights if self.initial else {},
            "seconds": self.seconds,
            "measured": list(self._measured or ()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows and the initial weights of a checkpoint."""
        self.history = [AnsatzRow(**row) for row in state_dict["history"]]
        if state_dict["initial_rows"] is not None:
            rows = [AnsatzRow(**row) for row in state_dict["initial_rows"]]
            self.initial = AnsatzReport(rows=rows, weights=dict(state_dict["initial_weights"]))
        self.seconds = state_dict["seconds"]
        self._measured = tuple(state_dict.get("measured", ())) or None  # version 0.1 kept no digest

    def mean(self, column: str) -> float:
        """Mean of a column over the layers of the last measurement, undefined values left out."""
        values = [getattr(row, column) for row in self.report.rows if row.measured] if self.report else []
        values = [value for value in values if math.isfinite(value)]
        return sum(values) / len(values) if values else math.nan
