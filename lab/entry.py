"""From ``python train.py …`` to the jobs that Hydra runs."""

import functools
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.types import TaskFunction

import lab.names  # noqa: F401 - what the configurations call
from lab.checkout import CONFIGS, ROOT
from lab.command_line.flags import check_flags, version_line
from lab.job import Train, run
from lab.mistakes.told import stop, told_in_one_line
from lab.multirun.unfinished import LAST_SWEEP

_ASKING = {"-h", "--help", "--hydra-help", "--cfg", "-c", "--info", "-i"}  # and running nothing


def start(train: Train) -> None:
    """Run what the command line asks for; a mistake in it ends the process with one line.

    ``sys.argv`` stays as it was typed: what ``ckpt_path=last`` stands for is told to Hydra alone.

    Args:
        train: runs one job. It must be found by its module and name, in the processes of launchers too.
    """
    arguments = sys.argv[1:]
    LAST_SWEEP.forget()
    _leave_out_warnings()
    _let_everything_be_found()
    if "--version" in arguments:
        print(version_line())
        return
    check_flags(arguments)
    if not _ASKING & set(arguments):
        arguments = _prepared(arguments)
    job = functools.update_wrapper(functools.partial(run, train=train, arguments=arguments), train)
    try:
        with told_in_one_line(arguments):
            _call_hydra(job, arguments)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    if LAST_SWEEP:
        raise SystemExit(1)


def _prepared(arguments: Sequence[str]) -> list[str]:
    from lab.command_line.prepare import prepare
    from nfa import NfaError
    from nfa.terminal import one_line, tolerate_any_encoding

    tolerate_any_encoding()
    try:
        return prepare(arguments)
    except NfaError as error:
        stop(one_line(error))


def _call_hydra(job: TaskFunction, arguments: Sequence[str]) -> None:
    """What ``hydra.main`` does, with a command line that need not be that of the process."""
    version.setbase("1.3")
    parser = get_args_parser()
    _run_hydra(
        args=parser.parse_args(list(arguments)),
        args_parser=parser,
        task_function=job,
        config_path=str(CONFIGS),
        config_name="train",
    )


def _leave_out_warnings() -> None:
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # torch 2.15 in Lightning
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what all processes compute alike
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # no validation


def _let_everything_be_found() -> None:
    """The project and what lies in the working folder can be imported, in the processes of launchers too."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    if os.getcwd() not in sys.path:  # behind what is installed, which a file lying here does not replace
        sys.path.append(os.getcwd())
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places = dict.fromkeys(path for path in (str(ROOT), os.getcwd(), *inherited) if path)
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
