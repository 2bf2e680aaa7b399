"""In the trainer: regression without the level of the targets, and rounds that learn nothing or do harm."""

import pytest
import torch

from datamodules.splits import Split
from datamodules.synthetic import LowRank
from nfa.kernels import Metric
from nfa.machines.patches import metric_of
from nfa.machines.update import Agop

SMALL = (
    "data=low_rank", "data.dim=16", "data.n=100", "data.n_test=40", "data.val_fraction=0", "callbacks=none",
    "logger=csv", "trainer.accelerator=cpu", "trainer.max_epochs=2",
)  # fmt: skip
MODELS = {
    "rfm": ("model.bandwidth=3.0",),
    "deep_rfm": ("model.depth=1", "model.width=16"),
    "conv_rfm": ("model.patch_size=2", "model.depth=1"),
    "deep_conv_rfm": ("model.patch_size=2", "model.depth=1", "model.width=4"),
}


def changed(monkeypatch, model, level=0.0, scale=1.0):
    original = LowRank.load

    def load(self):
        shape = (-1, 1, 4, 4) if "conv" in model else (-1, 16)
        return tuple(Split(s.x.reshape(shape) * scale, s.y + 3 * s.x[:, :1] + level) for s in original(self))

    monkeypatch.setattr(LowRank, "load", load)


@pytest.mark.parametrize("model", MODELS)
def test_r2_of_a_target_at_ten_thousand(run, monkeypatch, model):
    found = []
    for level in (0.0, 1e4):
        with monkeypatch.context() as patch:
            changed(patch, model, level)
            done = run(f"model={model}", *SMALL, *MODELS[model], folder=f"run{level}", small=False)
        assert done.code == 0, done.err
        found.append(done.summary["test/r2"])
    assert found[1] == pytest.approx(found[0], abs=1e-3)
    part = "radial" if model in ("rfm", "deep_rfm") else "sum"
    assert float(done.weights[f"network.{part}.intercept"]) == pytest.approx(1e4, abs=1)


def test_the_published_recursion_has_no_intercept(run, monkeypatch):
    changed(monkeypatch, "rfm", 1e4)
    done = run("model=rfm", "model.offset=none", *SMALL, small=False)
    assert done.code == 0, done.err
    assert float(done.weights["network.radial.intercept"]) == 0
    assert done.summary["test/r2"] < -1


@pytest.mark.parametrize("model", ["rfm", "deep_rfm"])
def test_points_out_of_sight_of_each_other(run, monkeypatch, model):
    changed(monkeypatch, model, scale=1e6)
    options = ("model.unit_norm=false", "model.depth=1") if model == "deep_rfm" else ()
    with pytest.warns(UserWarning, match="failed .the AGOP is zero"):
        done = run(f"model={model}", *options, *SMALL, "trainer.max_epochs=4", small=False)
    assert done.code == 0, done.err
    name = "feature_map" if model == "rfm" else "layer0.feature_map"
    assert torch.equal(done.weights[f"network.{name}.weight"], torch.eye(16))


@pytest.mark.parametrize("model", MODELS)
def test_a_round_that_does_harm_is_not_kept(run, monkeypatch, model):
    changed(monkeypatch, model)
    blind = torch.zeros(16, 16)
    blind[15, 15] = 1.0
    T = torch.zeros(4, 4)
    T[3, 3] = 1e-3
    learned = metric_of(T) if "conv" in model else Metric.factored(blind)
    monkeypatch.setattr(Agop, "__call__", lambda *_: (learned, {}))
    with pytest.warns(UserWarning, match="failed .the training error rose"):
        done = run(f"model={model}", *SMALL, *MODELS[model], small=False)
    assert done.code == 0, done.err
    name = "layer0.feature_map" if model.startswith("deep") else "feature_map"
    weight = done.weights[f"network.{name}.weight"].flatten(1)
    assert torch.equal(weight, torch.eye(len(weight)))
