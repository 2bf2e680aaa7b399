"""A job that failed, written down so that the others can go on."""

import contextlib
import traceback
from pathlib import Path

from lab.multirun.unfinished import LAST_SWEEP
from nfa import NfaError
from nfa.compare.together import SUMMARY
from nfa.files import write_whole

FAILED = "failed.txt"  # in the folder of a job: why it ended early


def note_failure(folder: Path, error: BaseException) -> str:
    """Write down why a job failed, so that the others can go on; returns it in one line."""
    line, details = " ".join(str(error).split()), ""
    if not isinstance(error, NfaError):
        line, details = f"{type(error).__name__}: {line}", "".join(traceback.format_exception(error))
    LAST_SWEEP.failures += 1
    if (folder / SUMMARY).is_file():  # it holds the finished run of another job
        return line
    with contextlib.suppress(OSError):  # a full disk: the job has no summary, which tells as much
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FAILED, f"{line}\n{details}")
    return line
