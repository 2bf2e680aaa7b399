"""``AnsatzMonitor`` for any ``LightningModule``, under ``pytorch_lightning`` and under ``lightning``.

What a Trainer takes for a callback must be one of its own framework's. Where both are installed the class is
of both, so that it does not matter which of them a project uses, nor what it imports first.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nfa.ansatz.curves import metrics_of, summary_metrics
from nfa.ansatz.row import AnsatzRow
from nfa.checks import network_of, whole_or_none
from nfa.errors import NfaError
from nfa.integrations.wandb_training import AXIS, TrainingCurves, is_of
from nfa.layers.maps import find_maps, has_unbuilt
from nfa.monitor.cost import Pace, cost_sentence, every_within
from nfa.monitor.digest import digest_of
from nfa.monitor.record import Record
from nfa.monitor.samples import (
    InputFn,
    Pair,
    first_samples,
    from_first_process,
    in_parts,
    is_readable,
    samples_in,
    shared_samples,
)
from nfa.terminal import say

FRAMEWORKS = ("pytorch_lightning", "lightning.pytorch")
_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


def _callbacks() -> tuple[type, ...]:
    """The class ``Callback`` of every framework that is installed."""
    found = []
    for name in FRAMEWORKS:
        try:
            found.append(importlib.import_module(name).Callback)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    if not found:
        raise NfaError("nfa.integrations.lightning needs Lightning: pip install lightning")
    return tuple(found)


def epochs_trained(trainer: Any) -> float:
    """Epochs behind the network as it is now, with the share of the one that runs; of kernel machines rounds.

    0 before training. What validates after the last batch of the first epoch is the network of epoch 1, as
    is what the epoch ends with. An epoch that is cut short counts as one at its end.
    """
    loop = trainer.fit_loop
    epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
    if epochs.ready == epochs.completed:  # between two epochs, before the first, or after the last
        return float(epochs.completed)
    if epochs.processed > epochs.completed or loop.epoch_loop.done:
        return epochs.completed + 1.0
    return epochs.completed + batches.ready / trainer.num_training_batches


class AnsatzMonitor(Record, *_callbacks()):  # type: ignore[misc]  # of those that are installed
    """Audit a network at the beginning of its training, every few epochs or steps, and at the end.

    Training goes on as if nothing was measured, bit for bit. Rows are logged to every logger of the trainer
    as ``nfa/<statistic>/<layer>``, on W&B as curves of the network and a table with charts of its layers, and
    are part of its checkpoints. Under DDP each rank measures its share of the samples.

    Args:
        every_n_epochs: measure after every so many epochs, 0 for only the beginning and the end; None for as
            many as the ``budget`` allows, or 1.
        every_n_steps: also measure after every so many optimizer steps; None for not.
        budget: share of the training time that measuring may take; 0.2 chooses ``every_n_epochs`` once, from
            the first measurement and the first epoch. Where a cadence is given it has no say.
        batches: whatever `nfa.audit` takes, a datamodule too; None takes the first of the training.
        samples: of these, kept for all measurements.
        batch_size: of them at once, and in each group behind the standard errors; None for the batches as
            they come.
        network: what to measure: the name of an attribute of the module, or a function of the module. None
            takes the module itself or, where it has no ``forward``, its only child with weights.
        input_fn: makes of a batch one that `nfa.audit` takes; for batches of more than inputs and a target.
        folder: gets ``ansatz.csv`` and ``ansatz.html`` after every measurement; None writes nothing.
        quiet: do not say what measuring costs.
        seed: of the samples, probes and nulls.
        **options: of `nfa.audit`: ``layers``, ``power``, ``probes``, ``nulls``, ``output_fn``, ….

    Attributes:
        history: the rows of all measurements, in order; ``row.epoch`` says when.
        report: the last measurement.
        initial: the one at the beginning.
        every: epochs from one measurement to the next, where a budget chose them.
        seconds: time spent measuring.

    Raises:
        NfaError: bad arguments (at once), a network or data that cannot be measured (when training starts).
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        *,
        budget: float | None = None,
        batches: Any = None,
        samples: int = 256,
        batch_size: int | None = 32,
        network: str | Callable[[Any], nn.Module] | None = None,
        input_fn: InputFn | None = None,
        folder: str | os.PathLike | None = None,
        quiet: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(samples, batch_size, seed, budget, options, AnsatzMonitor)
        self.every_n_epochs = whole_or_none("every_n_epochs", every_n_epochs)
        self.every_n_steps = whole_or_none("every_n_steps", every_n_steps, 1)
        if every_n_epochs is not None or every_n_steps is not None:
            self.budget = None
        self.batches, self.network, self.input_fn = batches, network, input_fn
        self.folder = None if folder is None else Path(folder)
        self.quiet = quiet
        self._pairs: list[Pair] | None = None
        self._measured: tuple[int, str] | None = None  # at which step, and which weights
        self._step, self._resumed = 0, False
        self._pace: Pace | None = None
        self._curves = TrainingCurves()

    # ---- when ----------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure the initial network, unless a checkpoint brought that along."""
        if type(trainer.strategy).__name__ in _SHARDING:
            raise NfaError(
                f"the weights are in parts on several devices ({type(trainer.strategy).__name__}): measure a "
                "checkpoint of them with nfa.audit instead"
            )
        if trainer.global_step == 0 and not self._resumed:
            self.begin_anew()
        self._step, self._pace, self._resumed = trainer.global_step, Pace(), False
        self._curves.begin_anew()
        self._pairs = self.choose_samples(trainer)
        network = self.network_in(pl_module)
        if not has_unbuilt(network):
            find_maps(network, self.options.get("layers"))  # unknown layers: say so before anything runs
        if self._pairs is not None:
            self._begin(trainer, pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Take the first batch of a stream, which could not be read before."""
        if self._pairs is None:
            self._pairs = shared_samples(first_samples([batch], self.samples, self.seed, self.input_fn))
            self._begin(trainer, pl_module)
        if self._pace is not None and not self._pace.begun:
            self._pace.tick(self.seconds)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure every ``every_n_steps`` steps."""
        before, self._step = self._step, trainer.global_step
        if self._pace is not None:
            self._pace.tick(self.seconds)
            is_told = self._pace.known or self._step >= (self.every_n_steps or 0)
            if self.every_n_steps and self.cost and is_told:
                self._tell_cost(self._pace.step, "step", self.every_n_steps, trainer)
        # a batch may be several steps, of several optimizers
        is_due = self.every_n_steps and self._step // self.every_n_steps > before // self.every_n_steps
        if is_due and self._step != (self._measured and self._measured[0]):
            self._measure(trainer, pl_module, epochs_trained(trainer))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure every ``every_n_epochs`` epochs."""
        epoch = trainer.current_epoch + 1
        every = self._every(trainer)
        due = every and epoch % every == 0
        if (due or epoch == trainer.max_epochs) and self._measured != self._now(trainer, pl_module):
            self._measure(trainer, pl_module, float(epoch))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure the final network, if that was not just done: weights may be averaged at the end."""
        if self._pairs is not None and self._measured != self._now(trainer, pl_module):
            self._measure(trainer, pl_module, float(trainer.current_epoch))

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        if self.initial is None:  # not so on resume, unless the run was not measured before
            self._measure(trainer, pl_module, float(trainer.current_epoch))

    def _every(self, trainer: Any) -> int:
        """Epochs from measurement to measurement: chosen, and their cost said, when the first one ends."""
        unit = self._pace.total if self._pace is not None and self._pace.durations else None
        if unit and not self.cost:  # version 0.1 kept none: the next measurement tells
            self._pace, unit = Pace(), None
        if unit and self.budget is not None and self.every is None:
            total = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None
            self.every = from_first_process(every_within(self.budget, self.cost, unit, total))
        every = self.every_n_epochs if self.every_n_epochs is not None else self.every or 1
        if unit:
            self._tell_cost(unit, "epoch", every, trainer)
        return every

    def _tell_cost(self, unit: float, name: str, every: int, trainer: Any) -> None:
        self._pace = None
        if self.quiet or not trainer.is_global_zero or self._pairs is None:
            return
        option, samples = f"every_n_{name}s", samples_in(self._pairs)
        say(cost_sentence(
            self.cost, unit, every, name=name, option=option, samples=samples, budget=self.budget
        ))  # fmt: skip

    def _now(self, trainer: Any, pl_module: Any) -> tuple[int, str]:
        return trainer.global_step, from_first_process(digest_of(self.network_in(pl_module)))

    # ---- what ----------------------------------------------------------------------------------------------

    def network_in(self, pl_module: Any) -> nn.Module:
        """What is measured of a module.

        Raises:
            NfaError: that is not clear.
        """
        if isinstance(self.network, str):
            try:
                return network_of(pl_module.get_submodule(self.network))
            except AttributeError as error:
                raise NfaError(f"network={self.network!r} is no part of the module: {error}") from None
        if self.network is not None:
            return network_of(self.network(pl_module))
        if not type(pl_module).forward.__module__.startswith(tuple(f"{name}." for name in FRAMEWORKS)):
            return pl_module
        parts = [name for name, child in pl_module.named_children() if any(True for _ in child.parameters())]
        if len(parts) == 1:
            return pl_module.get_submodule(parts[0])
        raise NfaError(
            f"{type(pl_module).__name__} has no forward, and {', '.join(parts) or 'nothing'} in it has "
            "weights: say what to measure with network='NAME', or with a function of the module"
        )

    def choose_samples(self, trainer: Any) -> list[Pair] | None:
        """The samples to measure on, the same on all ranks; None where the first batch is waited for."""
        if self.batches is not None:
            return shared_samples(first_samples(self.batches, self.samples, self.seed, self.input_fn))
        loader = trainer.train_dataloader
        if not is_readable(loader):
            return None
        device = trainer.strategy.batch_to_device
        to_inputs = self.input_fn or in_parts
        pairs = first_samples(loader, self.samples, self.seed, lambda batch: to_inputs(device(batch)))
        return shared_samples(pairs)

    def _measure(self, trainer: Any, pl_module: Any, epoch: float) -> None:
        assert self._pairs is not None  # chosen when training began
        rows = self.audit_now(self.network_in(pl_module), self._pairs, epoch)
        self._measured = self._now(trainer, pl_module)
        if trainer.is_global_zero:
            self.tell(trainer, rows, epoch)

    def tell(self, trainer: Any, rows: Sequence[AnsatzRow], epoch: float) -> None:
        """Log a measurement, on the first rank: every layer, but on W&B curves of all, a table and charts."""
        numbers = {**metrics_of(rows), **summary_metrics(rows), AXIS: epoch}
        runs = []
        for logger in trainer.loggers:
            if is_of(logger, "WandbLogger"):
                runs.append(logger.experiment)
            else:
                logger.log_metrics(numbers, step=trainer.global_step)
        self._curves.tell(runs, rows, self.history, epoch)
        if self.folder is not None:
            self.write(self.folder, f"epoch {epoch:g}")

    # ---- resume --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training goes on from."""
        return {**super().state_dict(), "measured": list(self._measured or ())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows, the initial weights and the cadence of a checkpoint."""
        super().load_state_dict(state_dict)
        self._resumed = True
        self._measured = tuple(state_dict.get("measured", ())) or None  # version 0.1 kept no digest
