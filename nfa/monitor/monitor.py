"""A monitor for any loop: it is told of every step, and measures when it is time."""

import os
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nfa.ansatz.report import AnsatzReport
from nfa.checks import network_of, whole, whole_or_none
from nfa.errors import NfaError
from nfa.monitor.cost import Pace
from nfa.monitor.record import Record
from nfa.monitor.samples import InputFn, first_samples, processes, shared_samples
from nfa.terminal import say

EVERY = 100  # steps, where nothing else is said


class Monitor(Record):
    """Audit a network before the first step of a loop and every so many steps, and leave it as it is.

    Training goes on as if nothing was measured, bit for bit: weights, gradients, buffers, modes and all
    random states are put back. The network is measured when the monitor is made: make it before training::

        monitor = nfa.Monitor(model, loader, every=100)
        for step, (x, y) in enumerate(loader, start=1):
            ...
            optimizer.step()
            monitor.step(step)
        print(monitor.report)

    In distributed training every process makes a monitor and tells it every step.

    Args:
        model: any module; of `DistributedDataParallel` and `torch.compile` what they wrap.
        batches: whatever `nfa.audit` takes; the first ``samples`` are kept.
        every: measure after every so many steps; None for as many as the ``budget`` allows, or 100.
        budget: share of the training time that measuring may take; 0.2 chooses ``every`` once, from the
            first measurement and the first steps. Where ``every`` is given it has no say.
        steps: of the whole training, where they are known: the last one is measured, whatever ``every`` is,
            and beginning and end count into the ``budget``.
        samples: to measure on.
        batch_size: of them at once, and in each group behind the standard errors; None for the batches as
            they come.
        input_fn: makes of a batch one that `nfa.audit` takes; for batches of more than inputs and a target.
        folder: gets ``ansatz.csv`` and ``ansatz.html`` after every measurement; None writes nothing.
        quiet: do not say what measuring costs.
        seed: of the order of samples, of probes and nulls.
        **options: of `nfa.audit`: ``layers``, ``power``, ``probes``, ``nulls``, ``output_fn``, ….

    Attributes:
        history: the rows of all measurements; ``row.epoch`` is what `step` was told.
        report: the last measurement.
        initial: the one before training.
        every: steps from one measurement to the next; None while it is not chosen yet.
        seconds: time spent measuring.

    Raises:
        NfaError: bad arguments, or a network that cannot be measured.

    Example:
        >>> import torch, nfa
        >>> net, x = torch.nn.Linear(5, 3), torch.randn(20, 5)
        >>> monitor = nfa.Monitor(net, [x], every=2, quiet=True)
        >>> [monitor.step(i) for i in (1, 2, 3)]
        [False, True, False]
        >>> sorted({row.epoch for row in monitor.history})
        [0.0, 2.0]
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Any,
        every: int | None = None,
        *,
        budget: float | None = None,
        steps: int | None = None,
        samples: int = 256,
        batch_size: int | None = 32,
        input_fn: InputFn | None = None,
        folder: str | os.PathLike | None = None,
        quiet: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(samples, batch_size, seed, budget, options, Monitor)
        self.model = unwrapped(network_of(model))
        self.every = whole_or_none("every", every, 1)
        if self.every is not None:
            self.budget = None
        elif budget is None:
            self.every = EVERY
        self.steps = whole_or_none("steps", steps, 1)
        self.folder = None if folder is None else Path(folder)
        self.quiet = quiet
        self._pairs = shared_samples(first_samples(batches, self.samples, seed, input_fn))
        self._pace: Pace | None = Pace()  # until it is told
        self._at = 0
        self.measure(0)
        self._pace.tick(self.seconds)

    def step(self, i: int) -> bool:
        """Say that a step was made, and measure if it is time.

        Args:
            i: steps made so far, counted through all epochs.

        Returns:
            Whether it measured.

        Raises:
            NfaError: fewer than the time before.
        """
        i = whole("the number of steps", i)
        if i < self._at:
            raise NfaError(f"steps are counted through all epochs: got {i} after {self._at}")
        if self._pace is not None:
            self._pace.tick(self.seconds)
            if self._pace.known or self._is_due(i):
                self._tell_cost(self._pace)
        is_due = i > self._at and self._is_due(i)
        if is_due:
            self.measure(i)
        self._at = max(i, self._at)
        return is_due

    def _is_due(self, i: int) -> bool:
        return i == self.steps or (self.every is not None and i % self.every == 0)

    def measure(self, i: int) -> AnsatzReport:
        """Measure now, whether it is time or not, as at the end of a training.

        Args:
            i: steps made so far.
        """
        self.audit_now(self.model, self._pairs, whole("the number of steps", i))
        self._at = max(i, self._at)
        if self.folder is not None and processes()[0] == 0:
            self.write(self.folder, f"{type(self.model).__name__}, {i} steps")
        assert self.report is not None  # of just now
        return self.report

    def _tell_cost(self, pace: Pace) -> None:
        self._pace = None
        assert self.report is not None  # of step 0
        told = self.choose_cadence(pace, self.steps, self.report.meta["samples"])
        if not self.quiet and processes()[0] == 0:
            say(told)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from; plain types and tensors."""
        return {**super().state_dict(), "at": self._at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint: its rows, its beginning, and the cadence that its budget chose.

        Raises:
            NfaError: it is the state of something else.
        """
        every = self.every
        super().load_state_dict(state_dict)
        self.every = every or self.every
        self._at = state_dict.get("at", 0)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of what distributes or compiles it: the same weights, and its own names."""
    while isinstance(model, DistributedDataParallel) or hasattr(model, "_orig_mod"):
        inner = model.module if isinstance(model, DistributedDataParallel) else model._orig_mod
        assert isinstance(inner, nn.Module)
        model = inner
    return model
