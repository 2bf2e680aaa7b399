"""How a run ends: with what it found or, where it was stopped, with the command that goes on with it."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks import RunFolder
from callbacks.loggers import finish_wandb
from callbacks.run_folder import find_monitor
from callbacks.sinks import sink_of
from lab.command_line.words import typed_override
from lab.job import Job
from lab.multirun.end import resume_command
from lab.resume.beginning import LAST
from nfa.ansatz.words import format_table, summary_sentence
from nfa.terminal import say, typed


@contextmanager
def ending_well(job: Job) -> Iterator[None]:
    """Context of a training: where it is stopped, it says how to go on; in any case W&B's run is closed."""
    try:
        yield
    except BaseException as error:
        status = _status_of_stopped(error)
        if status is None:
            raise
        _say_how_to_resume(job)
        raise SystemExit(status) from None
    finally:
        finish_wandb()


def say_finished_before(job: Job) -> None:
    """Of a job of a sweep that was interrupted later."""
    say(f"finished before: {typed_path(job.folder)}")


def show(trainer: pl.Trainer, logger: Any, folder: RunFolder, job: Job) -> None:
    """Print the table, the sentence, the test metrics and where everything is; in a sweep, less of it."""
    if not (trainer.is_global_zero and folder.summary):
        return
    monitor = find_monitor(trainer)
    if monitor is not None and monitor.report is not None and not job.sweep:
        print(f"\n{format_table(monitor.report.rows)}\n\n{summary_sentence(monitor.report.rows)}")
    test = "  ".join(f"{k} {v:.4f}" for k, v in folder.summary.items() if k.startswith("test/"))
    spent = f"{folder.summary['fit_seconds']:.1f} s of training"
    if monitor is not None:
        spent += f", {monitor.seconds:.1f} s of measuring"
    say("", f"{test}  ({spent})")
    say(f"report   {typed_path(folder.path / 'report.html')}")
    sync_command = sink_of(logger).sync_command
    if sync_command and not job.sweep:  # at its end there is one command for all
        say(f"upload   {sync_command}")


def typed_path(path: Path) -> Path:
    """A path as it is typed: relative where it is below the working folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _status_of_stopped(error: BaseException) -> int | None:
    """Exit status of a run that was asked to stop, which Lightning tells in its own ways; else None."""
    if isinstance(error, SIGTERMException):
        return 128 + signal.SIGTERM
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return None


def _say_how_to_resume(job: Job) -> None:
    """Print the command that goes on with what was stopped, if there is something to go on with."""
    if job.sweep:
        command = resume_command(typed_path(job.sweep.absolute()))
        say("", f"stopped; go on with: {command}", stream=sys.stderr)
    elif (job.folder / LAST).is_file():
        given = " ".join(map(shlex.quote, job.options))
        target = f"ckpt_path=last {typed_override('hydra.run.dir', typed_path(job.folder))}"
        command = " ".join(filter(None, [typed("python"), "train.py", given, target]))
        say("", f"stopped; go on with: {command}", stream=sys.stderr)
