"""What ``nfa audit`` leaves behind: the files first, then the table, then the dashboard."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import nfa
from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.report import AnsatzReport
from nfa.ansatz.report_file import write_json
from nfa.ansatz.row import write_csv
from nfa.ansatz.words import format_table, summary_sentence
from nfa.command.console import clock
from nfa.errors import NfaError
from nfa.files import make_writable
from nfa.page import write_html
from nfa.page.headline import audit_headline
from nfa.terminal import say

KINDS = ("csv", "json", "html")
MATRICES = "matrices.safetensors"
_UNLIMITED = 10_000  # columns


@dataclass(frozen=True)
class Matrices:
    """Layers whose matrices were asked for, as globs, and the bytes that these may take."""

    layers: Sequence[str]
    most: float


@dataclass
class Result:
    """What an audit found, ready to be written.

    Attributes:
        report: the rows.
        notes: sentences for the reader.
        meta: versions, command, seed, sizes, timings, ….
        title: of the page.
        pictures: of some layers.
        matrices: of which layers C, N and G are written.
    """

    report: AnsatzReport
    notes: list[str]
    meta: dict[str, object]
    title: str
    pictures: Sequence[LayerPicture] = field(default_factory=list)
    matrices: Matrices | None = None


def check_writable(out: Path) -> None:
    """Make the folder, before anything is measured.

    Raises:
        NfaError: it cannot be made or written to.
    """
    try:
        make_writable(out)
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        reason = getattr(error, "strerror", None) or error
        raise NfaError(f"cannot write to --out {out} ({reason}): choose another folder") from None


def write(out: Path, result: Result) -> None:
    """All files or none: those of an earlier audit are replaced together.

    A page or matrices that cannot be made are left out, and the notes say so: the numbers are not lost for
    them.

    Raises:
        NfaError: the folder cannot be written to.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".audit-", dir=out) as folder:
            new, again = Path(folder), (out / "audit.json").exists()
            _write_matrices(new / MATRICES, result)
            _write_page(new / "audit.html", result)
            write_csv(new / "audit.csv", result.report.rows)
            report, meta = result.report, {**result.meta, "notes": result.notes}
            write_json(new / "audit.json", report.rows, meta, report.precision)
            for name in (*(f"audit.{kind}" for kind in KINDS), MATRICES):
                if (new / name).exists():
                    os.replace(new / name, out / name)
                elif again:
                    (out / name).unlink(missing_ok=True)  # of an earlier audit
    except OSError as error:
        raise NfaError(
            f"cannot write to --out {out} ({error.strerror}): the table above is all there is; free some "
            "space or choose another folder"
        ) from None


def _write_matrices(path: Path, result: Result) -> None:
    if result.matrices is None:
        return
    try:
        result.report.save_matrices(path, result.matrices.layers, max_bytes=result.matrices.most)
    except (Exception, KeyboardInterrupt) as error:  # also a full disk: the numbers may still have room
        result.notes.append(missing(f"the matrices {MATRICES}", error))


def _write_page(path: Path, result: Result) -> None:
    try:
        write_html(
            path,
            title=result.title,
            rows=result.report.rows,
            pictures=result.pictures,
            meta=result.meta,
            notes=result.notes,
            headline=audit_headline(result.report.meta),
        )
    except OSError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        result.notes.append(missing("the page audit.html", error))


def missing(what: str, error: BaseException | str) -> str:
    """The sentence on something that an audit goes without."""
    if isinstance(error, BaseException):
        line = (str(error).splitlines() or [""])[0]
        known = {KeyboardInterrupt: "stopped", NfaError: line}
        error = known.get(type(error), f"{type(error).__name__}: {line}")
    return f"Missing: {what} ({error})."


def show(result: Result) -> None:
    """Print the table and what there is to say about it."""
    rows = result.report.rows
    # Whoever reads a file or a pipe can scroll: names stay whole there.
    on_terminal = sys.stdout is not None and sys.stdout.isatty()  # None where it was closed
    width = shutil.get_terminal_size((120, 24)).columns if on_terminal else _UNLIMITED
    meta = result.report.meta
    say(*format_table(rows, width=width).split("\n"), "", summary_sentence(rows), *result.notes, "")
    say(f"measured in {clock(meta['sweep_seconds'])}, statistics in {clock(meta['statistics_seconds'])}")


def log(project: str, group: str | None, out: Path, result: Result) -> None:
    """Log to Weights & Biases."""
    from nfa.integrations.wandb_sink import log_audit

    files = [file for kind in KINDS if (file := out / f"audit.{kind}").is_file()]
    name = f"audit {result.title}"
    rows, pictures = result.report.rows, result.pictures
    _, where = log_audit(project, name, rows, pictures, result.meta, files, directory=out, group=group)
    say(f"W&B      {where}")


def versions() -> dict[str, str]:
    """Of what took part."""
    others = {
        name: sys.modules[name].__version__
        for name in ("torchvision", "timm", "transformers")
        if hasattr(sys.modules.get(name), "__version__")
    }
    return {"nfa": nfa.__version__, "torch": torch.__version__, **others, "python": platform.python_version()}
