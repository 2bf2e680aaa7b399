"""Where a run begins: anew, at a checkpoint, or after its training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nfa import NfaError
from nfa.compare.together import is_complete
from nfa.machines.update import AUTO
from nfa.machines.updates import UPDATES
from nfa.nets.registry import canonical

LAST = Path("checkpoints") / "last.ckpt"


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
    ckpt_path: str | None, run_dir: Path, description: Mapping[str, object], max_epochs: int | None
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
    mine = _part(description, "settings")
    saved = _read(path)
    done = int(_part(saved, "loops", "fit_loop", "epoch_progress", "current")["processed"])
    at_limit = max_epochs is not None and 0 <= max_epochs <= done
    ended = _part(saved, "callbacks", "LastCheckpoint").get("ended", at_limit)  # version 0.1 did not tell
    theirs = _part(saved, "callbacks", "RunFolder", "description", "settings")
    same = all(name in mine and _today(name, mine) == _today(name, theirs) for name in theirs)
    if same and ended:
        folder = path.parent.parent if path.parent.name == LAST.parent.name else run_dir
        if not is_complete(folder):
            return Start(str(path), trained=True)
    if (same and ended) or (at_limit and not same):
        raise NfaError(
            f"the run of {path} is complete ({done} epochs): raise trainer.max_epochs to train it further"
        )
    return Start(str(path))


def _today(name: str, settings: Mapping[str, object]) -> object:
    """The value of a setting: networks by the names they have now, and the power that ``auto`` stands for."""
    value = settings[name]
    if name == "model.power" and value == AUTO:  # a number in runs of older versions
        update = UPDATES.get(str(settings.get("model.learn", "agop")))
        return getattr(update, "usual_power", value)
    return canonical(value) if name == "model._target_" and isinstance(value, str) else value


def _part(saved: object, *names: str) -> Mapping[str, Any]:
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
