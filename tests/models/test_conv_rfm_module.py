"""The ConvRFM in the trainer: the machine of the library, resumed, measured; what are no images refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datamodules import Digits
from nfa.ansatz.row import read_csv
from nfa.command import cli
from nfa.machines.conv_rfm import ConvRFM
from tests.waiting import HANGS, meeting_place

SMALL = ("model=conv_rfm", "model.depth=2", "data.n_train=120", "data.n_test=60")


def images(batches):
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def digits():
    data = Digits(n_train=120, n_test=60)
    data.setup()
    return [images(b) for b in (data._batches("train", 1000), data.val_dataloader(), data.test_dataloader())]


def test_a_run_is_the_machine_of_the_library(run):
    done = run(*SMALL, "trainer.max_epochs=3")
    assert done.code == 0, done.err
    (x, y), (x_val, y_val), (x_test, y_test) = digits()
    machine = ConvRFM(depth=2, rounds=2).fit(x, y, x_val, y_val)
    losses = [row["val_mse"] for row in machine.history]
    assert [float(row["val/loss"]) for row in done.metrics[:3]] == pytest.approx(losses, rel=1e-3)
    assert int(done.weights["best_round"]) == machine.best_round
    right = (machine.predict(x_test) == y_test).double().mean()
    assert done.summary["test/accuracy"] == pytest.approx(float(right), abs=0.02)
    assert {row.layer for row in done.rows} == {"feature_map"}
    assert done.rows[-1].kind == "conv2d"
    assert done.rows[-1].status == "ok"
    weight = done.weights["network.feature_map.weight"].flatten(1)
    M = weight.T @ weight
    assert float((M - machine.M).norm() / machine.M.norm()) < 1e-3


def test_a_run_goes_on_to_the_same_numbers(run):
    straight = run(*SMALL, "trainer.max_epochs=3", folder="straight")
    run(*SMALL, "trainer.max_epochs=1", folder="parts")
    done = run(*SMALL, "trainer.max_epochs=3", "ckpt_path=last", folder="parts")
    assert done.code == 0, done.err
    for name, value in straight.weights.items():
        assert torch.allclose(done.weights[name], value, rtol=1e-6, atol=1e-7), name


def test_a_run_is_audited_from_its_checkpoint(run):
    done = run(*SMALL, "trainer.max_epochs=2")
    out = done.folder / "audit"
    options = ["--data", "digits", "--max-samples", "24", "--exact", "--out", str(out)]
    assert cli.main(["audit", f"file:{done.folder}", *options]) == 0
    (row,) = read_csv(out / "audit.csv")
    assert (row.layer, row.kind, row.status) == ("feature_map", "conv2d", "ok")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("data=low_rank",), "needs images"),
        (("model.patch_size=9",), "smaller"),
        (("model.depth=0",), "depth"),
        (("model.agop_images=0",), "agop_images"),
        (("model.padding=circular",), "padding"),
    ],
)
def test_one_sentence_for_what_does_not_fit(run, options, message):
    done = run("model=conv_rfm", *options)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("model", ["conv_rfm", "deep_conv_rfm"])
def test_two_processes_fit_what_one_fits(tmp_path, model):
    small = ("model.depth=2", "data.n_train=61", "data.n_test=40", "trainer.max_epochs=2")
    weights = []
    for name, options in (("one", ()), ("two", ("trainer=ddp", "trainer.accelerator=cpu"))):
        done = subprocess.run(
            [
                sys.executable, "train.py", f"model={model}", *small, "callbacks=none", "logger=csv",
                f"hydra.run.dir={tmp_path / name}", *options,
            ],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", **meeting_place()},
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        weights.append(torch.load(path, weights_only=True)["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        if value.is_floating_point() and value.numel():
            assert float((weights[1][name] - value).norm()) <= 1e-3 * float(value.norm()), name
