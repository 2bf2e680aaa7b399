"""The monitor of the lab: that of any Lightning project, with the lab's samples, files and loggers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from callbacks.data_gradients import FACT, SNAPSHOT, DataGradients, check_fact, why_not
from callbacks.features import write_features
from callbacks.final import FinalNetwork
from callbacks.memory import forget_peak, peak_memory_mb
from callbacks.sinks import sinks_of
from lab.options import ANSATZ, check_all
from nfa import AnsatzRow, NfaError
from nfa.ansatz.pictures import LayerPicture, layer_pictures
from nfa.ansatz.row import write_csv
from nfa.integrations import lightning
from nfa.monitor.samples import Pair, samples_in
from nfa.nets.expansion import Expansion


class AnsatzMonitor(lightning.AnsatzMonitor, FinalNetwork):
    """Audit ``pl_module.network`` at initialisation, every few epochs or steps, and as it is tested.

    The samples are a fixed, stratified subset of the training data, normalised and never augmented. Under
    DDP each rank measures its share and the sums are added up. Writes ``ansatz.csv`` after every
    measurement, logs the curves of `nfa.ansatz.curves.summary_metrics` to every logger, all layers to
    TensorBoard one by one and to W&B in one table, pictures to W&B, and ``features.safetensors`` at the end.

    Args:
        every_n_epochs: measure after every so many epochs, 0 for only the beginning and the end; None for as
            many as the ``budget`` allows, or 1.
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
        fact: compare ``WᵀW`` with FACT, of the mean gradient of training since the measurement before, and of
            that of the samples now (``mean``); ``none`` for not. None is ``mean`` where the optimizer has
            coupled weight decay, and else ``none``.
        budget: share of the training time that measuring may take; 0.2 chooses ``every_n_epochs`` once, from
            the first measurement and the first epoch. Where a cadence is given it has no say.

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
        every_n_epochs: int | None = None,
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
        budget: float | None = None,
        fact: str | None = None,
    ):
        options = {"layers": layers, "power": power, "probes": probes, "nulls": nulls, "chunk": chunk}
        when = {"every_n_epochs": every_n_epochs, "every_n_steps": every_n_steps, "budget": budget}
        what = {"samples": samples, "batch_size": batch_size, "seed": seed}
        check_all("callbacks.ansatz", ANSATZ, {**when, **what, **options, "pictures": pictures, "fact": fact})
        super().__init__(**when, **what, **options)
        self.pictures, self.fact = pictures, fact
        self._gradients: DataGradients | None = None
        self._saved_gradients: dict[str, Any] | None = None
        self._module: Any = None  # whose loss it is
        self._again = False  # what was measured before, of which the report is not at hand
        self.fitting_mb = self.measuring_mb = 0.0
        self.drawn: list[LayerPicture] = []

    @property
    def power(self) -> float:
        """Exponent α in ``N ∝ G^α``."""
        return self.options["power"]

    def be_one_of_many(self) -> None:
        """Measure as the other jobs of a sweep do, whatever the speed of this one, and say less."""
        self.budget, self.quiet = None, True

    def network_in(self, pl_module: pl.LightningModule) -> nn.Module:
        """What is measured of a module of the lab."""
        if isinstance(pl_module.network, Expansion):
            raise NfaError(
                "model.expand makes a model without layers, of which no ansatz is measured: give "
                "callbacks.ansatz=null, or callbacks=none"
            )
        return pl_module.network

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to follow the gradients, where they are to be compared with; then measure the start."""
        self._gradients, self._module = None, pl_module
        optimizers = trainer.optimizers if hasattr(pl_module, "loss") else []
        if self.fact == "mean":
            check_fact(optimizers, getattr(pl_module, "kind", "net"))
        if self.fact != "none" and optimizers and why_not(optimizers) is None:
            self._gradients = DataGradients(pl_module.network, optimizers, self.options["layers"])
            if self._saved_gradients is not None:
                self._gradients.load_state_dict(self._saved_gradients)
        self._saved_gradients = None
        super().on_train_start(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """See the gradients of the data, before decay is added to them."""
        if self._gradients is not None:
            self._gradients.see()

    def audit_now(self, network: nn.Module, pairs: Sequence[Pair], at: float) -> list[AnsatzRow]:
        """Measure, FACT among the rest."""
        recorded = [row for row in self.history if row.epoch == at] if self._again else []
        rows = super().audit_now(network, pairs, at)
        if self._gradients is None or self.report is None:
            return rows
        with self.set_apart():
            if recorded:  # the gradients that these are of have been forgotten
                columns = (*FACT, *SNAPSHOT)
                found = {row.layer: {name: getattr(row, name) for name in columns} for row in recorded}
            else:
                snapshot = self._gradients.snapshot(self._module, *pairs[0], self.batch_size)
                found = self._gradients.numbers(snapshot)
            self._gradients.begin_anew()
            rows = [replace(row, **found.get(row.layer, {})) for row in rows]
            self.report.rows = [replace(row, **found.get(row.layer, {})) for row in self.report.rows]
            self.history = [row for row in self.history if row.epoch != at] + rows
        return rows

    def state_dict(self) -> dict[str, Any]:
        """With the gradients since the last measurement, where there are any."""
        state = super().state_dict()
        if self._gradients is not None and self._gradients.steps:
            state["gradients"] = self._gradients.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """With the gradients since the last measurement."""
        super().load_state_dict(state_dict)
        saved = state_dict.get("gradients")
        if saved is not None and not (isinstance(saved, dict) and {"steps", "sums"} <= set(saved)):
            raise NfaError("the checkpoint holds no gradients of callbacks.ansatz.fact")
        self._saved_gradients = saved

    def choose_samples(self, trainer: pl.Trainer) -> list[Pair]:
        """The probe of the lab's data, as one batch."""
        pairs = [trainer.datamodule.probe(self.samples, seed=self.seed)]
        if samples_in(pairs) < trainer.world_size:
            raise NfaError(
                f"callbacks.ansatz.samples={samples_in(pairs)} cannot be shared by {trainer.world_size} "
                "processes: raise it"
            )
        return pairs

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Conclude with the network that is tested."""
        FinalNetwork.on_train_end(self, trainer, pl_module)

    def conclude(self, trainer: pl.Trainer, pl_module: pl.LightningModule, digest: str) -> None:
        """Measure the final network if that was not just done; pictures, table and features."""
        self._pairs = self.choose_samples(trainer)
        measured = self._measured == (trainer.global_step, digest)
        if self.report is None or not measured:
            self._again = measured and bool(self.history)  # by the run that the checkpoint is of
            epoch = self.history[-1].epoch if self._again else float(trainer.current_epoch)
            self._measure(trainer, pl_module, epoch)
            self._again = False
        if not trainer.is_global_zero:
            return
        with self.set_apart():
            self.drawn = self._draw(pl_module, trainer.datamodule)
            for sink in sinks_of(trainer):
                sink.log_layers(self.drawn, self.history)
            path = Path(trainer.default_root_dir) / "features.safetensors"
            ((inputs, _),) = self._pairs
            write_features(path, pl_module.network, self.report, inputs.split(self.batch_size))

    def _draw(self, pl_module: pl.LightningModule, datamodule: pl.LightningDataModule) -> list[LayerPicture]:
        if not self.pictures:
            return []
        shape = datamodule.input_shape
        drawn = layer_pictures(
            self.report, pl_module.network, power=self.power, count=self.pictures, input_shape=shape
        )
        if (basis := getattr(datamodule, "picture_basis", None)) is None:
            return drawn
        return [*drawn[:1], *self._in_basis(drawn[:1], *basis()), *drawn[1:]]

    def _in_basis(self, drawn: Sequence[LayerPicture], name: str, B: Tensor) -> list[LayerPicture]:
        """Matrices of a layer in a basis that the data know, the rows of B; where it is of their inputs."""
        assert self.report is not None  # it is drawn
        found = []
        for picture in drawn:
            pair = self.report.pair(picture.layer)
            N, G = pair.nfm().double(), pair.agop(self.power).double()
            if N.shape == G.shape == (B.shape[1], B.shape[1]):
                found.append(LayerPicture(f"{picture.layer}, {name}", nfm=B @ N @ B.mT, agop=B @ G @ B.mT))
        return found

    def tell(self, trainer: pl.Trainer, rows: Sequence[AnsatzRow], epoch: float) -> None:
        """Write the rows of all measurements, and log those of this one."""
        with self.set_apart():
            write_csv(Path(trainer.default_root_dir) / "ansatz.csv", self.history, with_epoch=True)
            for sink in sinks_of(trainer):
                sink.log_measurement(rows, epoch, trainer.global_step, self.history)

    @contextmanager
    def set_apart(self) -> Iterator[Any]:
        """Context whose seconds and memory count as measuring, and not as fitting."""
        self.fitting_mb = max(self.fitting_mb, peak_memory_mb())
        forget_peak()
        with super().set_apart() as spent:
            yield spent
        self.measuring_mb = max(self.measuring_mb, peak_memory_mb())
        forget_peak()
