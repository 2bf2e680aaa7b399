"""A card is asked for where none is: one sentence, from each way in."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import nfa
from benchmarks.gpu.__main__ import main as benchmark
from nfa.command.cli import main
from tests.gpu.device import CARD

pytestmark = pytest.mark.skipif(CARD, reason="a CUDA device is seen")
ROOT = Path(__file__).parents[2]
SENTENCE = "there is no device cuda: 0 GPUs are seen; use 'cpu'"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: nfa.audit(nn.Linear(3, 2), torch.randn(4, 3), device="cuda"),
        lambda: nfa.agop(nn.Linear(3, 2), torch.randn(4, 3), device="cuda"),
        lambda: nfa.RFM(device="cuda"),
        lambda: nfa.DeepConvRFM(device="cuda"),
    ],
    ids=["audit", "agop", "RFM", "DeepConvRFM"],
)
def test_library(ask):
    with pytest.raises(nfa.NfaError, match=SENTENCE):
        ask()


def test_command_line(tmp_path, capsys):
    spec = ["audit", "timm:test_vit", "--data", "digits", "--out", str(tmp_path), "--device", "cuda"]
    with pytest.raises(SystemExit, match="2"):
        main(spec)
    said = capsys.readouterr().err.strip()
    assert said == f"error: --device cuda cannot be used ({SENTENCE})"


def test_benchmark(capsys):
    assert benchmark(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.strip() == SENTENCE


@pytest.mark.long
def test_lab(tmp_path):
    command = [sys.executable, "train.py", "trainer=gpu", "logger=csv", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert "GPU" in lines[0].upper() or "cuda" in lines[0]
