"""``ckpt_path=last``: which run or sweep is gone on with, and the options it was started with."""

import secrets
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from lab.command_line.saved import nodes, texts
from lab.command_line.words import key_of, quoted, value_of
from lab.trust.harmless import naming_code
from lab.trust.links import check_links
from lab.trust.signature import is_signed
from nfa import NfaError
from nfa.terminal import say

RUNS = "runs"
MULTIRUN = "multirun.yaml"  # what Hydra writes into the folder of a sweep
_CLOCKS_DIFFER = 60  # seconds: a shared disk may have a clock of its own


def is_resumed(overrides: Iterable[str]) -> bool:
    """Whether ``ckpt_path=last`` is among them."""
    return value_of(overrides, "ckpt_path") == "last"


def resume_run(overrides: list[str]) -> list[str]:
    """``ckpt_path=last`` goes on in the folder and with the options of the newest run, or of the one named.

    What is given on the command line wins over what that run was started with.

    Raises:
        NfaError: there is no such run, its options cannot be read, or they name code and are a stranger's.
    """
    if not is_resumed(overrides):
        return overrides
    named = value_of(overrides, "hydra.run.dir")
    last = "checkpoints/last.ckpt"
    folder = Path(named) if named is not None else _newest(f"**/{last}", levels=2)
    if folder is None:
        raise NfaError(
            f"ckpt_path=last found no run with a checkpoint below {RUNS}/: start one without ckpt_path"
        )
    saved = folder / ".hydra" / "overrides.yaml"
    place = [] if named is not None else [f"hydra.run.dir={quoted(str(folder))}"]
    if not saved.exists():
        check_links(folder)
        return [*overrides, *place]
    earlier = texts(nodes(saved), saved)
    kept = _kept(folder, saved.parent, earlier, overrides)
    return [*kept, *overrides, *place, "hydra.output_subdir=null"]  # what the run was started with stays


def resume_sweep(overrides: list[str]) -> list[str]:
    """Name the folder of a sweep; ``ckpt_path=last`` goes on with the newest one, or with the one named.

    Jobs that are finished there are not run again.

    Raises:
        NfaError: as `resume_run`.
    """
    named = value_of(overrides, "hydra.sweep.dir")
    if not is_resumed(overrides):
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_sweep_{secrets.token_hex(3)}"
        return overrides if named is not None else [*overrides, f"hydra.sweep.dir={RUNS}/{name}"]
    folder = Path(named) if named is not None else _newest(f"*/{MULTIRUN}", levels=1)
    if folder is None or not (folder / MULTIRUN).is_file():
        raise NfaError(f"ckpt_path=last found no sweep in {folder or RUNS}: start one without ckpt_path")
    path = folder / MULTIRUN
    task, hydra = (texts(nodes(path, "hydra", "overrides", part), path) for part in ("task", "hydra"))
    given = [override for override in overrides if key_of(override) != "ckpt_path"]
    kept = _kept(folder, folder, [*task, *hydra], given)
    place = [] if named is not None else [f"hydra.sweep.dir={quoted(str(folder))}"]
    return [*kept, *given, *place]


def _kept(folder: Path, signed: Path, earlier: Sequence[str], given: Sequence[str]) -> list[str]:
    """Those of the earlier overrides that are not given anew, if they may be followed."""
    keys = {*map(key_of, given), "ckpt_path", "hydra.run.dir", "hydra.sweep.dir", "hydra.mode"}
    kept = [override for override in earlier if key_of(override) not in keys]
    if is_signed(signed, earlier):
        return kept
    check_links(folder)
    if foreign := naming_code(kept):
        raise NfaError(
            f"the options in {folder} were not written here, and what could name code counts only when it is "
            f"typed: if you trust it, add {' '.join(map(shlex.quote, foreign))} to the command"
        )
    return kept


def _newest(pattern: str, levels: int) -> Path | None:
    """Folder of the newest file; what is dated in the future is none, and is said."""
    latest = time.time() + _CLOCKS_DIFFER
    found: list[tuple[float, Path]] = []
    for path in Path(RUNS).glob(pattern):
        folder = path.parents[levels - 1]
        try:
            dates = path.stat().st_mtime, folder.stat().st_mtime
        except OSError:
            continue
        if max(dates) <= latest:
            found.append((dates[0], folder))
        else:
            say(f"{folder} is dated in the future, and not taken for the newest", stream=sys.stderr)
    return max(found)[1] if found else None
