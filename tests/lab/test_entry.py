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
    """First names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("room", ["nfa", "options", "models", "datamodules", "callbacks"])
def test_the_lab_is_imported_by_the_main_script_alone(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        assert not {"lab", "train"} & set(imported(path)), path
