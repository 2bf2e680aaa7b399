"""The Deep RFM in the trainer: the machine of the library, one round of one layer an epoch."""

import pytest
import torch

import nfa
from tests.models.test_rfm_module import digits

SMALL = ("model=deep_rfm", "model.depth=2", "model.width=64")
STEPS = 4  # two layers of two rounds


def test_a_run_is_the_machine_of_the_library(run):
    done = run(*SMALL, "trainer.max_epochs=9")
    assert done.code == 0, done.err
    assert int(done.weights["rounds_done"]) == STEPS  # it ends by itself
    (x, y), (x_val, y_val), (x_test, y_test) = digits()
    machine = nfa.DeepRFM(depth=2, width=64, ridge=1e-3, labels="one_hot").fit(x, y, x_val, y_val)
    losses = [row["val_mse"] for layer in machine.history for row in layer["rounds"]]
    assert [float(row["val/loss"]) for row in done.metrics[:STEPS]] == pytest.approx(losses, rel=1e-3)
    assert float(done.metrics[STEPS - 1]["features/nc1_features"]) == pytest.approx(
        machine.history[1]["nc1_features"], rel=1e-3
    )
    assert [bool(row["features/nc1_features"]) for row in done.metrics[:STEPS]] == [False, True] * 2
    best = losses.index(min(losses))
    position = done.weights["network.position"].tolist()
    assert position == [best // 2, best % 2]
    if best == STEPS - 1:
        right = (machine.predict(x_test) == y_test).double().mean()
        assert done.summary["test/accuracy"] == pytest.approx(float(right))
    measured = {row.layer for row in done.rows if row.status == "ok" and row.epoch == STEPS}
    assert "layer0.feature_map" in measured


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_goes_on_to_the_same_numbers(run, epochs):
    straight = run(*SMALL, f"trainer.max_epochs={STEPS}", folder="straight")
    run(*SMALL, f"trainer.max_epochs={epochs}", folder="parts")
    done = run(*SMALL, f"trainer.max_epochs={STEPS}", "ckpt_path=last", folder="parts")
    assert done.code == 0, done.err
    for name, value in straight.weights.items():
        assert torch.equal(done.weights[name], value), name


def test_regression(run):
    done = run(*SMALL, "data=low_rank", "data.dim=10")
    assert done.code == 0, done.err
    assert {"test/mse", "test/r2"} <= done.summary.keys()


@pytest.mark.parametrize(
    ("option", "message"),
    [("model.depth=0", "depth"), ("model.width=0", "width"), ("model.activation=tanh", "activation")],
)
def test_bad_options(run, option, message):
    done = run("model=deep_rfm", option)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
