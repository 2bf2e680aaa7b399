"""Two CPU processes measure what one process measures on the same data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nfa.ansatz.row import read_csv
from tests.same_files import assert_same_files
from tests.waiting import HANGS, meeting_place

ROOT = Path(__file__).parent.parent
COMMON = (
    "model=mlp", "model.width=24", "logger=csv", "data.n_train=300", "data.n_test=100",
    "data.val_fraction=0.2", "trainer.max_epochs=2", "callbacks.ansatz.samples=51",
    "training.momentum=0", "seed=0",
)  # fmt: skip


def start(*overrides, folder):
    return subprocess.run(
        [sys.executable, "train.py", *overrides, f"hydra.run.dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **meeting_place()},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )


def train(folder, *overrides):
    done = start(*COMMON, *overrides, folder=folder)
    assert done.returncode == 0, done.stderr
    return read_csv(folder / "ansatz.csv"), done


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("ddp")
    one, _ = train(base / "one", "data.batch_size=40")
    two, done = train(base / "two", "trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=20")
    return base, one, two, done


def test_two_processes_report_what_one_does(runs):
    _, one, two, _ = runs
    assert [(row.epoch, row.layer) for row in two] == [(row.epoch, row.layer) for row in one]
    for a, b in zip(one, two, strict=True):
        for column in ("alignment", "cosine", "pearson", "offdiag", "null_mean", "alpha_fit"):
            assert getattr(b, column) == pytest.approx(getattr(a, column), rel=1e-5, abs=1e-8, nan_ok=True)


def test_one_run_folder_and_one_table(runs):
    base, _, _, done = runs
    assert {p.name for p in (base / "two").iterdir()} >= {
        "ansatz.csv",
        "metrics.csv",
        "summary.json",
        "report.html",
    }
    assert done.stdout.count("alignment     z") == 1


@pytest.mark.long
@pytest.mark.parametrize("model", [("model=mlp", "model.width=24"), ("model=rfm", "model.refit=true")])
def test_two_processes_finish_what_was_stopped_after_the_last_epoch(tmp_path, model):
    options = ("trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=20", *model)
    common = [option for option in COMMON if not option.startswith(("model", "training"))]
    folder, before = tmp_path / "run" / "a", tmp_path / "before" / "a"
    first = start(*common, *options, folder=folder)
    assert first.returncode == 0, first.stderr
    shutil.copytree(folder, before)
    (folder / "summary.json").unlink()
    done = start(*common, *options, "ckpt_path=last", folder=folder)
    assert done.returncode == 0, done.stderr
    assert_same_files(folder, before)
