"""Going on with a run: from the last whole epoch or, after the last one, with what is left to do."""

import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import StochasticWeightAveraging
from pytorch_lightning.loops.fit_loop import _FitLoop

from nfa import NfaError
from nfa.commands import typed
from nfa.compare.together import is_complete
from nfa.nets.registry import canonical
from nfa.terminal import say

LAST = Path("checkpoints") / "last.ckpt"
_OPTIMIZERS = Path(torch.optim.__file__).parent


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        checkpoint: to go on from; None for a new run.
        trained: its training is over; what follows it is left to do.
    """

    checkpoint: str | None = None
    trained: bool = False


def find_start(
    ckpt_path: str | None, run_dir: Path, description: Mapping[str, Any], max_epochs: int | None
) -> Start:
    """Where a run with these options begins.

    Args:
        ckpt_path: a path, or ``last`` for that in the run folder; None for a new run.
        run_dir: the run folder.
        description: of the run, see `lab.describe`.
        max_epochs: that it is to have; None or -1 where it has no such limit.

    Raises:
        NfaError: there is no checkpoint, or its run is complete.
    """
    if ckpt_path is None:
        return Start()
    path = run_dir / LAST if ckpt_path == "last" else Path(ckpt_path)
    mine = description["settings"]
    saved = _read(path)
    done = int(_part(saved, "loops", "fit_loop", "epoch_progress", "current")["processed"])
    at_limit = max_epochs is not None and 0 <= max_epochs <= done
    ended = _part(saved, "callbacks", "LastCheckpoint").get("ended", at_limit)  # version 0.1 did not tell
    theirs = _part(saved, "callbacks", "RunFolder", "description", "settings")
    same = all(name in mine and _today(name, mine[name]) == _today(name, theirs[name]) for name in theirs)
    if same and ended:
        folder = path.parent.parent if path.parent.name == LAST.parent.name else run_dir
        if not is_complete(folder):
            return Start(str(path), trained=True)
    if (same and ended) or (at_limit and not same):
        raise NfaError(
            f"the run of {path} is complete ({done} epochs): raise trainer.max_epochs to train it further"
        )
    return Start(str(path))


def _today(name: str, value: Any) -> Any:
    """The value of a setting, networks by the names they have now."""
    return canonical(value) if name == "model._target_" and isinstance(value, str) else value


def _part(saved: Any, *names: str) -> Mapping[str, Any]:
    """What is found under names in nested mappings; an empty one where there is none."""
    for name in names:
        saved = saved.get(name) if isinstance(saved, Mapping) else None
    return saved if isinstance(saved, Mapping) else {}


def _read(path: Path) -> dict[str, Any]:
    """What a training checkpoint of the lab holds; no code in it is run.

    Raises:
        NfaError: there is none, or the file is not one.
    """
    if not path.is_file():
        raise NfaError(f"no checkpoint at {path}: give ckpt_path the path of a file, or run without it")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise NfaError(f"{path} cannot be read as a checkpoint ({reason[0]})") from None
    kinds = {"state_dict": Mapping, "loops": Mapping, "callbacks": Mapping, "optimizer_states": Sequence}
    wrong = [
        k for k, kind in kinds.items() if not (isinstance(saved, Mapping) and isinstance(saved.get(k), kind))
    ]
    epochs = _part(saved, "loops", "fit_loop", "epoch_progress", "current").get("processed")
    if wrong or not isinstance(epochs, int):
        words = f"no {' or '.join(wrong)}" if wrong else "no count of epochs"
        raise NfaError(f"{path} is no training checkpoint of this lab: it has {words}")
    return saved


# ---- in the trainer ----------------------------------------------------------------------------------------


class _WholeEpochs(_FitLoop):
    """A loop whose checkpoints are of whole epochs: what follows one is the next epoch, or the end.

    By itself, a trainer with ``max_steps`` takes any checkpoint to be one of the middle of an epoch.

    Args:
        trainer: it is for.
        trained: training starts and ends, with all that goes with that, and without an epoch.
    """

    def __init__(self, trainer: pl.Trainer, trained: bool):
        super().__init__(trainer, min_epochs=trainer.min_epochs, max_epochs=trainer.max_epochs)
        self.epoch_loop = trainer.fit_loop.epoch_loop
        self.trained = trained

    @property
    def done(self) -> bool:
        """Whether to leave the loop."""
        if self.trained:  # the epoch in whose last hook it was saved counts
            self.epoch_progress.current.completed = self.epoch_progress.current.processed
        return self.trained or super().done

    @property
    def skip(self) -> bool:
        """Whether to leave out start and end as well."""
        return not self.trained and super().skip

    def _iteration_based_training(self) -> bool:
        return False


def train_by_epochs(trainer: pl.Trainer, *, trained: bool = False) -> None:
    """Let ``trainer.fit`` go on from whole epochs; if ``trained``, with what follows the last one."""
    trainer.fit_loop = _WholeEpochs(trainer, trained)
    for callback in trainer.callbacks if trained else ():
        if isinstance(callback, StochasticWeightAveraging):  # its own last epoch would have kept it
            callback._accumulate_grad_batches = trainer.accumulate_grad_batches


@contextmanager
def restoring(checkpoint: str | None) -> Iterator[None]:
    """Context that says in one line what does not fit while a checkpoint is restored.

    Raises:
        NfaError: what the checkpoint holds is not what the trainer, its callbacks or the model saved.
    """
    try:
        yield
    except (NfaError, OSError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        restored = any("checkpoint_connector" in frame.filename for frame in frames)
        stepped = (
            _OPTIMIZERS in Path(frames[-1].filename).parents
        )  # with a state that is not of its parameters
        if checkpoint is None or not (restored or stepped):
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise NfaError(
            f"{checkpoint} does not fit this run ({type(error).__name__}: {reason}): go on with the options "
            "it was trained with, or start a new run"
        ) from error


# ---- what is said ------------------------------------------------------------------------------------------


def say_how_to_resume(run_dir: Path, options: Sequence[str], sweep_dir: Path | None) -> None:
    """Print the command that goes on with what was stopped, if there is something to go on with.

    Args:
        run_dir: of the run, as it is typed.
        options: of the command line, without overrides.
        sweep_dir: of the sweep that the run is a job of, as it is typed.
    """
    from callbacks.sweep import resume_command, typed_override

    if sweep_dir is not None:
        say("", f"stopped; go on with: {resume_command(sweep_dir)}", stream=sys.stderr)
    elif (run_dir / LAST).is_file():
        given = " ".join(map(shlex.quote, options))
        target = f"ckpt_path=last {typed_override('hydra.run.dir', run_dir)}"
        command = " ".join(filter(None, [typed("python"), "train.py", given, target]))
        say("", f"stopped; go on with: {command}", stream=sys.stderr)
