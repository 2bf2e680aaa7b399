"""``nfa compare``: finished runs side by side, as a table, CSV files and a page."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import nfa
from nfa.compare import Comparison, compare
from nfa.compare.words import format_comparison, similarity_sentences, winner_sentence, write_tables
from nfa.files import make_writable
from nfa.page.comparison import write_comparison
from nfa.terminal import say


def compare_folders(
    paths: Sequence[str | os.PathLike], out: str | os.PathLike, command: str = ""
) -> Comparison:
    """Compare finished runs, print the table, and write ``comparison.csv``, ``similarity.csv`` and ``.html``.

    Args:
        paths: run folders, or folders of sweeps.
        out: folder for the files; files of an earlier comparison are replaced.
        command: for the page.

    Raises:
        NfaError: fewer than two runs, or runs that must not be compared; nothing is written then.
        OSError: the folder cannot be written to.
    """
    started = time.perf_counter()
    comparison = compare(paths)
    out = Path(out)
    make_writable(out)
    sentence = winner_sentence(comparison)
    for reason in comparison.left_out:
        say(f"left out: {reason}", stream=sys.stderr)
    say("", *format_comparison(comparison).split("\n"), "", sentence)
    comparison = replace(comparison, notes=[*comparison.notes, *similarity_sentences(comparison)])
    if comparison.notes:
        say(*comparison.notes)
    write_tables(out, comparison)
    meta = {
        "command": command,
        "folders": [str(run.path) for run in comparison.runs],
        "nfa": nfa.__version__,
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_comparison(out / "comparison.html", comparison, sentence=sentence, meta=meta)
    say("", f"comparison   {out / 'comparison.html'}")
    return comparison


def run(options: argparse.Namespace) -> int:
    """Do what ``nfa compare`` was asked for; returns the exit status."""
    command = shlex.join(["nfa", "compare", *options.runs, "--out", options.out])
    comparison = compare_folders(options.runs, options.out, command)
    if options.wandb:
        where = log_to_wandb(comparison, options.out, options.wandb, options.group)
        say(f"W&B          {where}")
    return 0


def log_to_wandb(
    comparison: Comparison, out: str | os.PathLike, project: str, group: str | None, mode: str = "auto"
) -> str:
    """Log what `compare_folders` wrote to W&B; returns its address or, offline, how to upload it."""
    from nfa.wandb_sink import log_comparison

    out = Path(out)
    files = [out / name for name in ("comparison.csv", "similarity.csv", "comparison.html")]
    name = out.resolve().name
    _, where = log_comparison(project, name, group, comparison, files, directory=out, mode=mode)
    return where
