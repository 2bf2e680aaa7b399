"""``nfa compare``: finished runs side by side, as a table, CSV files and a page for each data set."""

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import nfa
from nfa.compare import Comparison, compare_each
from nfa.compare.runs import is_run
from nfa.compare.words import TABLES, format_comparison, similarity_sentences, winner_sentence, write_tables
from nfa.files import make_writable
from nfa.page.comparison import write_comparison
from nfa.page.contents import write_contents
from nfa.terminal import one_line, say

PAGE = "comparison.html"
_LONGEST_NAME = 60  # of a folder named after a data set


@dataclass(frozen=True)
class Written:
    """A comparison and the folder that has its files."""

    comparison: Comparison
    folder: Path


def compare_folders(
    paths: Sequence[str | os.PathLike], out: str | os.PathLike, command: str = ""
) -> list[Written]:
    """Compare finished runs, print the table, and write ``comparison.csv``, ``similarity.csv`` and ``.html``.

    Runs of several data sets are one comparison each, in a folder of its own that is named after the data;
    ``comparison.html`` leads to them.

    Args:
        paths: run folders, or folders of sweeps.
        out: folder for the files; files of an earlier comparison are replaced.
        command: for the page.

    Raises:
        NfaError: fewer than two runs, or none that may be compared; nothing is written then.
        OSError: the folder cannot be written to.
    """
    started = time.perf_counter()
    comparisons, left_out = compare_each(paths)
    out = Path(out)
    make_writable(out)
    for reason in [*left_out, *(reason for one in comparisons for reason in one.left_out)]:
        say(f"left out: {reason}", stream=sys.stderr)
    meta = {"command": command, "nfa": nfa.__version__, "torch": torch.__version__}
    if len(comparisons) == 1:
        alone = replace(comparisons[0], left_out=[*left_out, *comparisons[0].left_out])
        return [_write(alone, out, meta, started)]
    folders = _folders(out, [one.data for one in comparisons])
    written = []
    for one, folder in zip(comparisons, folders, strict=True):
        say("", f"== {one_line(one.data)}: {len(one.runs)} runs")
        written.append(_write(one, folder, meta, started))
    entries = {
        f"{folder.name}/{PAGE}": (one.data, winner_sentence(one))
        for one, folder in zip(comparisons, folders, strict=True)
    }
    for name in TABLES:  # of a comparison of one data set, which the page no longer shows
        (out / name).unlink(missing_ok=True)
    write_contents(out / PAGE, entries, left_out=left_out, meta=meta)
    say("", f"all          {out / PAGE}")
    return written


def _write(comparison: Comparison, folder: Path, meta: dict[str, str], started: float) -> Written:
    """Print one comparison, and write its files."""
    make_writable(folder)
    sentence = winner_sentence(comparison)
    say("", *format_comparison(comparison).split("\n"), "", sentence)
    comparison = replace(comparison, notes=[*comparison.notes, *similarity_sentences(comparison)])
    if comparison.notes:
        say(*comparison.notes)
    write_tables(folder, comparison)
    about = {
        "command": meta["command"],
        "folders": [str(run.path) for run in comparison.runs],
        **meta,
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_comparison(folder / PAGE, comparison, sentence=sentence, meta=about)
    say("", f"comparison   {folder / PAGE}")
    return Written(comparison, folder)


def _folders(out: Path, names: Sequence[str]) -> list[Path]:
    """A folder for each data set, named after it; none is that of a run, or of another data set."""
    found: list[Path] = []
    for name in names:
        words = re.sub(r"[^\w.=-]+", "_", name, flags=re.ASCII).strip("._")[:_LONGEST_NAME] or "data"
        number, folder = 1, out / words
        while _is_taken(folder, found):
            number += 1
            folder = out / f"{words}_{number}"
        found.append(folder)
    return found


def _is_taken(folder: Path, others: Sequence[Path]) -> bool:
    names = {
        PAGE,
        *TABLES,
        "wandb",
        *(other.name.lower() for other in others),
    }  # case is nothing to some disks
    return folder.name.lower() in names or is_run(folder) or (folder.exists() and not folder.is_dir())


def run(options: argparse.Namespace) -> int:
    """Do what ``nfa compare`` was asked for; returns the exit status."""
    command = shlex.join(["nfa", "compare", *options.runs, "--out", options.out])
    for written in compare_folders(options.runs, options.out, command):
        if options.wandb:
            say(f"W&B          {log_to_wandb(written, options.out, options.wandb, options.group)}")
    return 0


def log_to_wandb(
    written: Written, out: str | os.PathLike, project: str, group: str | None, mode: str = "auto"
) -> str:
    """Log what `compare_folders` wrote to W&B; returns its address or, offline, how to upload it."""
    from nfa.integrations.wandb_sink import log_comparison

    out, folder = Path(out), written.folder
    files = [folder / name for name in (*TABLES, PAGE)]
    name = out.resolve().name + ("" if folder == out else f" {folder.name}")
    _, where = log_comparison(project, name, group, written.comparison, files, directory=out, mode=mode)
    return where
