"""Train a network and measure, layer by layer, how well the neural feature ansatz holds.

python train.py model=resnet data=digits
python train.py --help
"""

import logging
import os
import secrets
import shlex
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

ROOT = Path(__file__).resolve().parent
RUNS = "runs"
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
    from models import build_model

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if cfg.seed is not None:
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = _instantiate(cfg.data)
    datamodule.prepare_data()
    datamodule.setup()
    model = build_model(_plain(cfg.model), _plain(cfg.training), datamodule)
    folder = RunFolder(run_dir, _description(cfg), shlex.join(["python", "train.py", *sys.argv[1:]]))
    measuring = [_instantiate(callback) for callback in (cfg.callbacks or {}).values()]
    checkpoint = _checkpoint(cfg.ckpt_path, run_dir, cfg.trainer.get("max_epochs"))
    try:
        logger = _instantiate(cfg.logger) if cfg.logger else False
        progress = progress_options()
        progress["callbacks"] += [*measuring, folder, LastCheckpoint(run_dir / "checkpoints")]
        trainer = _instantiate(cfg.trainer, logger=logger, **progress)
        if logger:
            logger.log_hyperparams(_plain(cfg))
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


def _description(cfg: DictConfig) -> dict[str, Any]:
    """Model, data and seed by name, and the other options that were given for these and for the training.

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
    return {**names, "seed": cfg.seed, "options": sorted(options)}


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
    """Print the table, the sentence, the test metrics and where everything is."""
    from nfa.report import format_table, summary_sentence

    if monitor is not None and monitor.report is not None:
        print(f"\n{format_table(monitor.report.rows)}\n\n{summary_sentence(monitor.report.rows)}")
    test = "  ".join(f"{k} {v:.4f}" for k, v in folder.summary.items() if k.startswith("test/"))
    print(f"\n{test}  ({folder.summary['fit_seconds']:.1f} s of training)")
    print(f"report   {_relative(folder.path / 'report.html')}")
    if sync_command:
        print(f"upload   {sync_command}")


def _say_how_to_resume(run_dir: Path) -> None:
    if (run_dir / "checkpoints" / "last.ckpt").is_file():
        given = [o for o in _split_options(sys.argv[1:])[0] if o not in ("-m", "--multirun")]
        options = " ".join(map(shlex.quote, given))
        target = f"ckpt_path=last hydra.run.dir={shlex.quote(str(_relative(run_dir)))}"
        command = " ".join(filter(None, ["python train.py", options, target]))
        print(f"\nstopped; go on with: {command}", file=sys.stderr)


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# ---- the command line -------------------------------------------------------------------------------------


@hydra.main(version_base="1.3", config_path=str(ROOT / "configs"), config_name="train")
def _job(cfg: DictConfig) -> float | None:
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from nfa import NfaError

    try:
        summary = train(cfg)
    except (NfaError, MisconfigurationException) as error:
        _fail(" ".join(str(error).split()))
    except MissingMandatoryValue as error:
        _fail(f"{error.full_key} must be given: {error.full_key}=VALUE")
    except OSError as error:
        if error.errno is None:
            raise
        _fail(f"cannot write or read {error.filename or 'a file'}: {error.strerror}")
    return summary.get("test/accuracy", summary.get("test/mse"))


def _fail(message: str) -> None:
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
        _fail(f"ckpt_path=last found no run with a checkpoint below {RUNS}/: start one without ckpt_path")
    saved = folder / ".hydra" / "overrides.yaml"
    earlier = list(OmegaConf.load(saved)) if saved.is_file() else []
    given = {a.split("=", 1)[0].lstrip("+~") for a in arguments}
    kept = [a for a in earlier if a.split("=", 1)[0].lstrip("+~") not in given]
    place = [] if named else [f"hydra.run.dir='{folder}'"]
    quiet = ["hydra.output_subdir=null"] if saved.is_file() else []  # what the run was started with stays
    return [*kept, *arguments, *place, *quiet]


def _newest_run() -> Path | None:
    found = sorted(Path(RUNS).glob("**/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent.parent if found else None


def _check_writable(arguments: list[str]) -> None:
    """Say in one line that the run folder cannot be made, before Hydra says it in fifty."""
    from nfa.files import make_writable

    named = [a.split("=", 1)[1].strip("'\"") for a in arguments if a.startswith("hydra.run.dir=")]
    folder = Path(named[-1]) if named and "$" not in named[-1] else Path(RUNS)
    try:
        make_writable(folder)
    except OSError as error:
        _fail(
            f"cannot write to the run folder {folder} ({error.strerror}): "
            "choose another with hydra.run.dir=PATH"
        )


def main() -> None:
    """Entry point of ``python train.py``."""
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # torch 2.15 in Lightning
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # no validation
    sys.path[:0] = [path for path in (str(ROOT), os.getcwd()) if path not in sys.path]
    OmegaConf.register_new_resolver("uid", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    options, overrides = _split_options(sys.argv[1:])
    if not {"-h", "--help", "--hydra-help", "--cfg", "-c", "--info", "-i"} & set(options):
        overrides = _resume_overrides(overrides)
        _check_writable(overrides)
    sys.argv[1:] = [*options, *overrides]
    _job()


if __name__ == "__main__":
    main()
