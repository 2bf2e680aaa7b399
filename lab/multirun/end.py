"""The end of a sweep: what did not finish, how to go on with it, and the comparison of the others."""

import shlex
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lab.command_line.words import typed_override
from lab.multirun.failed import FAILED
from lab.multirun.unfinished import LAST_SWEEP
from lab.trust.signature import sign
from nfa import NfaError
from nfa.command.compare_command import compare_folders, log_to_wandb
from nfa.compare.together import SUMMARY, is_audited, is_complete
from nfa.terminal import say, typed


class EndOfSweep(Callback):
    """Compare the finished jobs when a sweep ends, and say which did not finish and how to go on."""

    def on_multirun_start(self, config: DictConfig, **options: object) -> None:
        """Sign what Hydra writes, and forget the failures of an earlier try: its jobs are tried again."""
        sweep, overrides = Path(config.hydra.sweep.dir), config.hydra.overrides
        sweep.mkdir(parents=True, exist_ok=True)
        sign(sweep, [*overrides.task, *overrides.hydra])
        for path in sweep.glob(f"*/{FAILED}"):
            path.unlink()

    def on_multirun_end(self, config: DictConfig, **options: object) -> None:
        """Write ``comparison.html`` and the CSV files into the folder of the sweep."""
        sweep = Path(config.hydra.sweep.dir)
        jobs = [f for f in sorted(sweep.iterdir()) if f.is_dir() and ((f / ".hydra").exists() or _ended(f))]
        LAST_SWEEP.jobs = [job for job in jobs if not _ended(job)]
        self._compare(sweep, [job for job in jobs if _ended(job)], config)
        for job in LAST_SWEEP.jobs:
            reason = job / FAILED
            words = reason.read_text(encoding="utf-8").splitlines() if reason.is_file() else []
            why = words[0] if words else "stopped"
            say(f"unfinished   {job}: {why}")
        if LAST_SWEEP.jobs:
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
            logger = config.logger
            is_logged = bool(logger) and logger.get("_target_") == "callbacks.loggers.LabWandbLogger"
            written = compare_folders(finished, sweep, shlex.join(words))
            for comparison in written if is_logged else ():
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


def _ended(job: Path) -> bool:
    return (is_complete(job) or is_audited(job)) and not (job / FAILED).is_file()
