"""Suites of the library that know of devices, and the lab, on a card, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nfa.ansatz.row import read_csv
from tests.gpu.device import card
from tests.waiting import HANGS

pytestmark = [card, pytest.mark.long]
ROOT = Path(__file__).parents[2]


def test_machines():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-n", "0", "tests/nfa/machines"],
        cwd=ROOT,
        env={**os.environ, "NFA_TEST_DEVICE": "cuda"},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("model", ["cnn", "rfm"])
def test_the_lab_measures_what_it_does_on_a_cpu(tmp_path, model):
    pytest.importorskip("hydra")
    pytest.importorskip("pytorch_lightning")
    found = []
    for trainer in ("cpu", "gpu"):
        command = [
            sys.executable, "train.py", f"model={model}", f"trainer={trainer}", "logger=csv",
            f"hydra.run.dir={tmp_path / trainer}", "data=digits", "data.n_train=300", "data.n_test=100",
            "trainer.max_epochs=1", "callbacks.ansatz.samples=24", "callbacks.ansatz.nulls=4",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(read_csv(tmp_path / trainer / "ansatz.csv"))
    here, there = found
    assert [(row.epoch, row.layer, row.status) for row in there] == [
        (row.epoch, row.layer, row.status) for row in here
    ]
    for mine, theirs in zip(there, here, strict=True):
        if theirs.cosine is not None and theirs.epoch == 0:  # later, rounding has gone through training
            assert mine.cosine == pytest.approx(theirs.cosine, abs=1e-3, nan_ok=True)
