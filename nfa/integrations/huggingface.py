"""``AnsatzCallback`` for the Trainer of Hugging Face's ``transformers``."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nfa.ansatz.curves import metrics_of, summary_metrics
from nfa.ansatz.row import AnsatzRow
from nfa.checks import network_of, whole_or_none
from nfa.errors import NfaError
from nfa.files import replaced_whole
from nfa.integrations.wandb_training import TrainingCurves, is_of
from nfa.monitor.cost import Pace
from nfa.monitor.digest import digest_of
from nfa.monitor.monitor import EVERY, unwrapped
from nfa.monitor.record import Record
from nfa.monitor.samples import InputFn, Pair, first_samples, is_readable, samples_in, shared_samples
from nfa.monitor.samples import from_first_process as from_first
from nfa.terminal import say

if TYPE_CHECKING:
    from wandb import Run

STATE = "ansatz.pt"  # beside the weights in a checkpoint


class AnsatzCallback(TrainerCallback, Record):
    """Audit a network at the beginning of its training, every few optimizer steps, and at the end.

    Training goes on as if nothing was measured, bit for bit. What was measured is a file ``ansatz.pt`` in
    every checkpoint of the Trainer, from which a resumed training goes on. In distributed training each
    process measures its share of the samples.

    Args:
        every: measure after every so many optimizer steps, 0 for only the beginning and the end; None for as
            many as the ``budget`` allows, or 100.
        budget: share of the training time that measuring may take; 0.2 chooses ``every`` once, from the first
            measurement and the first steps. Where ``every`` is given it has no say.
        batches: whatever `nfa.audit` takes; None takes the first of the training.
        samples: of these, kept for all measurements.
        batch_size: of them at once, and in each group behind the standard errors; None for the batches as
            they come.
        input_fn: makes of a batch one that `nfa.audit` takes.
        log: ``trainer.log``, to which rows go as ``nfa/<statistic>/<layer>``; None logs nothing. Where the
            Trainer reports to W&B, the run there gets curves of the network, and a table with charts of its
            layers, instead; what else it reports to gets these curves.
        folder: gets ``ansatz.csv`` and ``ansatz.html`` after every measurement; None writes nothing.
        quiet: do not say what measuring costs.
        seed: of the samples, probes and nulls.
        **options: of `nfa.audit`: ``layers``, ``power``, ``probes``, ``nulls``, ``output_fn``, ….

    Attributes:
        history: the rows of all measurements, in order; ``row.epoch`` says when.
        report: the last measurement.
        initial: the one at the beginning.
        every: optimizer steps from one measurement to the next; None while it is not chosen yet.
        seconds: time spent measuring.

    Raises:
        NfaError: bad arguments (at once), a network or data that cannot be measured (when training starts).
    """

    def __init__(
        self,
        every: int | None = None,
        *,
        budget: float | None = None,
        batches: Any = None,
        samples: int = 256,
        batch_size: int | None = 32,
        input_fn: InputFn | None = None,
        log: Callable[[dict[str, float]], Any] | None = None,
        folder: str | os.PathLike | None = None,
        quiet: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        Record.__init__(self, samples, batch_size, seed, budget, options, AnsatzCallback)
        self.given = whole_or_none("every", every)
        if self.given is not None:
            self.budget = None
        elif self.budget is None:
            self.given = EVERY
        self.every = self.given
        self.batches, self.input_fn, self.log = batches, input_fn, log
        self.folder = None if folder is None else Path(folder)
        self.quiet = quiet
        self._pairs: list[Pair] = []
        self._pace: Pace | None = None
        self._measured = ""
        self._curves = TrainingCurves()

    # ---- when ----------------------------------------------------------------------------------------------

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Measure the initial network, or go on from what a checkpoint holds."""
        self._pace = Pace()
        self.begin_anew()
        self._curves.begin_anew()
        self.every = self.given
        if state.global_step > 0:
            self._go_on_from(args, state)
        if self.batches is None and not is_readable(train_dataloader):
            raise NfaError("the training data can be read only once: say what to measure on with batches=")
        source = train_dataloader if self.batches is None else self.batches
        self._pairs = shared_samples(first_samples(source, self.samples, self.seed, self.input_fn))
        if self.initial is None:
            self._measure(args, state, model)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first step begins."""
        if self._pace is not None and not self._pace.begun:
            self._pace.tick(self.seconds)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure every so many optimizer steps."""
        step = state.global_step
        if self._pace is not None:
            self._pace.tick(self.seconds)
            if self._pace.known or (self.every and step % self.every == 0) or step == state.max_steps:
                self._tell_cost(state, self._pace)
        if self.every and step % self.every == 0:
            self._measure(args, state, model)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure the final network, if that was not just done: the best one may have been loaded."""
        if self._measured != from_first(digest_of(unwrapped(network_of(model)))):
            self._measure(args, state, model)

    def _tell_cost(self, state: TrainerState, pace: Pace) -> None:
        self._pace = None
        told = self.choose_cadence(pace, state.max_steps, samples_in(self._pairs))
        if not self.quiet and state.is_world_process_zero and self.cost:
            say(told)

    # ---- what ----------------------------------------------------------------------------------------------

    def _measure(self, args: TrainingArguments, state: TrainerState, model: nn.Module | None) -> None:
        network, epoch = unwrapped(network_of(model)), float(state.epoch or 0.0)
        with _own_forward(network):
            rows = self.audit_now(network, self._pairs, epoch)
        self._measured = from_first(digest_of(network))
        if not state.is_world_process_zero:
            return
        if self.log is not None:
            self._tell(args, state, rows, epoch, self.log)
        if self.folder is not None:
            self.write(self.folder, f"{type(network).__name__}, epoch {epoch:g}")

    def _tell(
        self,
        args: TrainingArguments,
        state: TrainerState,
        rows: Sequence[AnsatzRow],
        epoch: float,
        log: Callable[[dict[str, float]], Any],
    ) -> None:
        curves = summary_metrics(rows)
        numbers = {**metrics_of(rows), **curves}
        run = _wandb_run(args) if is_of(getattr(log, "__self__", None), "Trainer") else None
        if run is None:
            log(numbers)
            return
        self._curves.tell([run], rows, self.history, epoch)
        if set(args.report_to) > {"wandb"}:  # through the Trainer, which cannot tell one from the other
            log(curves)
        state.log_history.append({**numbers, "epoch": epoch, "step": state.global_step})

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put what was measured into the checkpoint."""
        folder = _checkpoint(args, state)
        if args.should_save and folder.is_dir():
            with replaced_whole(folder / STATE) as partial:
                torch.save({**self.state_dict(), "measured": self._measured}, partial)

    def _go_on_from(self, args: TrainingArguments, state: TrainerState) -> None:
        path = _checkpoint(args, state) / STATE
        if not path.is_file():
            say(f"no {path}: the ansatz is measured from here on, without values at initialisation")
            return
        saved = torch.load(path, map_location="cpu", weights_only=True)
        self.load_state_dict(saved)
        self.every = self.given if self.given is not None else self.every
        self._measured = saved.get("measured", "")


def _wandb_run(args: TrainingArguments) -> "Run | None":
    """The run that the Trainer reports to, if it is open."""
    if "wandb" not in args.report_to or "wandb" not in sys.modules:
        return None
    return sys.modules["wandb"].run


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


@contextmanager
def _own_forward(network: nn.Module) -> Iterator[None]:
    """Context in which a network has the forward of its class, and not the one that Accelerate put in.

    That one enters mixed precision by itself.
    """
    attributes = vars(network)
    put_in = attributes.pop("forward", None) if "_original_forward" in attributes else None
    try:
        yield
    finally:
        if put_in is not None:
            network.forward = put_in
