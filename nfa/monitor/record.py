"""What was measured of a network while it changes: all rows, the last report, and what was there at first."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.row import AnsatzRow, write_csv
from nfa.audit import audit
from nfa.checks import known_options, whole, whole_or_none
from nfa.clock import now
from nfa.errors import NfaError
from nfa.files import make_writable
from nfa.monitor.cost import Pace, check_budget, cost_sentence, every_within
from nfa.monitor.samples import Pair, from_first_process, processes, share_of
from nfa.sweep.arguments import check_combinations, checked

OPTIONS = (
    "layers", "power", "probes", "nulls", "device", "tolerance", "drift", "per_head", "memory", "output",
    "output_fn", "neglect", "chunk", "replicates_over", "replicates",
)  # fmt: skip


class Record:
    """Measure the same samples again and again, and keep what was found.

    Args:
        samples: how many of them.
        batch_size: samples a forward of the measurement; None leaves the batches as they come.
        seed: of the samples, probes and nulls.
        budget: share of the training time that measuring may take; None for no limit.
        options: of `nfa.audit`.
        name: of whoever takes these arguments, for errors.

    Attributes:
        history: the rows of all measurements, in order; ``row.epoch`` says when.
        initial: the measurement at the beginning of training, if there was one.
        report: the last measurement.
        every: chosen distance of the measurements, where a budget chose it.
        seconds: time spent measuring; and
        cost: that of the first measurement.

    Raises:
        NfaError: an option is unknown, of a wrong type or out of range.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int | None,
        seed: int,
        budget: float | None,
        options: dict[str, Any],
        name: type,
    ):
        self.samples = whole("samples", samples, 1)
        self.batch_size = whole_or_none("batch_size", batch_size, 1)
        self.budget = check_budget(budget)
        known_options(options, name, OPTIONS)
        self.options, self.seed = options, seed
        check_combinations(checked({**options, "seed": seed}))
        self.history: list[AnsatzRow] = []
        self.initial: AnsatzReport | None = None
        self.report: AnsatzReport | None = None
        self.every: int | None = None
        self.seconds = self.cost = 0.0

    def begin_anew(self) -> None:
        """Forget what was measured: another training begins."""
        self.history, self.initial, self.report, self.every = [], None, None, None
        self.seconds = self.cost = 0.0

    def audit_now(self, network: nn.Module, pairs: Sequence[Pair], at: float) -> list[AnsatzRow]:
        """Measure, and add the rows to the history; those of an earlier measurement at the same time go.

        Every process of a distributed training measures its share of the samples and gets the report of all.

        Args:
            network: as it is now; left untouched.
            pairs: the samples.
            at: epochs, or steps, behind the network; 0 makes it the initial one.
        """
        with self.set_apart() as spent:
            rank, count = processes()
            self.report = audit(
                network,
                share_of(pairs, rank, count, self.batch_size),
                initial_state=self.initial,
                seed=self.seed,
                distributed=count > 1,
                **self.options,
            )
            if self.initial is None and at == 0:
                self.initial = self.report
            rows = [dataclasses.replace(row, epoch=float(at)) for row in self.report.rows]
            self.history = [row for row in self.history if row.epoch != at] + rows
        self.cost = self.cost or spent()
        return rows

    def choose_cadence(self, pace: Pace, steps: int | None, samples: int) -> str:
        """Choose after how many steps to measure, where that is left to a budget.

        Args:
            pace: of the steps so far.
            steps: of the whole training, where they are known.
            samples: measured on.

        Returns:
            One line on what measuring costs.
        """
        unit = max(pace.step, 1e-9)
        if self.every is None:
            assert self.budget is not None  # else a cadence is given
            self.every = from_first_process(every_within(self.budget, self.cost, unit, steps))
        return cost_sentence(self.cost, unit, self.every, name="step", samples=samples, budget=self.budget)

    @contextmanager
    def set_apart(self) -> Iterator[Any]:
        """Context whose seconds count as measuring; gives a function of the seconds, told on leaving."""
        start, before = now(), self.seconds
        yield lambda: self.seconds - before
        self.seconds += now() - start

    def write(self, folder: Path, title: str) -> None:
        """Write ``ansatz.csv``, a row a layer and measurement, and ``ansatz.html``, the page of them."""
        from nfa.page import write_html  # templates are read where a page is asked for
        from nfa.page.headline import monitor_headline

        make_writable(folder)
        write_csv(folder / "ansatz.csv", self.history, with_epoch=True)
        last = self.history[-1].epoch
        write_html(
            folder / "ansatz.html",
            title=title,
            rows=[row for row in self.history if row.epoch == last],
            history=self.history,
            meta={} if self.report is None else self.report.meta,
            headline=monitor_headline(self.seconds, len({row.epoch for row in self.history})),
        )

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, and the weights at initialisation; plain types and tensors."""
        return {
            "history": [dataclasses.asdict(row) for row in self.history],
            "initial_rows": [dataclasses.asdict(row) for row in self.initial.rows] if self.initial else None,
            "initial_weights": self.initial.weights if self.initial else {},
            "seconds": self.seconds,
            "cost": self.cost,
            "every": self.every,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows and the initial weights of a checkpoint.

        Raises:
            NfaError: it is the state of something else.
        """
        try:
            history = [AnsatzRow(**row) for row in state_dict["history"]]
            initial_rows, seconds = state_dict["initial_rows"], state_dict["seconds"]
            if initial_rows is not None:
                rows, weights = [AnsatzRow(**row) for row in initial_rows], state_dict["initial_weights"]
                self.initial = AnsatzReport(rows=rows, weights=dict(weights))
        except (KeyError, TypeError) as error:
            raise NfaError(
                f"this is no state of a monitor ({error}): expected what state_dict() gave"
            ) from None
        self.history, self.seconds = history, seconds
        self.cost = state_dict.get("cost", 0.0)  # version 0.1 kept neither
        self.every = state_dict.get("every")

    def mean(self, column: str) -> float:
        """Mean of a column over the layers of the last measurement, undefined values left out."""
        values = [getattr(row, column) for row in self.report.rows if row.measured] if self.report else []
        values = [value for value in values if math.isfinite(value)]
        return sum(values) / len(values) if values else math.nan
