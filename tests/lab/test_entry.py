"""From the command line to the job: what a process was started with stays, and who knows of the lab."""

import ast
import sys
from pathlib import Path

import pytest

import train

ROOT = Path(__file__).parents[2]


def test_what_last_stands_for_is_told_to_hydra_alone(run, tmp_path, monkeypatch):
    first = run("model=mlp", "model.width=8", "trainer.max_epochs=1", "callbacks=none", folder="runs/a")
    assert first.code == 0, first.err
    typed = ["train.py", "ckpt_path=last", "trainer.max_epochs=2", "callbacks=none"]
    monkeypatch.setattr(sys, "argv", list(typed))
    train.main()
    assert sys.argv == typed
    assert '"epochs": 2' in (tmp_path / "runs" / "a" / "summary.json").read_text()


def imported(path):
    """First names of the modules that a file imports; of the lab, with the room."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (".".join(name.split(".")[: 2 if name.startswith("lab") else 1]) for name in names)


@pytest.mark.parametrize("room", ["nfa", "lab/options", "models", "datamodules", "callbacks"])
def test_how_a_job_runs_is_known_to_the_main_script_alone(room):
    """What an option may be is told to all of them, by ``lab.options``; the library knows nothing of it."""
    known = set() if room == "nfa" else {"lab.options"}
    for path in sorted((ROOT / room).rglob("*.py")):
        found = {name for name in imported(path) if name.startswith(("lab", "train"))}
        assert found <= known, path
