"""Sweeps: the comparison at their end, jobs that fail, and sweeps that die and are gone on with."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.waiting import HANGS

ROOT = Path(__file__).parent.parent
JOBS = ("model=mlp,rfm", "seed=0,1", "model.width=8")
SMALL = (
    "trainer.accelerator=cpu", "logger=csv", "data.n_train=200", "data.n_test=100", "trainer.max_epochs=3",
    "callbacks.ansatz.samples=16", "callbacks.ansatz.nulls=2", "data.batch_size=20",
)  # fmt: skip


def sweep(*arguments, folder, **environment):
    """``python train.py -m``, in a process of its own."""
    return subprocess.run(
        [sys.executable, "train.py", "-m", *arguments, f"hydra.sweep.dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )


def jobs(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def weights(job):
    return torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def is_whole(job):
    json.loads((job / "summary.json").read_text())
    names = {path.name for path in job.iterdir()}
    return names >= {"metrics.csv", "ansatz.csv", "report.html", "features.safetensors"} and not any(
        name.endswith(".partial") for name in names
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A sweep killed in the second of its three jobs, then gone on with; and one that never was."""
    base = tmp_path_factory.mktemp("sweeps")
    marker = base / "marker"
    marker.write_text("1")
    stop = f"+callbacks.stop={{_target_: tests.stoppers.KillOnce, step: 12, marker: '{marker}'}}"
    options = (*SMALL, "model=mlp", "seed=0,1,2", "model.width=8", stop)
    died = sweep(*options, folder=base / "a")
    left = {job.name: sorted(path.name for path in job.iterdir()) for job in jobs(base / "a")}
    finished = [job for job in jobs(base / "a") if (job / "summary.json").is_file()]
    stamps = {job.name: (job / "summary.json").stat().st_mtime_ns for job in finished}
    resumed = sweep("ckpt_path=last", folder=base / "a")
    whole = sweep(*options, folder=base / "b")
    return base, died, left, stamps, resumed, whole


def test_a_killed_sweep_leaves_finished_runs_whole(killed):
    base, died, left, _, _, _ = killed
    assert died.returncode == -9
    assert len(left) == 2
    done = [job for job, names in left.items() if "summary.json" in names]
    assert len(done) == 1
    assert all(is_whole(base / "a" / job) for job in done)


def test_it_goes_on_without_redoing_what_is_finished(killed):
    base, _, _, stamps, resumed, whole = killed
    assert resumed.returncode == whole.returncode == 0, resumed.stderr
    assert resumed.stdout.count("finished before") == 1
    for name, stamp in stamps.items():
        assert (base / "a" / name / "summary.json").stat().st_mtime_ns == stamp
    assert len(jobs(base / "a")) == 3
    assert all(is_whole(job) for job in jobs(base / "a"))


def test_it_ends_with_the_weights_of_a_sweep_that_never_died(killed):
    base = killed[0]
    for a, b in zip(jobs(base / "a"), jobs(base / "b"), strict=True):
        mine, theirs = weights(a), weights(b)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_sweep_ends_with_the_comparison(killed):
    base, _, _, _, resumed, _ = killed
    with (base / "a" / "comparison.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert sorted(row["seed"] for row in rows) == ["0", "1", "2"]
    assert {row["label"] for row in rows} == {"mlp"}
    assert "mlp alone: test accuracy" in resumed.stdout
    assert (base / "a" / "similarity.csv").is_file()
    assert "<html" in (base / "a" / "comparison.html").read_text()


def test_a_finished_run_with_other_options_is_not_taken_for_the_job(killed):
    base = killed[0]
    first, *others = jobs(base / "b")
    path = first / "summary.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | {"config": "0" * 16}))
    done = sweep("ckpt_path=last", folder=base / "b")
    assert done.returncode == 1
    assert "holds a run with other options, or of another version" in done.stderr
    assert done.stdout.count("finished before") == len(others) == 2
    assert json.loads(path.read_text())["test/accuracy"] == before["test/accuracy"]


def test_a_job_that_fails_does_not_take_the_others_along(tmp_path):
    done = sweep(*SMALL, "model=mlp", "model.width=8", "model.depth=-1,2,3", folder=tmp_path / "s")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    bad, *good = sorted(jobs(tmp_path / "s"), key=lambda job: (job / "summary.json").exists())
    assert all(is_whole(job) for job in good)
    assert len(good) == 2
    reason = (bad / "failed.txt").read_text()
    assert reason.startswith("model.depth") or "depth" in reason
    assert f"unfinished   {bad}: {reason.splitlines()[0]}" in done.stdout
    command = re.escape(f"python train.py -m ckpt_path=last hydra.sweep.dir={tmp_path / 's'}")
    assert re.search(rf"^go on with   \S*{command}$", done.stdout, re.MULTILINE)
    assert (tmp_path / "s" / "comparison.html").is_file()


def test_runs_of_other_data_are_trained_but_not_compared(tmp_path):
    small = [option for option in SMALL if "n_train" not in option and "n_test" not in option]
    options = ("model=mlp", "model.width=8", "data=digits,low_rank", "callbacks=none", "data.n_train=150")
    kept = [option for option in small if not option.startswith("callbacks")]
    done = sweep(*kept, *options, folder=tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert "not compared:" in done.stdout
    assert not (tmp_path / "s" / "comparison.csv").exists()


def test_jobs_that_differ_in_a_group_have_folders_of_their_own(tmp_path):
    small = [option for option in SMALL if not option.startswith("callbacks")]
    folder = tmp_path / "lr=0.1"
    done = sweep(*small, "model=mlp", "model.width=8", "callbacks=none,default", folder=f"'{folder}'")
    assert done.returncode == 0, done.stderr
    assert len(jobs(folder)) == 2
    assert all((job / "summary.json").is_file() for job in jobs(folder))
    again = sweep("ckpt_path=last", folder=f"'{folder}'")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before") == 2


def test_an_experiment_without_measuring(tmp_path):
    small = [option for option in SMALL if not option.startswith("callbacks")]
    options = ("+experiment=side_by_side", "model=mlp", "callbacks=none")
    done = sweep(*options, *small, folder=tmp_path / "s")
    assert done.returncode == 0, done.stderr


def test_the_command_to_go_on_with_suits_hydra_and_the_shell():
    from lab.command_line.words import typed_override

    assert typed_override("hydra.sweep.dir", Path("runs/a_sweep-1.b")) == "hydra.sweep.dir=runs/a_sweep-1.b"
    odd = typed_override("hydra.sweep.dir", Path("runs/lr=0.1 ü"))
    assert shlex.split(odd) == ["hydra.sweep.dir='runs/lr=0.1 ü'"]


def test_nothing_to_go_on_with(tmp_path):
    done = sweep("ckpt_path=last", folder=tmp_path / "none")
    assert done.returncode == 1
    assert "error: ckpt_path=last found no sweep in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "s").touch()
    done = sweep(*SMALL, *JOBS, folder=tmp_path / "s")
    assert done.returncode == 1
    assert "choose another with hydra.sweep.dir=PATH" in done.stderr
