"""What the tests of malformed files share: a network, good inputs, and what must come of a bad file."""

import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nfa.ansatz.row import read_csv
from nfa.command.cli import main

RUNS = Path(__file__).parents[1] / "fixtures" / "v0.1" / "runs"
QUICK = ("--exact", "--max-samples", "4", "--nulls", "2", "--pictures", "0")
X = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))

NET = """
from torch import nn

def build():
    first = (nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU())
    return nn.Sequential(*first, nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "malformed_net.py").write_text(NET)
    save_file({"x": X}, tmp_path / "x.safetensors")
    save_file({"x": IMAGES}, tmp_path / "images.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("malformed_net", None)


def check(capsys, *arguments):
    """Run an audit: it is refused in a line, returned, and leaves nothing; or it ends with a table."""
    try:
        status = main(["audit", *arguments, "--out", "out"])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if status == 0:
        rows = read_csv("out/audit.csv")
        assert rows
        assert all(row.skipped or math.isfinite(row.cosine) or row.verdict == "undefined" for row in rows)
        return None
    errors = [line for line in error.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(errors) == 1, error
    assert len(errors[0]) < 2200
    assert error.splitlines()[-1] == errors[0]
    assert errors[0].isprintable()
    assert not Path("out").exists()
    return errors[0]


def weights(path):
    return ("malformed_net:build", "--weights", str(path), "--data", "x.safetensors", *QUICK)


def checkpoint(path):
    return (f"file:{path}", "--data", "images.safetensors", *QUICK)


def data(path, *options):
    return ("malformed_net:build", "--data", str(path), *QUICK, *options)
