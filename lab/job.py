"""One job: by itself, or of a sweep. A mistake ends it with one line, and in a sweep it alone."""

import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from lab.command_line.words import split_options
from lab.mistakes.told import stop


@dataclass(frozen=True)
class Job:
    """What Hydra runs.

    Attributes:
        folder: the run folder.
        options: of Hydra, such as ``--config-dir PATH``.
        arguments: options and overrides with which it is run by itself.
        sweep: folder of the sweep that it is a job of; None for a run by itself.
    """

    folder: Path
    options: list[str]
    arguments: list[str]
    sweep: Path | None = None

    @classmethod
    def current(cls, arguments: Sequence[str]) -> "Job":
        """The job that Hydra is running.

        Args:
            arguments: the command line as Hydra read it.
        """
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        options = [o for o in split_options(arguments)[0] if o not in ("-m", "--multirun")]
        if hydra.mode != RunMode.MULTIRUN:
            return cls(folder, options, list(arguments))
        return cls(folder, options, [*options, *hydra.overrides.task], Path(hydra.sweep.dir))

    @property
    def command(self) -> str:
        """What is typed to run it by itself."""
        return shlex.join(["python", "train.py", *self.arguments])


Train = Callable[[DictConfig, Job], dict[str, Any]]


def run(cfg: DictConfig, *, train: Train, arguments: Sequence[str]) -> float | None:
    """Run the job that Hydra is at: an audit where there is one to be done, else a training.

    Args:
        cfg: its options.
        train: trains with options, and returns what ``summary.json`` holds.
        arguments: the command line as Hydra read it.

    Returns:
        The score that a sweep may optimise.
    """
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from lab.checks.every_option import check_options
    from nfa import NfaError
    from nfa.errors import ProcessLost

    job = Job.current(arguments)
    mistake: Exception
    try:
        _sign_and_announce(job)
        check_options(cfg)
        summary = _work_of(cfg, train)(cfg, job)
        return summary.get("test/accuracy", summary.get("test/mse"))
    except (NfaError, ProcessLost, MisconfigurationException) as error:
        mistake = error
    except MissingMandatoryValue as error:
        mistake = NfaError(f"{error.full_key} must be given: {error.full_key}=VALUE")
    except OSError as error:
        if error.errno is None:
            raise
        mistake = NfaError(f"cannot write or read {error.filename or 'a file'}: {error.strerror}")
    except Exception as error:
        if not job.sweep:
            raise
        mistake = error
    _fail(job, mistake)
    return None


def let_interrupt() -> None:
    """Ctrl-C raises KeyboardInterrupt again: from here on there is something to end well."""
    if not isinstance(signal.getsignal(signal.SIGINT), int):  # ignored by whoever started this process
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _work_of(cfg: DictConfig, train: Train) -> Train:
    if not cfg.get("audit"):
        return train
    from lab.audit import audit

    return audit


def _sign_and_announce(job: Job) -> None:
    from lab.trust.signature import sign
    from nfa.terminal import say

    hydra = HydraConfig.get()
    if hydra.output_subdir is not None:  # else Hydra wrote no options
        sign(job.folder / hydra.output_subdir, hydra.overrides.task)
    if job.sweep:
        say("", f"== job {hydra.job.num + 1}: {job.folder.name}")


def _fail(job: Job, error: Exception) -> None:
    """End a run with its mistake in one line; a job of a sweep alone, so that the others go on."""
    if not job.sweep:
        stop(str(error))
    from lab.multirun.failed import note_failure
    from nfa.terminal import say

    say(f"error in {job.folder.name}: {note_failure(job.folder, error)}", stream=sys.stderr)
