"""A sweep as a whole: which of its jobs are done, what failed, and the comparison at its end."""

import contextlib
import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from lab.trust import sign
from nfa import NfaError
from nfa.commands import typed
from nfa.compare.together import SUMMARY, is_audited, is_complete
from nfa.compare_command import compare_folders, log_to_wandb
from nfa.files import write_whole
from nfa.terminal import say

FAILED = "failed.txt"  # in the folder of a job: why it ended early
_OF_LAUNCHED = {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # set for processes


def summary_of_finished(folder: Path, config: str) -> dict[str, Any] | None:
    """What a job of an earlier, interrupted sweep left in its folder; None where it did not finish.

    Args:
        folder: of the job.
        config: digest of the options it is to be run with.

    Raises:
        NfaError: the folder holds a finished run with other options.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(summary, dict) or summary.get("config") != config:
        raise NfaError(
            f"{folder} holds a run with other options, or of another version: choose another hydra.sweep.dir"
        )
    return summary if is_complete(folder) else None


def checkpoint_of_job(run_dir: Path, config: str) -> str | None:
    """Checkpoint that an interrupted try of a sweep's job left, if it can be gone on from."""
    path = run_dir / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        same = saved["callbacks"]["RunFolder"]["description"]["config"] == config
    except Exception:  # whatever it is: start anew
        return None
    return str(path) if same else None


@contextlib.contextmanager
def as_single_run(run_dir: Path, command: Sequence[str]) -> Iterator[None]:
    """Context in which further processes of a sweep's job, which get its command line, run that job alone.

    Afterwards the next job may launch processes of its own.

    Args:
        run_dir: of the job.
        command: script, options and overrides of the job by itself.
    """
    hydra_config, typed, environment = HydraConfig.get(), sys.argv, dict(os.environ)
    sys.argv = list(command)
    with read_write(hydra_config):
        hydra_config.run.dir = str(run_dir)
    try:
        yield
    finally:
        sys.argv = typed
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name in _OF_LAUNCHED - environment.keys():
            os.environ.pop(name, None)


def note_failure(folder: Path, error: BaseException) -> str:
    """Write down why a job failed, so that the others can go on; returns it in one line."""
    line, details = " ".join(str(error).split()), ""
    if not isinstance(error, NfaError):
        line, details = f"{type(error).__name__}: {line}", "".join(traceback.format_exception(error))
    EndOfSweep.failures += 1
    if (folder / SUMMARY).is_file():  # it holds the finished run of another job
        return line
    with contextlib.suppress(OSError):  # a full disk: the job has no summary, which tells as much
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FAILED, f"{line}\n{details}")
    return line


class EndOfSweep(Callback):
    """Compare the finished jobs when a sweep ends, and say which did not finish and how to go on.

    Attributes:
        unfinished: folders of the jobs that did not finish, of the last sweep of this process.
        failures: jobs that failed in this process.
    """

    failures = 0
    unfinished: list[Path] = []  # noqa: RUF012  Hydra keeps its callbacks to itself

    def on_multirun_start(self, config: DictConfig, **options: Any) -> None:
        """Sign what Hydra writes, and forget the failures of an earlier try: its jobs are tried again."""
        sweep, overrides = Path(config.hydra.sweep.dir), config.hydra.overrides
        sweep.mkdir(parents=True, exist_ok=True)
        sign(sweep, [*overrides.task, *overrides.hydra])
        for path in sweep.glob(f"*/{FAILED}"):
            path.unlink()

    def on_multirun_end(self, config: DictConfig, **options: Any) -> None:
        """Write ``comparison.html`` and the CSV files into the folder of the sweep."""
        sweep = Path(config.hydra.sweep.dir)
        jobs = [f for f in sorted(sweep.iterdir()) if f.is_dir() and ((f / ".hydra").exists() or _ended(f))]
        EndOfSweep.unfinished = [job for job in jobs if not _ended(job)]
        self._compare(sweep, [job for job in jobs if _ended(job)], config)
        for job in EndOfSweep.unfinished:
            reason = job / FAILED
            words = reason.read_text(encoding="utf-8").splitlines() if reason.is_file() else []
            why = words[0] if words else "stopped"
            say(f"unfinished   {job}: {why}")
        if EndOfSweep.unfinished:
            say(f"go on with   {resume_command(sweep)}")
        places = [p for p in ("*/wandb", "wandb") if any(sweep.glob(f"{p}/offline-run-*"))]
        if places:
            runs = " ".join(f"{shlex.quote(str(sweep))}/{place}/offline-run-*" for place in places)
            say(f"upload       {typed('wandb')} sync {runs}")

    def _compare(self, sweep: Path, finished: list[Path], config: DictConfig) -> None:
        finished = [job for job in finished if (job / SUMMARY).is_file()]  # and no audits
        if len(finished) < 2:
            return
        try:
            words = ["python", "train.py", "-m", *config.hydra.overrides.task]
            comparison = compare_folders(finished, sweep, shlex.join(words))
            logger = config.logger or {}
            if logger.get("_target_") == "callbacks.loggers.LabWandbLogger":
                where = log_to_wandb(
                    comparison, sweep, logger.project, logger.group or sweep.name, logger.mode
                )
                if where.startswith("http"):  # else it is part of the upload below
                    say(f"W&B          {where}")
        except NfaError as error:
            say("", f"not compared: {error}")
        except OSError as error:
            say("", f"not compared: cannot write to {error.filename or sweep}: {error.strerror}")


def resume_command(sweep: Path) -> str:
    """The command that goes on with a sweep, without its finished jobs."""
    return f"{typed('python')} train.py -m ckpt_path=last {typed_override('hydra.sweep.dir', sweep)}"


def typed_override(key: str, path: Path) -> str:
    """An override with a path as it is typed: quoted for Hydra, and for the shell, where that is needed."""
    plain = re.fullmatch(r"[\w./-]+", str(path), re.ASCII)
    return f"{key}={path}" if plain else shlex.quote(f"{key}='{path}'")


def _ended(job: Path) -> bool:
    return (is_complete(job) or is_audited(job)) and not (job / FAILED).is_file()
