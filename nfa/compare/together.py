"""Files of a run folder that were written together: ``summary.json``, the last of them, tells their digests.

So a folder that was used again, trained further, or stopped before it was whole is known as such: a file
beside the summary is then missing, or is not the one that the summary was written with.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from nfa.files import write_whole

SUMMARY, FEATURES, REPORT = "summary.json", "features.safetensors", "report.html"
METRICS, ANSATZ = "metrics.csv", "ansatz.csv"
TABLE = "table.json"  # how the rows of a table become inputs
BESIDE = (METRICS, ANSATZ, FEATURES, REPORT, TABLE)
_DIGESTS = "files"  # under which the summary has them


def write_summary(folder: Path, summary: Mapping[str, object]) -> None:
    """Write ``summary.json``, with the digests of the files of the run that are there by now."""
    digests = {name: _digest(folder / name) for name in BESIDE if (folder / name).is_file()}
    write_whole(folder / SUMMARY, json.dumps({**summary, _DIGESTS: digests}, indent=2) + "\n")


def disagreement(folder: Path, summary: Mapping[str, object], *, report: bool = True) -> str | None:
    """What of the files beside a summary is missing or not of its run, in a few words; None if all agree.

    Args:
        folder: of the run.
        summary: what its ``summary.json`` holds; that of version 0.1 has no digests.
        report: whether ``report.html`` counts.

    Raises:
        OSError: a file cannot be read.
    """
    names = [name for name in BESIDE if report or name != REPORT]
    known = summary.get(_DIGESTS)
    if not isinstance(known, Mapping):
        measured = (folder / ANSATZ).is_file()
        needed = {METRICS, *([REPORT] if report else []), *([FEATURES] if report and measured else [])}
        missing = [name for name in names if name in needed and not (folder / name).is_file()]
        return f"it has no {missing[0]}" if missing else None
    for name in names:
        if not (folder / name).is_file():
            if name in known:
                return f"it has no {name}"
        elif name not in known or _digest(folder / name) != known[name]:
            return f"its {name} and its {SUMMARY} were not written together"
    return None


def is_complete(folder: Path) -> bool:
    """Whether a run in a folder came to its very end, so that nothing is left to do."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return isinstance(summary, dict) and disagreement(folder, summary) is None
    except (OSError, ValueError, RecursionError):
        return False


def is_audited(folder: Path) -> bool:
    """Whether an audit in a folder came to its end, and was not stopped before."""
    try:
        audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        meta = audit["meta"]
        stopped = meta.get("stopped") or meta.get("at initialisation", {}).get("stopped")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return False
    return not stopped and all((folder / f"audit.{kind}").is_file() for kind in ("csv", "html"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
