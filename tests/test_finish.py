"""A run that is stopped after its last epoch is finished by ``ckpt_path=last``, to the same files."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callbacks import AnsatzMonitor, LastCheckpoint, RunFolder
from models import KernelMachine
from tests.same_files import ENDS, assert_same_files
from tests.waiting import HANGS

ROOT = Path(__file__).parent.parent
MLP = ("model=mlp", "model.width=8")
RFM = ("model=rfm", "data.n_train=120")
REFIT = (*RFM, "model.refit=true")


class _Killed(BaseException):
    """Ends the program where it is, as a signal would."""


def stop_at(monkeypatch, owner, name):
    """Let a function end the run when it is called."""

    def killed(*args, **options):
        raise _Killed

    monkeypatch.setattr(owner, name, killed)


STAGES = {
    "end of training": (RunFolder, "on_train_end"),
    "last measurement": (AnsatzMonitor, "conclude"),
    "features": ("callbacks.ansatz", "write_features"),
    "weights into the checkpoint": (LastCheckpoint, "conclude"),
    "test": ("pytorch_lightning.Trainer", "test"),
    "metrics": (RunFolder, "finish"),
    "report": ("callbacks.run_folder", "write_html"),
    "summary": ("callbacks.run_folder", "write_summary"),
}


def owner_of(stage):
    owner, name = STAGES[stage]
    if isinstance(owner, str):
        import pytorch_lightning

        owner = pytorch_lightning.Trainer if owner.endswith("Trainer") else sys.modules[owner]
    return owner, name


def finished(run, monkeypatch, options, owner, name):
    """Run once without a stop, and once stopped and gone on with; returns both."""
    whole = run(*options, folder="run_whole")
    assert whole.code == 0, whole.err
    with monkeypatch.context() as patched:
        stop_at(patched, owner, name)
        with pytest.raises(_Killed):
            run(*options, folder="run_stopped")
    left = {path.name for path in (whole.folder.parent / "run_stopped").iterdir()}
    assert "summary.json" not in left
    done = run(*options, "ckpt_path=last", folder="run_stopped")
    assert done.code == 0, done.err
    return whole, done


@pytest.mark.parametrize("stage", STAGES)
def test_a_net_stopped_at_any_stage_is_finished(run, monkeypatch, stage):
    whole, done = finished(run, monkeypatch, MLP, *owner_of(stage))
    assert {path.name for path in done.folder.iterdir()} >= ENDS
    assert_same_files(done.folder, whole.folder)
    assert done.out.count("epoch 1/2") == 1  # in the run that was stopped: nothing is trained again
    assert "alignment" in done.out


@pytest.mark.parametrize("stage", ["end of training", "features", "test", "report"])
@pytest.mark.parametrize(
    "options",
    [
        REFIT,
        pytest.param(RFM, marks=pytest.mark.long),
        pytest.param((*REFIT, "+trainer.max_steps=2", "trainer.max_epochs=5"), marks=pytest.mark.long),
        pytest.param((*RFM, "model.patience=1"), marks=pytest.mark.long),
    ],
    ids=["refit in the last epoch", "best round", "refit after the last epoch", "ended by itself"],
)
def test_a_kernel_machine_stopped_at_any_stage_is_finished(run, monkeypatch, stage, options):
    whole, done = finished(run, monkeypatch, options, *owner_of(stage))
    assert_same_files(done.folder, whole.folder)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(KernelMachine, "_fit_again"), (KernelMachine, "_validation"), (LastCheckpoint, "_save")],
)
def test_a_refit_that_was_stopped_is_done(run, monkeypatch, owner, name):
    """At the end of training with ``max_steps``, else within the last epoch, which is then repeated."""
    options = (*REFIT, "+trainer.max_steps=2", "trainer.max_epochs=5")
    whole = run(*options, folder="run_whole")
    done = None
    with monkeypatch.context() as patched:
        before = getattr(owner, name)
        calls = []

        def second(*args, **kwargs):
            calls.append(1)
            if len(calls) >= (1 if name != "_save" else 3):
                raise _Killed
            return before(*args, **kwargs)

        patched.setattr(owner, name, second)
        with pytest.raises(_Killed):
            run(*options, folder="run_stopped")
    done = run(*options, "ckpt_path=last", folder="run_stopped")
    assert done.code == 0, done.err
    assert_same_files(done.folder, whole.folder)


@pytest.mark.parametrize("lost", ["summary.json", "report.html", "features.safetensors", "ansatz.csv"])
def test_a_file_that_is_missing_is_written_anew_and_alone(run, lost):
    first = run(*MLP, folder="a")
    before = (first.folder / lost).read_bytes()
    (first.folder / lost).unlink()
    done = run("ckpt_path=last", folder="a", small=False)
    assert done.code == 0, done.err
    if lost not in ("summary.json", "report.html"):  # these tell seconds
        assert (first.folder / lost).read_bytes() == before
    again = run("ckpt_path=last", folder="a", small=False)
    assert again.code == 1
    assert "is complete (2 epochs): raise trainer.max_epochs to train it further" in again.err


def test_a_run_that_ended_by_itself_is_complete_too(run):
    options = (*RFM, "model.patience=1", "trainer.max_epochs=9")
    first = run(*options, folder="a")
    assert first.summary["epochs"] < 9
    again = run(*options, "ckpt_path=last", folder="a")
    assert again.code == 1
    assert "raise trainer.max_epochs to train it further" in again.err
    assert run(*options, "ckpt_path=last", "trainer.max_epochs=10", folder="a").code == 0


def test_a_finished_run_is_trained_further_as_one_that_was_not_finished(run):
    """The refit that is tested is no start for more rounds."""
    options = (*REFIT, "+trainer.max_steps=2", "trainer.max_epochs=9")
    assert run(*options, folder="a").code == 0
    done = run(*options, "ckpt_path=last", "trainer.max_steps=4", folder="a")
    assert done.code == 0, done.err
    whole = run(*REFIT, "+trainer.max_steps=4", "trainer.max_epochs=9", folder="b")
    assert (done.folder / "ansatz.csv").read_text().splitlines()[-1] == (
        (whole.folder / "ansatz.csv").read_text().splitlines()[-1]
    )
    assert done.summary["weights"] == whole.summary["weights"]


def test_finishing_into_another_folder(run):
    first = run(*MLP, folder="a")
    (first.folder / "report.html").unlink()
    done = run(*MLP, "ckpt_path=a/checkpoints/last.ckpt", folder="b")
    assert done.code == 0, done.err
    assert done.summary["weights"] == first.summary["weights"]
    assert {path.name for path in done.folder.iterdir()} >= ENDS


def test_without_a_test_there_are_table_and_report(run, capsys):
    done = run(*MLP, "+trainer.limit_test_batches=0", folder="a")
    assert done.code == 0, done.err
    assert "alignment" in done.out
    assert "report.html" in done.out
    assert {path.name for path in done.folder.iterdir()} >= ENDS
    assert not any(name.startswith("test/") for name in done.summary)
    assert run(*MLP, "model.depth=2", folder="b").code == 0
    from nfa.command.cli import main

    with pytest.raises(SystemExit):
        main(["compare", "a", "b", "--out", "c"])
    assert "a was not tested: its summary.json has no test accuracy or error" in capsys.readouterr().err


def test_a_new_run_in_a_used_folder_takes_the_old_ending_away(run, monkeypatch):
    assert run(*MLP, folder="a").code == 0
    with monkeypatch.context() as patched:
        stop_at(patched, RunFolder, "on_train_epoch_end")
        with pytest.raises(_Killed):
            run(*MLP, "callbacks=none", "model.depth=2", folder="a")
    left = {path.name for path in Path("a").iterdir()}
    assert not left & {"summary.json", "report.html", "features.safetensors", "metrics.csv", "ansatz.csv"}


def test_a_mistake_leaves_a_finished_run_alone(run):
    first = run(*MLP, folder="a")
    assert run(*MLP, "callbacks.ansatz.layers=nothing", folder="a").code == 1
    assert run("model=rfm", "trainer.precision=16-mixed", folder="a").code == 1
    assert {path.name for path in first.folder.iterdir()} >= ENDS
    assert first.summary["model"] == "mlp"


def test_a_job_of_a_sweep_without_its_report_is_not_finished(run, tmp_path):
    options = ("-m", *MLP, "seed=0,1", "hydra.sweep.dir=s")
    assert run(*options).code == 0
    first, second = (path.parent for path in sorted(tmp_path.glob("s/*/summary.json")))
    (first / "report.html").unlink()
    done = run("-m", "ckpt_path=last", "hydra.sweep.dir=s", small=False)
    assert done.code == 0, done.err
    assert done.out.count("finished before") == 1
    assert f"finished before: {second.relative_to(tmp_path)}" in done.out
    assert (first / "report.html").is_file()
    assert "epoch 1/2" not in done.out


@pytest.mark.parametrize("model", ["mlp", "rfm"])
def test_a_run_of_version_0_1_is_finished(run, tmp_path, model):
    shutil.copytree(ROOT / "tests" / "fixtures" / "v0.1" / "runs" / model, tmp_path / "a")
    before = json.loads((tmp_path / "a" / "summary.json").read_text())
    rows = (tmp_path / "a" / "ansatz.csv").read_text()
    (tmp_path / "a" / "summary.json").unlink()
    done = run("ckpt_path=last", folder="a", small=False)
    assert done.code == 0, done.err
    assert done.summary["test/accuracy"] == pytest.approx(before["test/accuracy"])
    assert len((done.folder / "ansatz.csv").read_text().splitlines()) == len(rows.splitlines())


# ---- killed ------------------------------------------------------------------------------------------------


def start(*arguments, folder):
    return subprocess.Popen(
        [sys.executable, "train.py", *arguments, f"hydra.run.dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


KILLED = {
    "mlp": ("model=mlp", "model.width=8"),
    "cnn": ("model=cnn", "model.width=4"),
    "rfm": ("model=rfm", "model.refit=true"),
    "deep_rfm": ("model=deep_rfm", "model.width=16"),
}


@pytest.mark.long
@pytest.mark.parametrize("model", KILLED)
def test_five_kills_after_the_last_epoch(tmp_path, model):
    """At moments drawn over what follows the last epoch; a kill in its middle may come several times."""
    options = (
        *KILLED[model], "logger=csv", "data.n_train=120", "data.n_test=60", "trainer.max_epochs=2",
        "callbacks.ansatz.samples=16", "callbacks.ansatz.nulls=2",
    )  # fmt: skip
    whole = tmp_path / "run_whole"
    process = start(*options, folder=whole)
    _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 0, errors
    last, end = ((whole / name).stat().st_mtime for name in ("metrics.csv", "summary.json"))
    draw = random.Random(model)
    for index in range(5):
        folder = tmp_path / f"run_killed_{index}"
        process = start(*options, folder=folder)
        wait_for_last_epoch(process, folder)
        time.sleep(draw.random() * max(end - last, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=HANGS)
        process = start(*options, "ckpt_path=last", folder=folder)
        _, errors = process.communicate(timeout=HANGS)
        if process.returncode:  # the kill came too late
            assert "is complete" in errors
        assert_same_files(folder, whole)


def wait_for_last_epoch(process, folder):
    """Until the checkpoint of the last epoch is there; however long that takes."""
    import torch

    path = folder / "checkpoints" / "last.ckpt"
    while process.poll() is None:
        if path.is_file():
            saved = torch.load(path, weights_only=True)
            if saved["callbacks"]["LastCheckpoint"]["ended"]:
                return
        time.sleep(0.02)
