"""The command line as Hydra is to read it, and what can be refused before Hydra reads it."""

from collections.abc import Sequence
from pathlib import Path
from shutil import which

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.checkout import CONFIGS
from lab.command_line.resumed import RUNS, resume_run, resume_sweep
from lab.command_line.saved import nodes
from lab.command_line.words import config_folders, key_of, quoted, split_options, value_of
from nfa import NfaError
from nfa.files import make_writable

_PATHS = ("ckpt_path", "hydra.run.dir", "hydra.sweep.dir", "data.root")


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
    places = [CONFIGS, *map(Path, config_folders(options))]
    files = [place / "experiment" / f"{experiment}.yaml" for place in places]
    path = next((file for file in files if experiment and file.is_file()), None)
    swept = nodes(path, "hydra", "sweeper", "params") if path else None
    pairs = swept.value if isinstance(swept, yaml.MappingNode) else []
    chosen = set(map(key_of, overrides))
    setting = value_of(added, "setting")
    left = {key.value: _at(setting, value.value) for key, value in pairs if key.value not in chosen}
    if left:
        values = "; ".join(f"{name}={value}" for name, value in left.items())
        raise NfaError(
            f"this is a sweep over {values}: add -m, or choose one value ({next(iter(left))}=VALUE)"
        )


def _at(setting: str | None, value: str) -> str:
    """What a sweep varies, where that depends on the setting."""
    try:
        return str(OmegaConf.create({"setting": setting, "value": value})["value"])
    except OmegaConfBaseException:
        return value


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
