"""Weights & Biases for the lab: offline without an account, and never a reason for a run to fail."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from nfa import NfaError
from nfa.wandb_sink import has_account

MODES = ("auto", "online", "offline", "disabled")


class LabWandbLogger(WandbLogger):
    """A `WandbLogger` that goes offline without an account and gives up quietly when W&B breaks.

    Args:
        save_dir: folder that gets ``wandb/``.
        project: project name.
        mode: ``online``, ``offline``, ``disabled``; ``auto`` is online when logged in, else offline.
        **options: further arguments of ``wandb.init`` (name, group, tags, …).
    """

    def __init__(self, save_dir: str, project: str = "nfa", mode: str = "auto", **options: Any):
        import wandb

        mode = os.environ.get("WANDB_MODE", mode) if mode == "auto" else mode
        if mode not in (*MODES, "dryrun"):
            raise NfaError(f"logger.mode (or WANDB_MODE) must be one of {', '.join(MODES)}, got {mode!r}")
        if mode == "auto":
            mode = "online" if has_account() else "offline"
        settings = wandb.Settings(
            silent=True, init_timeout=20, finish_timeout=60, finish_timeout_raises=False
        )
        super().__init__(project=project, save_dir=save_dir, mode=mode, settings=settings, **options)
        self._wandb_init.pop("anonymous", None)  # passed by Lightning, deprecated by wandb
        self.broken = False

    @property
    def experiment(self) -> Any:
        """The run; an online one that cannot start is started offline."""
        if self._experiment is None and self._wandb_init["mode"] == "online" and rank_zero_only.rank == 0:
            try:
                return super().experiment
            except Exception as error:
                warnings.warn(f"W&B cannot be reached ({_first_line(error)}); logging offline", stacklevel=2)
                self._wandb_init["mode"] = "offline"
                finish_wandb()
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, unless W&B broke."""
        self.send(lambda run: WandbLogger.log_metrics(self, metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log the configuration, unless W&B broke."""
        self.send(lambda run: WandbLogger.log_hyperparams(self, params))

    def send(self, log: Callable[[Any], None]) -> None:
        """Call ``log(run)``; the first failure is a warning and ends the logging, not the training."""
        if self.broken:
            return
        try:
            log(self.experiment)
        except Exception as error:
            self.broken = True
            warnings.warn(
                f"W&B stopped working ({_first_line(error)}); the run goes on without it. Everything is "
                "also in metrics.csv and ansatz.csv",
                stacklevel=2,
            )

    @property
    def sync_command(self) -> str | None:
        """The command that uploads an offline run; None when there is nothing to upload."""
        run = self._experiment
        if run is None or not getattr(run, "offline", False):
            return None
        return f"wandb sync {os.path.relpath(os.path.dirname(run.dir))}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def finish_wandb() -> None:
    """End the W&B run of this process, if there is one: each job of a multirun gets its own."""
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    try:
        wandb.finish()
    except Exception as error:
        warnings.warn(f"W&B could not close its run ({_first_line(error)})", stacklevel=2)
        with contextlib.suppress(Exception):
            wandb.teardown()
        wandb.run = None  # the next job of a multirun starts a run of its own
