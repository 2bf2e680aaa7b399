"""The command line of ``train.py`` before Hydra reads it: options, overrides, and what is gone on with."""

import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from shutil import which

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lab.trust import ROOT, check_links, is_signed, naming_code
from nfa import NfaError
from nfa.files import make_writable
from nfa.terminal import say

RUNS = "runs"
MULTIRUN = "multirun.yaml"  # what Hydra writes into the folder of a sweep
_OPTIONS_WITH_VALUE = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c",
)  # fmt: skip
_PATHS = ("ckpt_path", "hydra.run.dir", "hydra.sweep.dir", "data.root")
_QUOTED = re.compile(r"""(["']).*\1""", re.DOTALL)
_YAML_TYPES = {f"tag:yaml.org,2002:{name}" for name in ("seq", "str", "int", "float", "bool", "null")}
_CLOCKS_DIFFER = 60  # seconds: a shared disk may have a clock of its own


def split_options(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part options (``--config-dir PATH``, ``-m``) from overrides (``key=value``), in whatever order."""
    options, overrides = [], []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        options.append(argument)
        if argument in _OPTIONS_WITH_VALUE:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, overrides


def prepare(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra is to read it: paths quoted, and what is gone on with filled in.

    Raises:
        NfaError: there is nothing to go on with, or the run folder cannot be written to.
    """
    options, overrides = split_options(arguments)
    overrides = [_with_quoted_path(override) for override in overrides]
    sweeping = bool({"-m", "--multirun"} & set(options))
    overrides = (resume_sweep if sweeping else resume_run)(overrides)
    if not sweeping:
        _check_no_sweep(options, overrides)
    _check_writable(overrides, "hydra.sweep.dir" if sweeping else "hydra.run.dir")
    if any(o.startswith("hydra/launcher=") and "slurm" in o for o in overrides) and not which("srun"):
        raise NfaError(
            "hydra/launcher=slurm is for a Slurm cluster, and there is no srun here: try submitit_local"
        )
    return [*options, *overrides]


def _check_no_sweep(options: Sequence[str], overrides: Sequence[str]) -> None:
    """Refuse to run one job of a sweep that an experiment describes, unless it is said which.

    Raises:
        NfaError: a value is left open.
    """
    added = [override for override in overrides if override.startswith("+")]  # else Hydra refuses it
    experiment = value_of(added, "experiment")
    given = [value for name, value in pairwise(options) if name in ("--config-dir", "-cd")]
    files = [Path(place) / "experiment" / f"{experiment}.yaml" for place in (ROOT / "configs", *given)]
    path = next((file for file in files if experiment and file.is_file()), None)
    swept = _nodes(path, "hydra", "sweeper", "params") if path else None
    pairs = swept.value if isinstance(swept, yaml.MappingNode) else []
    chosen = set(map(key_of, overrides))
    left = {key.value: value.value for key, value in pairs if key.value not in chosen}
    if left:
        values = "; ".join(f"{name}={value}" for name, value in left.items())
        raise NfaError(
            f"this is a sweep over {values}: add -m, or choose one value ({next(iter(left))}=VALUE)"
        )


def _with_quoted_path(override: str) -> str:
    """An override whose path Hydra would take for grammar, like ``epoch=1.ckpt``, with that path quoted."""
    key, _, value = override.partition("=")
    if key.lstrip("+") not in _PATHS:
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}={quoted(value)}"
    return override


def quoted(value: str) -> str:
    """A text as a quoted value of Hydra's grammar."""
    inner = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), value)
    return f"'{inner}'"


def key_of(override: str) -> str:
    """What an override is of: ``model.width`` of ``+model.width=8``."""
    return override.split("=", 1)[0].lstrip("+~")


def value_of(overrides: Iterable[str], key: str) -> str | None:
    """The value that is given last for a key, without quotes."""
    given = [
        override.split("=", 1)[1] for override in overrides if "=" in override and key_of(override) == key
    ]
    if not given:
        return None
    return given[-1][1:-1].replace(r"\'", "'") if _QUOTED.fullmatch(given[-1]) else given[-1]


def is_resumed(overrides: Iterable[str]) -> bool:
    """Whether ``ckpt_path=last`` is among them."""
    return value_of(overrides, "ckpt_path") == "last"


# ---- what is gone on with ----------------------------------------------------------------------------------


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
    earlier = _texts(_nodes(saved), saved)
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
    task, hydra = (_texts(_nodes(path, "hydra", "overrides", part), path) for part in ("task", "hydra"))
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


def _nodes(path: Path, *names: str) -> yaml.Node:
    """The YAML node under names; as a node, nothing in it is built.

    Raises:
        NfaError: the file cannot be read, or has no such place.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NfaError(f"the options in {path} cannot be read ({reason}): start a new run") from None
    for name in names:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    return node


def _texts(node: yaml.Node | None, path: Path) -> list[str]:
    items = node.value if isinstance(node, yaml.SequenceNode) else None
    scalars = [item for item in items or () if isinstance(item, yaml.ScalarNode)]
    if items is None or len(scalars) < len(items) or {node.tag, *(i.tag for i in scalars)} - _YAML_TYPES:
        raise NfaError(f"{path} does not hold a list of options key=value: start a new run")
    return [item.value for item in scalars]


# ---- where it writes to ------------------------------------------------------------------------------------


def _check_writable(overrides: Sequence[str], option: str) -> None:
    """Say in one line that the run folder cannot be made, before Hydra says it in fifty.

    Raises:
        NfaError: it cannot be made or written to.
    """
    named = value_of(overrides, option)
    folder = Path(named) if named and "$" not in named else Path(RUNS)
    try:
        make_writable(folder)
    except OSError as error:
        raise NfaError(
            f"cannot write to the run folder {folder} ({error.strerror}): choose another with {option}=PATH"
        ) from None
