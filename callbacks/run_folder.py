"""The files of a run folder that do not depend on what was asked for: metrics, summary and report."""

import csv
import io
import math
import os
import platform
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

import nfa
from callbacks.ansatz import AnsatzMonitor
from callbacks.final import FinalNetwork
from callbacks.memory import forget_peak, give_back, peak_memory_mb
from callbacks.sinks import sinks_of
from nfa import NfaError
from nfa.ansatz.curves import summary_metrics
from nfa.ansatz.row import above_null
from nfa.compare.examined import EXAMINED, examined_of
from nfa.compare.together import ANSATZ, FEATURES, METRICS, REPORT, SUMMARY, TABLE, write_summary
from nfa.files import write_whole
from nfa.machines.calibration import Calibration
from nfa.machines.network import DeepNetwork, KernelNetwork
from nfa.page import write_html
from nfa.page.headline import run_headline

_MUST_AGREE = ("model", "data", "seed")  # of a resumed run with its checkpoint
_OF_TABLES = ("dropped", "one_hot", "read_as")  # what became of the columns
_METRIC = re.compile(r"[A-Za-z]\w*([ ./-]\w+)*")  # val/accuracy; in a CSV file nothing that is run
_STEP_COLUMNS = ("epoch", "step", "seconds", "lr")
_MAY_BE_NAN = ("round/", "features/")  # what a round did not measure
_NOT_DRAWN = ("test/", "round/", "nfa/")  # a row each, how a kernel machine was solved, drawn elsewhere


class RunFolder(FinalNetwork):
    """Write ``metrics.csv`` (a row an epoch), ``report.html`` and, last of all, ``summary.json``.

    For a data module with a ``table_encoder``, ``table.json`` says how its rows become inputs.

    The last files of an earlier run in the folder, or of an earlier end of this one, go when training starts.

    Args:
        dirpath: the run folder.
        description: plain values for the summary: ``model``, ``data``, ``seed``, ``options``, ….
        command: the command line, for the report.

    Attributes:
        rows: one dictionary a finished epoch, and one with the test metrics.
        summary: what ``summary.json`` holds.
        weights: digest of the network that is tested.
    """

    def __init__(self, dirpath: str | os.PathLike, description: dict[str, Any], command: str = ""):
        self.path = Path(dirpath)
        self.description, self.command = description, command
        self.rows: list[dict[str, float]] = []
        self.summary: dict[str, Any] = {}
        self.run = secrets.token_hex(4)  # tells a copy of this run from another run
        self.weights = ""
        self.fit_seconds = 0.0
        self._start = 0.0
        self._memory_before = 0.0
        self._measuring = 0.0

    # ---- during training -----------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take away what is not of this run, or was its end before; start the clock."""
        if trainer.is_global_zero:
            measured = find_monitor(trainer) is not None
            for name in (SUMMARY, REPORT, FEATURES, TABLE, *([] if measured else [ANSATZ])):
                (self.path / name).unlink(missing_ok=True)
            if (encoder := getattr(trainer.datamodule, "table_encoder", None)) is not None:
                encoder.save(self.path / TABLE)
            if not self.rows:
                (self.path / METRICS).unlink(missing_ok=True)
        if self.rows:
            self._write_metrics(trainer)
        give_back()
        forget_peak()
        self._memory_before = peak_memory_mb()
        self._start, self._measuring = time.perf_counter(), _measuring_seconds(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append the epoch to ``metrics.csv``."""
        row: dict[str, float] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(self._training_seconds(trainer), 3),
        }
        if trainer.optimizers and pl_module.automatic_optimization:
            row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        values = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        row |= {k: v for k, v in values.items() if not (math.isnan(v) and k.startswith(_MAY_BE_NAN))}
        self.rows.append(row | _curves(trainer, row["epoch"]))
        self._write_metrics(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.fit_seconds = self._training_seconds(trainer)
        super().on_train_end(trainer, pl_module)

    def conclude(self, trainer: pl.Trainer, pl_module: pl.LightningModule, digest: str) -> None:
        """Remember which weights are tested."""
        self.weights = digest

    def _training_seconds(self, trainer: pl.Trainer) -> float:
        """Seconds of training, earlier sessions included and measuring left out."""
        measuring = _measuring_seconds(trainer) - self._measuring
        return self.fit_seconds + time.perf_counter() - self._start - measuring

    def state_dict(self) -> dict[str, Any]:
        """Rows and seconds so far."""
        seconds = self.rows[-1]["seconds"] if self.rows else 0.0
        rows = [dict(row) for row in self.rows]
        return {
            "rows": rows,
            "fit_seconds": seconds,
            "description": self.description,
            "run": self.run,
            "command": self.command,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows of a checkpoint.

        Raises:
            NfaError: it is of another run, or its rows are no numbers by name.
        """
        rows, seconds = state_dict.get("rows"), state_dict.get("fit_seconds")
        if not isinstance(rows, list) or not all(map(_is_row, rows)) or not _is_number(seconds):
            raise NfaError("the checkpoint holds no rows of metrics.csv: expected numbers by name")
        for name, saved in state_dict["description"].items():
            # another seed would move validation samples into training
            if name in _MUST_AGREE and saved != self.description[name]:
                raise NfaError(
                    f"the checkpoint is of a run with {name}={saved}, this one has {name}="
                    f"{self.description[name]}: give the former, or start a new run"
                )
        self.rows, self.fit_seconds = list(rows), seconds
        self.run = state_dict.get("run", self.run)
        if state_dict["description"].get("config") == self.description.get("config"):  # it makes the same run
            self.command = state_dict.get("command", self.command)

    # ---- after the test ------------------------------------------------------------------------------------

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the test metrics, if there are any, the report and the summary, and log them to W&B.

        The summary comes last: with it, all is there.
        """
        test = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
        self.rows = [row for row in self.rows if not any(k.startswith("test/") for k in row)]
        last = self.rows[-1] if self.rows else {"epoch": 0, "step": 0, "seconds": 0.0}
        if test:
            self.rows.append({**{k: last.get(k, 0) for k in ("epoch", "step", "seconds")}, **test})
        self._write_metrics(trainer)
        if not trainer.is_global_zero:
            return
        monitor = find_monitor(trainer)
        data = trainer.datamodule
        self.summary = {
            **self.description,
            "run": self.run,
            "weights": self.weights,
            **test,
            "test_split": data.fingerprint(),
            "normalize": data.normalize,
            **{k: v for k, v in data.summary().items() if k.startswith("n_") or k in _OF_TABLES},
            "epochs": trainer.current_epoch,
            "fit_seconds": round(self.fit_seconds, 3),
            **self._memory(monitor),
            **pl_module.facts,
            **{k: v for callback in trainer.callbacks for k, v in getattr(callback, "facts", {}).items()},
            **_of_table(trainer, pl_module),
            **_examined(data, pl_module),
            **_ansatz_summary(monitor),
            **versions(),
        }
        plain = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in self.summary.items()
        }
        self._write_report(trainer, monitor)
        for sink in sinks_of(trainer):
            sink.log_results(self.path, plain)
        write_summary(self.path, plain)

    def _memory(self, monitor: AnsatzMonitor | None) -> dict[str, float]:
        """Most in use; and by fitting alone, beyond libraries and data."""
        fitting = max(peak_memory_mb(), monitor.fitting_mb if monitor else 0.0)
        peak = max(fitting, monitor.measuring_mb if monitor else 0.0)
        return {
            "peak_memory_mb": round(peak, 1),
            "fit_memory_mb": round(max(fitting - self._memory_before, 0.0), 1),
        }

    def _write_report(self, trainer: pl.Trainer, monitor: AnsatzMonitor | None) -> None:
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            for name, value in row.items():
                if name not in _STEP_COLUMNS and not name.startswith(_NOT_DRAWN):
                    curves.setdefault(name, []).append((row["epoch"], value))
        measured = monitor is not None and monitor.report is not None
        last = monitor.history[-1].epoch if measured else math.nan
        write_html(
            self.path / REPORT,
            title=f"{self.description.get('model')} on {self.description.get('data')}",
            rows=[row for row in monitor.history if row.epoch == last] if measured else [],
            history=monitor.history if measured else (),
            curves=curves,
            pictures=monitor.drawn if measured else (),
            steps=[told for c in trainer.callbacks for told in getattr(c, "step_curves", list)()],
            notes=self._notes(),
            headline=run_headline(
                self.summary, len({row.epoch for row in monitor.history}) if measured else 0
            ),
            meta={
                "command": self.command,
                **{k: v for k, v in self.summary.items() if k != EXAMINED},
                **(monitor.report.meta if measured else {}),
                **({"null draws": monitor.report.null_draws} if measured else {}),
                "data": trainer.datamodule.summary(),
            },
        )

    def _notes(self) -> list[str]:
        examined = examined_of(self.summary)
        notes = [] if examined is None else [examined.sentence]
        found = self.summary.get("importances")
        if found is None:
            return notes
        from nfa.inputs.tables.importances import importances_sentence

        return [*notes, importances_sentence(found)]

    def _write_metrics(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        names = [k for k in _STEP_COLUMNS if any(k in row for row in self.rows)]
        names += sorted({k for row in self.rows for k in row} - set(names))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path / METRICS, text.getvalue())


def _is_row(row: Any) -> bool:
    """Whether it is a row as this callback makes them: numbers by the names of metrics."""
    return (
        isinstance(row, dict)
        and {"epoch", "step", "seconds"} <= set(row)
        and all(isinstance(name, str) and _METRIC.fullmatch(name) for name in row)
        and all(map(_is_number, row.values()))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_monitor(trainer: pl.Trainer) -> AnsatzMonitor | None:
    """The trainer's `AnsatzMonitor`, if it has one."""
    return next((c for c in trainer.callbacks if isinstance(c, AnsatzMonitor)), None)


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        "nfa": nfa.__version__,
        "torch": torch.__version__,
        "pytorch_lightning": pl.__version__,
        "python": platform.python_version(),
    }


def _measuring_seconds(trainer: pl.Trainer) -> float:
    monitor = find_monitor(trainer)
    return monitor.seconds if monitor else 0.0


def _of_table(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
    """Of a kernel machine on a table: importances of its columns, and how scores become probabilities."""
    data, network = trainer.datamodule, pl_module.network
    if getattr(data, "table_encoder", None) is None or not isinstance(network, KernelNetwork | DeepNetwork):
        return {}
    from nfa.inputs.tables.importances import importances

    found: dict[str, Any] = {
        "importances": {k: round(v, 6) for k, v in importances(network, data.table_encoder).items()}
    }
    held_out = None if data.task == "regression" or pl_module.refit else data.validation()
    if held_out is not None:
        x, y = held_out
        with torch.no_grad():
            scores = network(x.to(next(network.buffers()).device))
        found["calibration"] = asdict(Calibration.of(scores, y, "validation data"))
    return found


def _examined(data: Any, pl_module: pl.LightningModule) -> dict[str, Any]:
    """What the data set tells of single samples, where it does: see `nfa.compare.examined`."""
    if not hasattr(data, "examine"):
        return {}
    like = next(pl_module.parameters())
    with torch.no_grad():
        found = data.examine(lambda x: pl_module(x.to(like)))
    return {} if found is None else {EXAMINED: found}


def _curves(trainer: pl.Trainer, epoch: float) -> dict[str, float]:
    """The curves of the network, where it was measured as the epoch ended."""
    monitor = find_monitor(trainer)
    history = monitor.history if monitor else []
    last = list(takewhile(lambda row: row.epoch == epoch, reversed(history)))
    return summary_metrics(last[::-1])


def _ansatz_summary(monitor: AnsatzMonitor | None) -> dict[str, Any]:
    if monitor is None or monitor.report is None:
        return {}
    columns: Sequence[str] = ("alignment", "alpha_fit", "cosine", "null_mean")
    means = {f"ansatz/mean_{name}": round(monitor.mean(name), 6) for name in columns}
    above, told = above_null(monitor.report.rows)
    layers = {"ansatz/layers_above_null": above, "ansatz/layers_with_z": told}
    chosen = {"ansatz_every_n_epochs": monitor.every} if monitor.every else {}
    return {**means, **layers, "ansatz_seconds": round(monitor.seconds, 3), **chosen}
