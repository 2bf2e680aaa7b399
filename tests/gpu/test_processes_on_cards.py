"""One process of a group: sums over ranks, by gloo on a CPU and by nccl on a card, and the lab's DDP."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

import nfa
from tests.elsewhere.audits import made
from tests.gpu.device import card
from tests.gpu.test_audits import assert_same

ROOT = Path(__file__).parents[2]
GROUPS = [("gloo", "cpu"), pytest.param(("nccl", "cuda"), marks=card)]


@pytest.fixture
def group(tmp_path, request):
    """A process group of this process alone; gives its device."""
    backend, place = request.param
    options = {"device_id": torch.device("cuda", 0)} if place == "cuda" else {}
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group(backend, store=store, rank=0, world_size=1, **options)
    yield place
    distributed.destroy_process_group()


@pytest.mark.parametrize("group", GROUPS, indirect=True)
@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_an_audit_of_all_ranks(group, name):
    net, x = made(name)
    net, x = net.to(group), x.to(group)
    alone = nfa.audit(net, [x[:6], x[6:]], nulls=4)
    assert_same(nfa.audit(net, [x[:6], x[6:]], nulls=4, distributed=True), alone, 1e-12)


@card
@pytest.mark.long
@pytest.mark.parametrize("model", ["resnet", "rfm"])
def test_training_by_ddp(tmp_path, model):
    pytest.importorskip("hydra")
    pytest.importorskip("pytorch_lightning")
    command = [
        sys.executable, "train.py", f"model={model}", "trainer=ddp", "trainer.accelerator=gpu",
        "trainer.devices=1", "logger=csv", f"hydra.run.dir={tmp_path}", "data=digits", "data.n_train=300",
        "data.n_test=100", "trainer.max_epochs=2", "callbacks.ansatz.samples=24", "callbacks.ansatz.nulls=4",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "ansatz.csv").read_text().splitlines()) > 1
