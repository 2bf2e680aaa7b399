"""A job that audits networks instead of training one."""

import signal
from typing import Any

from omegaconf import DictConfig

from lab.describe import plain
from lab.ending import say_finished_before
from lab.job import Job, let_interrupt
from nfa import NfaError
from nfa.command.cli import main
from nfa.compare.together import is_audited


def audit(cfg: DictConfig, job: Job) -> dict[str, Any]:
    """Run ``nfa audit`` with the options of ``cfg.audit``; its files go into the run folder.

    Raises:
        NfaError: a job of a sweep failed, which has told why.
        SystemExit: it failed otherwise, or was stopped.
    """
    let_interrupt()
    options = plain(cfg.audit, complete=True)
    if job.sweep and is_audited(job.folder):
        say_finished_before(job)
        return {}
    if job.sweep and options.get("wandb"):
        options.setdefault("group", job.sweep.name)
    code: str | int | None
    try:
        code = main(["audit", options.pop("spec"), "--out", str(job.folder), *_flags(options)])
    except SystemExit as stop:  # the mistake was told
        code = stop.code
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):  # and the sweep with it
        raise SystemExit(code)
    if code and not job.sweep:
        raise SystemExit(code)
    if code:
        raise NfaError(f"the audit of {cfg.audit.spec} failed")
    return {}


def _flags(options: dict[str, object]) -> list[str]:
    """Options as ``nfa audit`` takes them; those that are null or false are left out."""
    flags: list[str] = []
    for name, value in options.items():
        if value is not None and value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    return flags
