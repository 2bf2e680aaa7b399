"""Placement on another device, in processes that have one: all machines, all kinds of networks, and all runs.

It needs what torch has of devices written in Python; a version without it is skipped.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

from tests.waiting import HANGS

ROOT = Path(__file__).parents[2]
SUITES = {
    "machines": ("tests/nfa/machines/test_conformance.py",),
    "networks": ("tests/elsewhere/audits.py", "tests/elsewhere/oracles.py", "tests/elsewhere/runs.py"),
    "estimators": ("tests/nfa/sklearn/test_tensors.py",),
    "card": ("tests/gpu",),
}


@pytest.mark.long
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices written in Python",
)
@pytest.mark.parametrize("name", SUITES)
def test_on_another_device(name):
    plugins = ("-p", "tests.elsewhere.plugin", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-q", "-n", "0", *SUITES[name]],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
