"""A job of a sweep: what an earlier try left of it, and how its further processes are started."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, read_write

from lab.checkout import ROOT
from lab.job import Job
from nfa import NfaError
from nfa.compare.together import SUMMARY, is_complete

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
def as_single_run(job: Job, checkpoint: str | None) -> Iterator[None]:
    """Context in which further processes of a sweep's job, which get its command line, run that job alone.

    Afterwards the next job may launch processes of its own. Nothing is done for a run by itself.

    Args:
        job: that is run.
        checkpoint: that it goes on from, if there is one.
    """
    if not job.sweep:
        yield
        return
    hydra_config = cast(DictConfig, HydraConfig.get())  # which it is, by another name
    typed, environment = sys.argv, dict(os.environ)
    resumed = [f"ckpt_path='{checkpoint}'"] if checkpoint else []
    sys.argv = [str(ROOT / "train.py"), *job.arguments, *resumed]  # Lightning starts them with these
    with read_write(hydra_config):
        hydra_config.run.dir = str(job.folder)
    try:
        yield
    finally:
        sys.argv = typed
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name in _OF_LAUNCHED - environment.keys():
            os.environ.pop(name, None)
