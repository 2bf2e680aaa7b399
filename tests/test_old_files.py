"""What version 0.1 wrote is read to the same predictions (tests/fixtures/make.py tells how it was made)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import models
import nfa
from nfa.ansatz.row import read_csv
from nfa.command.compare_command import compare_folders
from nfa.zoo import load

OLD = Path(__file__).parent / "fixtures" / "v0.1"
RUNS = sorted(folder.name for folder in (OLD / "runs").iterdir())
MACHINES = {
    "rfm": nfa.RFM,
    "rfm_classes": nfa.RFM,
    "deep_rfm": nfa.DeepRFM,
    "conv_rfm": nfa.ConvRFM,
    "deep_conv_rfm": nfa.DeepConvRFM,
}
MODULES = {
    "rfm": models.RFM,
    "deep_rfm": models.DeepRFM,
    "conv_rfm": models.ConvRFM,
    "deep_conv_rfm": models.DeepConvRFM,
}
EXPECTED = load_file(OLD / "expected.safetensors")


def points(name):
    return EXPECTED["images"] if "conv" in name else torch.randn(40, 5, generator=seeded())[:10]


def seeded():
    return torch.Generator().manual_seed(0)


def close(found, name):
    torch.testing.assert_close(found, EXPECTED[name], rtol=1e-4, atol=1e-5)


def test_there_is_a_run_of_every_model():
    assert len(RUNS) == 8
    assert set(MODULES) < set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_networks_of_runs(name):
    with torch.no_grad():
        close(load(f"file:{OLD / 'runs' / name}").model(EXPECTED["images"]), f"runs/{name}")


@pytest.mark.parametrize("name", RUNS)
def test_lightning_modules_of_checkpoints(name):
    path = OLD / "runs" / name / "checkpoints" / "last.ckpt"
    module = MODULES.get(name, models.NeuralModule).load_from_checkpoint(path, map_location="cpu").eval()
    with torch.no_grad():
        close(module(EXPECTED["images"]), f"runs/{name}")


@pytest.mark.parametrize("name", MACHINES)
def test_saved_machines(name):
    machine = MACHINES[name].load(OLD / f"{name}.safetensors")
    close(machine.predict(points(name)), name)
    assert machine._options()["offset"] == "none"


@pytest.mark.parametrize("name", MODULES)
def test_modules_that_are_trained_further_keep_the_mean_of_their_targets(name):
    path = OLD / "runs" / name / "checkpoints" / "last.ckpt"
    module = MODULES[name].load_from_checkpoint(path, map_location="cpu")
    assert {layer.offset for layer in module.stack} == {"none"}


def test_an_audit():
    rows = json.loads((OLD / "audit" / "audit.json").read_text())["rows"]
    written = read_csv(OLD / "audit" / "audit.csv")
    assert [row["layer"] for row in rows] == [row.layer for row in written]
    assert [row["cosine"] for row in rows] == pytest.approx([row.cosine for row in written], rel=1e-4)


def test_runs_are_compared(tmp_path):
    compare_folders([OLD / "runs"], tmp_path)
    table = (tmp_path / "comparison.csv").read_text()
    assert all(f"{name}" in table for name in RUNS)


@pytest.mark.parametrize("name", ["mlp", "rfm"])
def test_runs_are_gone_on_with(run, tmp_path, name):
    shutil.copytree(OLD / "runs" / name, tmp_path / "run")
    options = (OLD / "runs" / name / ".hydra" / "overrides.yaml").read_text().splitlines()
    given = [option.removeprefix("- ") for option in options if "max_epochs" not in option]
    result = run(
        *given, "trainer.max_epochs=3", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", small=False
    )
    assert result.code == 0, result.err
    assert [row["epoch"] for row in result.metrics] == ["1", "2", "3", "3"]
