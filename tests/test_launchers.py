"""Sweeps whose jobs are shared out: joblib, submitit, distributed training, the sample for Slurm."""

import json
import subprocess
import sys

import pytest

from tests.test_sweep import ROOT, is_whole, jobs, sweep
from tests.waiting import HANGS

PAIR = (
    "model=mlp,rfm", "trainer.accelerator=cpu", "logger=csv", "data.n_train=120", "data.n_test=60",
    "trainer.max_epochs=2", "callbacks.ansatz.samples=16", "callbacks.ansatz.nulls=2",
)  # fmt: skip


def summaries(folder):
    return {
        found["model"]: found
        for found in (json.loads((job / "summary.json").read_text()) for job in jobs(folder) if is_whole(job))
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The sweep in one process."""
    folder = tmp_path_factory.mktemp("plain") / "sweep"
    done = sweep(*PAIR, folder=folder)
    assert done.returncode == 0, done.stderr
    return summaries(folder)


@pytest.mark.parametrize(
    "options",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=600"),
        ("trainer=ddp",),  # two processes for the net, and two for the kernel machine
    ],
    ids=["joblib", "submitit", "ddp"],
)
def test_launched_jobs_give_the_numbers_of_one_process(plain, tmp_path, options):
    done = sweep(*PAIR, *options, folder=tmp_path / "s")
    assert done.returncode == 0, done.stderr
    found = summaries(tmp_path / "s")
    assert found.keys() == plain.keys() == {"mlp", "rfm"}
    assert found["rfm"]["test/accuracy"] == plain["rfm"]["test/accuracy"]
    assert found["rfm"]["test/loss"] == pytest.approx(plain["rfm"]["test/loss"], rel=1e-4)
    if "trainer=ddp" not in options:  # where each step of a net takes two batches at once
        assert found["mlp"]["test/loss"] == plain["mlp"]["test/loss"]
    assert (tmp_path / "s" / "comparison.html").is_file()
    assert len(jobs(tmp_path / "s")) == 2
    assert done.stdout.count("comparison   ") == 1


def test_sample_for_slurm_names_what_a_cluster_asks_for():
    shown = subprocess.run(
        [sys.executable, "train.py", "hydra/launcher=slurm", "--cfg", "hydra", "--package", "hydra.launcher"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=HANGS,
    ).stdout  # fmt: skip
    assert "SlurmLauncher" in shown
    for line in ("partition: gpu", "timeout_min: 240", "gres: gpu:1", "array_parallelism: 8"):
        assert line in shown
