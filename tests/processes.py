"""Processes that meet in a group of `torch.distributed`, and run the same code."""

import os
import subprocess
import sys
import textwrap

from tests.waiting import HANGS

HEAD = """
import sys, torch
from torch import distributed
rank, world, meeting, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
import nfa
"""


def start(world, folder, code):
    """So many processes that run ``code``; it knows ``rank``, ``world`` and ``out``, a path for results."""
    script = folder / "work.py"
    script.write_text(HEAD + textwrap.dedent(code))
    arguments = [str(world), str(folder / "meeting"), str(folder / "found")]
    return [
        subprocess.Popen(
            [sys.executable, script, str(rank), *arguments],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        for rank in range(world)
    ]  # fmt: skip


def run(world, folder, code):
    """What each of them wrote to its error stream, once all have ended well."""
    told = []
    for process in start(world, folder, code):
        told.append(process.communicate(timeout=HANGS)[1])
        assert process.returncode == 0, told[-1]
    return told
