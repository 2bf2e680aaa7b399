"""Train a network and measure, layer by layer, how well the neural feature ansatz holds.

python train.py model=resnet data=digits
python train.py --help
"""

import hashlib
import json
import logging
import os
import re
import secrets
import shlex
import signal
import sys
import warnings
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from shutil import which
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

ROOT = Path(__file__).resolve().parent
RUNS = "runs"
_LONGEST_NAME = 180
_NO_SETTING = {  # where and how it runs, and which repetition it is
    "data.root", "data.fold", "trainer._target_", "trainer.default_root_dir", "trainer.accelerator",
    "trainer.devices", "trainer.strategy", "trainer.num_nodes", "trainer.log_every_n_steps",
    "trainer.enable_model_summary", "trainer.num_sanity_val_steps", "trainer.use_distributed_sampler",
}  # fmt: skip
_WHAT_IS_TRAINED = ("model.", "data.", "training.", "trainer.max_", "trainer.precision")
_OPTIONS_WITH_VALUE = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c",
)  # fmt: skip


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run one job: build data, model and trainer, fit, test, and show what was found.

    Returns:
        What ``summary.json`` holds.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from callbacks import LastCheckpoint, RunFolder, progress_options
    from callbacks.loggers import LabWandbLogger, finish_wandb
    from callbacks.run_folder import find_monitor
    from callbacks.sweep import as_single_run, checkpoint_of_job, summary_of_finished
    from models import build_model

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    description = _description(cfg)
    if _is_sweep():
        if (done := summary_of_finished(run_dir, description["config"])) is not None:
            print(f"finished before: {_relative(run_dir)}")
            return done
        cfg.ckpt_path = checkpoint_of_job(run_dir, description["config"], cfg.trainer.get("max_epochs"))
    if cfg.seed is not None:
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = _instantiate(cfg.data)
    datamodule.prepare_data()
    datamodule.setup()
    model = build_model(_plain(cfg.model), _plain(cfg.training), datamodule)
    folder = RunFolder(run_dir, description, shlex.join(["python", "train.py", *_arguments()]))
    wanted = [callback for callback in (cfg.callbacks or {}).values() if callback and "_target_" in callback]
    measuring = [_instantiate(callback) for callback in wanted]  # an experiment may set options of others
    checkpoint = _checkpoint(cfg.ckpt_path, run_dir, cfg.trainer.get("max_epochs"))
    try:
        logger = _instantiate(cfg.logger) if cfg.logger else False
        if isinstance(logger, LabWandbLogger):
            logger.file_under(model.kind, Path(HydraConfig.get().sweep.dir).name if _is_sweep() else None)
        progress = progress_options()
        progress["callbacks"] += [*measuring, folder, LastCheckpoint(run_dir / "checkpoints")]
        trainer = _instantiate(cfg.trainer, logger=logger, **progress)
        if logger:
            logger.log_hyperparams(_plain(cfg))
        job = [str(ROOT / "train.py"), *_arguments(), *([f"ckpt_path='{checkpoint}'"] if checkpoint else [])]
        with as_single_run(run_dir, job) if _is_sweep() else nullcontext():
            trainer.fit(model, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
            trainer.test(model, datamodule=datamodule, verbose=False)
        if trainer.is_global_zero and folder.summary:
            sync = logger.sync_command if isinstance(logger, LabWandbLogger) else None
            _show(folder, find_monitor(trainer), sync)
    except SIGTERMException:
        _say_how_to_resume(run_dir)
        raise SystemExit(128 + signal.SIGTERM) from None
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit(1)
        _say_how_to_resume(run_dir)
        raise
    finally:
        finish_wandb()
    return folder.summary


def _audit(cfg: DictConfig) -> dict[str, Any]:
    """Run ``nfa audit`` with the options of ``cfg.audit``; its files go into the run folder."""
    from nfa import NfaError
    from nfa.cli import main

    folder = Path(HydraConfig.get().runtime.output_dir)
    options = OmegaConf.to_container(cfg.audit, resolve=True, throw_on_missing=True)
    if _is_sweep() and (folder / "audit.json").is_file():
        print(f"finished before: {_relative(folder)}")
        return {}
    if _is_sweep() and options.get("wandb"):
        options.setdefault("group", Path(HydraConfig.get().sweep.dir).name)
    arguments = ["audit", options.pop("spec"), "--out", str(folder)]
    for name, value in options.items():
        if value is not None and value is not False:
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    try:
        code = main(arguments)
    except SystemExit as stop:  # the mistake was told
        code = stop.code
    if code:
        raise NfaError(f"the audit of {cfg.audit.spec} failed")
    return {}


def _description(cfg: DictConfig) -> dict[str, Any]:
    """Model, data and seed by name, the other options that were given for them, and a digest of all options.

    A ``_target_`` given on the command line is the name.
    """
    hydra_config = HydraConfig.get()
    names = {"model": hydra_config.runtime.choices.model, "data": hydra_config.runtime.choices.data}
    options = []
    for override in hydra_config.overrides.task:
        key, _, value = override.partition("=")
        if key in ("model._target_", "data._target_"):
            names[key.split(".")[0]] = value.rsplit(".", 1)[-1]
        elif key.lstrip("+").startswith(_WHAT_IS_TRAINED):
            options.append(override.lstrip("+"))
    about = {"options": sorted(options), "settings": _settings(cfg), "config": _digest(cfg)}
    return {**names, "seed": cfg.seed, **about}


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """Every option that makes another model or training, typed or from a file, under its dotted name."""
    settings: dict[str, Any] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                collect(f"{name}.{key}", item)
        elif name not in _NO_SETTING and not name.endswith(".seed"):
            settings[name] = value

    for part in ("model", "data", "training", "trainer"):
        collect(part, _plain(cfg[part]))
    return settings


def _digest(cfg: DictConfig) -> str:
    """Tells runs with other options apart; where they are written to and logged makes no difference."""
    options = {k: v for k, v in _plain(cfg).items() if k not in ("ckpt_path", "logger")}
    options["trainer"].pop("default_root_dir", None)
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _arguments() -> list[str]:
    """Options and overrides of this run; of a job of a sweep, those with which it is run by itself."""
    if not _is_sweep():
        return sys.argv[1:]
    options = [option for option in _split_options(sys.argv[1:])[0] if option not in ("-m", "--multirun")]
    return [*options, *HydraConfig.get().overrides.task]


def _instantiate(config: DictConfig, **extra: Any) -> Any:
    """Build what a ``_target_`` names; a mistake of the user keeps its own one-line message."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from nfa import NfaError

    try:
        return hydra.utils.instantiate(config, _convert_="all", **extra)
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, NfaError | MisconfigurationException):
            raise error.__cause__ from None
        if "Error locating target" in str(error):
            raise NfaError(f"cannot import {config._target_}: {error.__cause__ or error}") from None
        raise


def _plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)


def _checkpoint(ckpt_path: str | None, run_dir: Path, max_epochs: int | None) -> str | None:
    """Path of the checkpoint to go on from, known to be one."""
    import torch

    from nfa import NfaError

    if ckpt_path is None:
        return None
    path = run_dir / "checkpoints" / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path)
    if not path.is_file():
        raise NfaError(f"no checkpoint at {path}: give ckpt_path the path of a file, or run without it")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise NfaError(f"{path} cannot be read as a checkpoint ({str(error).splitlines()[0]})") from None
    if not {"state_dict", "loops"} <= set(saved):
        raise NfaError(f"{path} is no training checkpoint of this lab: it has no loops or no state_dict")
    done = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if max_epochs is not None and 0 <= max_epochs <= done:
        raise NfaError(
            f"the run of {path} is complete ({done} epochs): raise trainer.max_epochs to train it further"
        )
    return str(path)


def _show(folder: Any, monitor: Any, sync_command: str | None) -> None:
    """Print the table, the sentence, the test metrics and where everything is; in a sweep, less of it."""
    from nfa.report import format_table, summary_sentence

    if monitor is not None and monitor.report is not None and not _is_sweep():
        print(f"\n{format_table(monitor.report.rows)}\n\n{summary_sentence(monitor.report.rows)}")
    test = "  ".join(f"{k} {v:.4f}" for k, v in folder.summary.items() if k.startswith("test/"))
    print(f"\n{test}  ({folder.summary['fit_seconds']:.1f} s of training)")
    print(f"report   {_relative(folder.path / 'report.html')}")
    if sync_command and not _is_sweep():  # at its end there is one command for all
        print(f"upload   {sync_command}")


def _say_how_to_resume(run_dir: Path) -> None:
    from callbacks.sweep import resume_command, typed_override
    from nfa.commands import typed

    if _is_sweep():
        command = resume_command(_relative(Path(HydraConfig.get().sweep.dir).absolute()))
        print(f"\nstopped; go on with: {command}", file=sys.stderr)
    elif (run_dir / "checkpoints" / "last.ckpt").is_file():
        given = [o for o in _split_options(sys.argv[1:])[0] if o not in ("-m", "--multirun")]
        options = " ".join(map(shlex.quote, given))
        target = f"ckpt_path=last {typed_override('hydra.run.dir', _relative(run_dir))}"
        command = " ".join(filter(None, [typed("python"), "train.py", options, target]))
        print(f"\nstopped; go on with: {command}", file=sys.stderr)


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# ---- the command line -------------------------------------------------------------------------------------


@hydra.main(version_base="1.3", config_path=str(ROOT / "configs"), config_name="train")
def _job(cfg: DictConfig) -> float | None:
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from nfa import NfaError

    try:
        if _is_sweep():
            print(
                f"\n== job {HydraConfig.get().job.num + 1}: {Path(HydraConfig.get().runtime.output_dir).name}"
            )
        summary = _audit(cfg) if cfg.get("audit") else train(cfg)
    except (NfaError, MisconfigurationException) as error:
        return _fail(error)
    except MissingMandatoryValue as error:
        return _fail(NfaError(f"{error.full_key} must be given: {error.full_key}=VALUE"))
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(NfaError(f"cannot write or read {error.filename or 'a file'}: {error.strerror}"))
    except Exception as error:
        if not _is_sweep():
            raise
        return _fail(error)
    return summary.get("test/accuracy", summary.get("test/mse"))


def _fail(error: Exception) -> None:
    """End a run with its mistake in one line; a job of a sweep alone, so that the others go on."""
    if not _is_sweep():
        _stop(" ".join(str(error).split()))
    from callbacks.sweep import note_failure

    folder = Path(HydraConfig.get().runtime.output_dir)
    print(f"error in {folder.name}: {note_failure(folder, error)}", file=sys.stderr)


def _stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def _split_options(arguments: list[str]) -> tuple[list[str], list[str]]:
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


def _resume_overrides(arguments: list[str]) -> list[str]:
    """``ckpt_path=last`` goes on in the folder and with the options of the newest run, or of the one named.

    What is given on the command line wins over what that run was started with.
    """
    if "ckpt_path=last" not in arguments:
        return arguments
    named = [a.split("=", 1)[1] for a in arguments if a.startswith("hydra.run.dir=")]
    folder = Path(named[-1].strip("'\"")) if named else _newest_run()
    if folder is None:
        _stop(f"ckpt_path=last found no run with a checkpoint below {RUNS}/: start one without ckpt_path")
    saved = folder / ".hydra" / "overrides.yaml"
    earlier = list(OmegaConf.load(saved)) if saved.is_file() else []
    given = {_key(a) for a in arguments}
    kept = [a for a in earlier if _key(a) not in given]
    place = [] if named else [f"hydra.run.dir='{folder}'"]
    quiet = ["hydra.output_subdir=null"] if saved.is_file() else []  # what the run was started with stays
    return [*kept, *arguments, *place, *quiet]


def _sweep_overrides(arguments: list[str]) -> list[str]:
    """Name the folder of a sweep; ``ckpt_path=last`` goes on with the newest one, or with the one named.

    Jobs that are finished there are not run again.
    """
    named = [a.split("=", 1)[1].strip("'\"") for a in arguments if a.startswith("hydra.sweep.dir=")]
    if "ckpt_path=last" not in arguments:
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_sweep_{secrets.token_hex(3)}"
        return arguments if named else [*arguments, f"hydra.sweep.dir={RUNS}/{name}"]
    found = sorted(Path(RUNS).glob("*/multirun.yaml"), key=lambda path: path.stat().st_mtime)
    path = Path(named[-1]) / "multirun.yaml" if named else found[-1] if found else None
    if path is None or not path.is_file():
        _stop(
            f"ckpt_path=last found no sweep in {path.parent if path else RUNS}: start one without ckpt_path"
        )
    saved = OmegaConf.load(path).hydra.overrides
    given = [a for a in arguments if a != "ckpt_path=last"]
    names = {_key(a) for a in given}
    earlier = [
        a for a in (*saved.task, *saved.hydra) if _key(a) not in {*names, "hydra.sweep.dir", "hydra.mode"}
    ]
    return [*earlier, *given, *([] if named else [f"hydra.sweep.dir='{path.parent}'"])]


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def _newest_run() -> Path | None:
    found = sorted(Path(RUNS).glob("**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent.parent if found else None


def _check_writable(arguments: list[str], option: str) -> None:
    """Say in one line that the run folder cannot be made, before Hydra says it in fifty."""
    from nfa.files import make_writable

    named = [a.split("=", 1)[1].strip("'\"") for a in arguments if a.startswith(f"{option}=")]
    folder = Path(named[-1]) if named and "$" not in named[-1] else Path(RUNS)
    try:
        make_writable(folder)
    except OSError as error:
        _stop(
            f"cannot write to the run folder {folder} ({error.strerror}): choose another with {option}=PATH"
        )


def _forget_failures() -> None:
    if sweep := sys.modules.get("callbacks.sweep"):  # of an earlier sweep of this process
        sweep.EndOfSweep.unfinished, sweep.EndOfSweep.failures = [], 0


def _some_failed() -> bool:
    sweep = sys.modules.get("callbacks.sweep")  # Hydra imports it, in the process that starts the jobs
    return bool(sweep and (sweep.EndOfSweep.unfinished or sweep.EndOfSweep.failures))


def _file_name(words: str) -> str:
    """Text as the name of one file: no slashes, and not too long; what is lost makes it end in a digest."""
    name = re.sub(r"[^\w.,=+-]+", "-", words)[:_LONGEST_NAME]
    return name if name == words else f"{name}-{hashlib.sha256(words.encode()).hexdigest()[:6]}"


OmegaConf.register_new_resolver("uid", lambda: secrets.token_hex(3), use_cache=True, replace=True)
OmegaConf.register_new_resolver("file_name", _file_name, replace=True)


def main() -> None:
    """Entry point of ``python train.py``."""
    _forget_failures()
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # torch 2.15 in Lightning
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what all processes compute alike
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # no validation
    sys.path[:0] = [path for path in (str(ROOT), os.getcwd()) if path not in sys.path]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places = dict.fromkeys(path for path in (str(ROOT), os.getcwd(), *inherited) if path)
    os.environ["PYTHONPATH"] = os.pathsep.join(places)  # for the processes of launchers
    options, overrides = _split_options(sys.argv[1:])
    if not {"-h", "--help", "--hydra-help", "--cfg", "-c", "--info", "-i"} & set(options):
        sweeping = bool({"-m", "--multirun"} & set(options))
        overrides = (_sweep_overrides if sweeping else _resume_overrides)(overrides)
        _check_writable(overrides, "hydra.sweep.dir" if sweeping else "hydra.run.dir")
        if any(o.startswith("hydra/launcher=") and "slurm" in o for o in overrides) and not which("srun"):
            _stop(
                "hydra/launcher=slurm is for a Slurm cluster, and there is no srun here: try submitit_local"
            )
    sys.argv[1:] = [*options, *overrides]
    _job()
    if _some_failed():
        raise SystemExit(1)


if __name__ == "__main__":
    import train  # by its name, launchers find the job, and the resolvers, in other processes

    train.main()
