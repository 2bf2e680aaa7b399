"""What is typed: paths with characters of Hydra's grammar, sweeps, Ctrl-C, terminals that are not UTF-8."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.command_line.prepare import prepare
from lab.command_line.words import quoted, value_of
from tests.waiting import HANGS

ROOT = Path(__file__).parent.parent
MLP = ("model=mlp", "model.width=8", "trainer.max_epochs=2")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("ckpt_path=epoch=1-step=6.ckpt", "ckpt_path='epoch=1-step=6.ckpt'"),
        ("+ckpt_path=../a=b/x.ckpt", "+ckpt_path='../a=b/x.ckpt'"),
        ("hydra.run.dir=runs/lr=0.1", "hydra.run.dir='runs/lr=0.1'"),
        ("hydra.run.dir=runs/a(1)", "hydra.run.dir='runs/a(1)'"),
        ("ckpt_path=it's=1.ckpt", r"ckpt_path='it\'s=1.ckpt'"),
        ("ckpt_path='epoch=1.ckpt'", "ckpt_path='epoch=1.ckpt'"),
        ("ckpt_path=runs/a/last.ckpt", "ckpt_path=runs/a/last.ckpt"),
        ("hydra.run.dir=runs/${now:%H}", "hydra.run.dir=runs/${now:%H}"),
        ("data.root=a,b", "data.root=a,b"),
        ("model.width=[1", "model.width=[1"),
    ],
)
def test_paths_are_quoted_where_hydra_needs_it(tmp_path, monkeypatch, override, expected):
    monkeypatch.chdir(tmp_path)
    assert prepare([override]) == [expected]


@pytest.mark.parametrize("text", ["plain", "it's", "back\\slash", "end\\", "a=b", "ü {1}"])
def test_quoting_is_undone_by_hydra(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"x={quoted(text)}").value()
    assert parsed == text
    assert value_of([f"x={quoted('it=1')}"], "x") == "it=1"


@pytest.mark.parametrize("where", ["epoch=1-step=6.ckpt", "sub=1/epoch=1-step=6.ckpt"])
def test_a_checkpoint_whose_name_has_an_equals_sign(run, where):
    first = run(*MLP, folder="a")
    Path(where).parent.mkdir(exist_ok=True)
    (first.folder / "checkpoints" / "last.ckpt").rename(where)
    done = run(*MLP, f"ckpt_path={where}", "trainer.max_epochs=3", folder="b=1")
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 3
    again = run("ckpt_path=last", "trainer.max_epochs=4", folder="b=1", small=False)
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    "experiment",
    [
        *("side_by_side", "low_rank", "cnfa_dynamics", "local_signal", "grokking", "parity", "symmetry"),
        *("orbit", "catapults", "quadratic_model", "deep_linear", "fact"),
    ],
)
def test_an_experiment_that_is_a_sweep_says_so(run, experiment):
    done = run(f"+experiment={experiment}", small=False)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1
    assert re.search(r"this is a sweep over .*model=.*: add -m", done.err)


def test_one_job_of_such_an_experiment(run):
    done = run("+experiment=side_by_side", *MLP)
    assert done.code == 0, done.err


# ---- Ctrl-C ------------------------------------------------------------------------------------------------


def interrupted_at_once(command, marker, tmp_path, **environment):
    """Send SIGINT as soon as the process has begun to import ``marker``."""
    begun = tmp_path / "begun"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, pathlib, time\n"
        "class Tell:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {marker!r}:\n"
        f"            pathlib.Path({str(begun)!r}).touch()\n"
        "            for _ in range(3000): time.sleep(0.01)\n"
        "sys.meta_path.insert(0, Tell())\n"
    )
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), **environment},
    )  # fmt: skip
    while not begun.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANGS)
    return process.returncode, out, err


@pytest.mark.parametrize("marker", ["hydra", "torch", "pytorch_lightning", "torchmetrics"])
def test_ctrl_c_while_train_imports(tmp_path, marker):
    command = [sys.executable, "train.py", *MLP, "logger=csv", f"hydra.run.dir={tmp_path}/run"]
    code, _, err = interrupted_at_once(command, marker, tmp_path)
    assert (code, err) == (130, "\ninterrupted\n")


# ---- terminals ---------------------------------------------------------------------------------------------


def test_a_terminal_that_is_not_utf8_gets_all_files_and_a_table(tmp_path):
    done = subprocess.run(
        [sys.executable, "train.py", *MLP, "logger=csv", "data.n_train=100", "data.n_test=50",
         "callbacks.ansatz.samples=16", "callbacks.ansatz.nulls=2", f"hydra.run.dir={tmp_path}/ünder"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=HANGS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"alignment" in done.stdout
    assert b"?nder" in done.stdout
    assert (tmp_path / "ünder" / "summary.json").is_file()
