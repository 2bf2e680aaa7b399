"""Train a network and measure, layer by layer, how well the neural feature ansatz holds.

python train.py model=resnet data=digits
python train.py --help
"""

import os
import signal
import sys

if __name__ == "__main__":  # until training starts, Ctrl-C is one line, whatever is being imported
    signal.signal(signal.SIGINT, lambda number, frame: (os.write(2, b"\ninterrupted\n"), os._exit(130)))

import hashlib
import logging
import re
import secrets
import shlex
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from lab.mistakes import check_flags, told_in_one_line, version_line

ROOT = Path(__file__).resolve().parent
_LONGEST_NAME = 180
_ASKING = {"-h", "--help", "--hydra-help", "--cfg", "-c", "--info", "-i"}  # and running nothing


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run one job: build data, model and trainer, fit, test, and show what was found.

    Returns:
        What ``summary.json`` holds.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.utilities import rank_zero_only

    from callbacks import AnsatzMonitor, LastCheckpoint, RunFolder, progress_options
    from callbacks.loggers import LabWandbLogger, finish_wandb
    from callbacks.run_folder import find_monitor
    from callbacks.sweep import as_single_run, checkpoint_of_job, summary_of_finished
    from lab.check import check_data
    from lab.describe import describe, plain, trainer_options
    from lab.resume import find_start, restoring, train_by_epochs
    from models import build_model
    from nfa.terminal import say

    _let_interrupt()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    description = describe(cfg)
    if _is_sweep():
        if (done := summary_of_finished(run_dir, description["config"])) is not None:
            say(f"finished before: {_relative(run_dir)}")
            return done
        cfg.ckpt_path = checkpoint_of_job(run_dir, description["config"])
    if cfg.seed is not None:
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = _instantiate(cfg.data)
    check_data(datamodule)
    datamodule.prepare_data()
    datamodule.setup()
    if rank_zero_only.rank == 0:
        for line in getattr(datamodule, "remarks", list)():
            say(line)
    model = build_model(plain(cfg.model), plain(cfg.training), datamodule)
    folder = RunFolder(run_dir, description, shlex.join(["python", "train.py", *_arguments()]))
    wanted = [callback for callback in (cfg.callbacks or {}).values() if callback and "_target_" in callback]
    callbacks = [_instantiate(callback) for callback in wanted]  # an experiment may set options of others
    callbacks.sort(key=lambda callback: isinstance(callback, AnsatzMonitor))  # see what the others did
    start = find_start(cfg.ckpt_path, run_dir, description, cfg.trainer.get("max_epochs"))
    try:
        logger = _instantiate(cfg.logger) if cfg.logger else False
        if isinstance(logger, LabWandbLogger):
            logger.file_under(model.kind, Path(HydraConfig.get().sweep.dir).name if _is_sweep() else None)
        progress = progress_options()
        progress["callbacks"] += [*callbacks, folder, LastCheckpoint(run_dir / "checkpoints")]
        trainer = _instantiate(trainer_options(cfg), logger=logger, **progress)
        train_by_epochs(trainer, trained=start.trained)
        if logger:
            logger.log_hyperparams(plain(cfg))
        resumed = [f"ckpt_path='{start.checkpoint}'"] if start.checkpoint else []
        job = [str(ROOT / "train.py"), *_arguments(), *resumed]
        with as_single_run(run_dir, job) if _is_sweep() else nullcontext():
            with restoring(start.checkpoint):
                trainer.fit(model, datamodule=datamodule, ckpt_path=start.checkpoint, weights_only=True)
            trainer.test(model, datamodule=datamodule, verbose=False)
            folder.finish(trainer, model)
        if trainer.is_global_zero and folder.summary:
            sync = logger.sync_command if isinstance(logger, LabWandbLogger) else None
            _show(folder, find_monitor(trainer), sync)
    except BaseException as error:
        status = _status_of_stopped(error)
        if status is None:
            raise
        _say_how_to_resume(run_dir)
        raise SystemExit(status) from None
    finally:
        finish_wandb()
    return folder.summary


def _status_of_stopped(error: BaseException) -> int | None:
    """Exit status of a run that was asked to stop, which Lightning tells in its own ways; else None."""
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    if isinstance(error, SIGTERMException):
        return 128 + signal.SIGTERM
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return None


def _audit(cfg: DictConfig) -> dict[str, Any]:
    """Run ``nfa audit`` with the options of ``cfg.audit``; its files go into the run folder."""
    from nfa import NfaError
    from nfa.cli import main
    from nfa.compare.together import is_audited
    from nfa.terminal import say

    _let_interrupt()
    folder = Path(HydraConfig.get().runtime.output_dir)
    options = OmegaConf.to_container(cfg.audit, resolve=True, throw_on_missing=True)
    if _is_sweep() and is_audited(folder):
        say(f"finished before: {_relative(folder)}")
        return {}
    if _is_sweep() and options.get("wandb"):
        options.setdefault("group", Path(HydraConfig.get().sweep.dir).name)
    arguments = ["audit", options.pop("spec"), "--out", str(folder)]
    for name, value in options.items():
        if value is not None and value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
    try:
        code = main(arguments)
    except SystemExit as stop:  # the mistake was told
        code = stop.code
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):  # and the sweep with it
        raise SystemExit(code)
    if code and not _is_sweep():
        raise SystemExit(code)
    if code:
        raise NfaError(f"the audit of {cfg.audit.spec} failed")
    return {}


def _is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _arguments() -> list[str]:
    """Options and overrides of this run; of a job of a sweep, those with which it is run by itself."""
    if not _is_sweep():
        return sys.argv[1:]
    from lab.command_line import split_options

    options = [option for option in split_options(sys.argv[1:])[0] if option not in ("-m", "--multirun")]
    return [*options, *HydraConfig.get().overrides.task]


def _instantiate(config: Mapping[str, Any], **extra: Any) -> Any:
    """Build what a ``_target_`` names; a mistake of the user keeps its own one-line message."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from nfa import NfaError

    target = config["_target_"]
    try:
        return hydra.utils.instantiate(config, _convert_="all", **extra)
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, NfaError | MisconfigurationException):
            raise cause from None
        if "Error locating target" in str(error):
            raise NfaError(f"cannot import {target}: {cause or error}") from None
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None
        ours = target.split(".")[0] in ("callbacks", "datamodules", "pytorch_lightning")
        if ours or (isinstance(cause, TypeError) and "argument" in str(cause)):
            raise NfaError(f"cannot build {target} with these options: {cause or error}") from error
        raise


def _show(folder: Any, monitor: Any, sync_command: str | None) -> None:
    """Print the table, the sentence, the test metrics and where everything is; in a sweep, less of it."""
    from nfa.report import format_table, summary_sentence
    from nfa.terminal import say

    if monitor is not None and monitor.report is not None and not _is_sweep():
        print(f"\n{format_table(monitor.report.rows)}\n\n{summary_sentence(monitor.report.rows)}")
    test = "  ".join(f"{k} {v:.4f}" for k, v in folder.summary.items() if k.startswith("test/"))
    say("", f"{test}  ({folder.summary['fit_seconds']:.1f} s of training)")
    say(f"report   {_relative(folder.path / 'report.html')}")
    if sync_command and not _is_sweep():  # at its end there is one command for all
        say(f"upload   {sync_command}")


def _say_how_to_resume(run_dir: Path) -> None:
    from lab.command_line import split_options
    from lab.resume import say_how_to_resume

    given = [o for o in split_options(sys.argv[1:])[0] if o not in ("-m", "--multirun")]
    sweep = _relative(Path(HydraConfig.get().sweep.dir).absolute()) if _is_sweep() else None
    say_how_to_resume(_relative(run_dir), given, sweep)


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# ---- the command line -------------------------------------------------------------------------------------


@hydra.main(version_base="1.3", config_path=str(ROOT / "configs"), config_name="train")
def _job(cfg: DictConfig) -> float | None:
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from lab.check import check_options
    from lab.trust import sign
    from nfa import NfaError
    from nfa.terminal import say

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        if hydra_config.output_subdir is not None:  # else Hydra wrote no options
            sign(folder / hydra_config.output_subdir, hydra_config.overrides.task)
        if _is_sweep():
            say("", f"== job {hydra_config.job.num + 1}: {folder.name}")
        check_options(cfg)
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
    from nfa.terminal import say

    folder = Path(HydraConfig.get().runtime.output_dir)
    say(f"error in {folder.name}: {note_failure(folder, error)}", stream=sys.stderr)


def _stop(message: str) -> NoReturn:
    from nfa.terminal import error_line

    print(f"error: {error_line(message)}", file=sys.stderr)
    raise SystemExit(1)


def _let_interrupt() -> None:
    """Ctrl-C raises KeyboardInterrupt again: from here on there is something to end well."""
    if not isinstance(signal.getsignal(signal.SIGINT), int):  # ignored by whoever started this process
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    if os.getcwd() not in sys.path:  # behind what is installed, which a file lying here does not replace
        sys.path.append(os.getcwd())
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places = dict.fromkeys(path for path in (str(ROOT), os.getcwd(), *inherited) if path)
    os.environ["PYTHONPATH"] = os.pathsep.join(places)  # for the processes of launchers
    if "--version" in sys.argv[1:]:
        print(version_line())
        return
    check_flags(sys.argv[1:])
    if not _ASKING & set(sys.argv[1:]):
        from lab.command_line import prepare
        from nfa import NfaError
        from nfa.terminal import tolerate_any_encoding

        tolerate_any_encoding()
        try:
            sys.argv[1:] = prepare(sys.argv[1:])
        except NfaError as error:
            _stop(str(error))
    try:
        with told_in_one_line(sys.argv[1:]):
            _job()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    if _some_failed():
        raise SystemExit(1)


if __name__ == "__main__":
    import train  # by its name, launchers find the job, and the resolvers, in other processes

    train.main()
