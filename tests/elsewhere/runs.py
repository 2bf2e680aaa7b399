"""Runs of ``train.py`` elsewhere, their monitor and their comparison: the numbers of the CPU."""

import pytest
import torch

import nfa
from nfa.compare import compare
from nfa.zoo.load import load
from tests.elsewhere.accelerator import STRATEGY
from tests.elsewhere.device import NAME

SMALL = (
    "data.n_train=40", "data.n_test=20", "data.batch_size=20", "data.val_fraction=0.2", "logger=csv",
    "callbacks.ansatz.samples=10", "callbacks.ansatz.nulls=2", "callbacks.ansatz.pictures=1",
)  # fmt: skip
PATCHES = ("model.patch_size=3", "model.depth=1")
MODELS = {
    "cnn": ("model.width=2",),
    "resnet": ("model.width=1", "callbacks.ansatz.every_n_epochs=0"),
    "vgg": ("model.width=1", "callbacks.ansatz.every_n_epochs=0"),
    "kernel": (),
    "conv_rfm": (*PATCHES, "trainer.max_epochs=2"),
    "conv_kernel": PATCHES,
    "deep_rfm": ("model.width=9",),
    "deep_conv_rfm": ("model.width=3",),
}
WATCHED = {  # and compared
    "mlp": ("model.width=8", "callbacks.ansatz.every_n_steps=1"),
    "rfm": ("model.refit=true", "trainer.max_epochs=2"),
}


def start(run, model, options, *, elsewhere):
    """A finished run."""
    epochs = () if any("max_epochs" in option for option in options) else ("trainer.max_epochs=1",)
    where, folder = (STRATEGY, "there") if elsewhere else (("trainer.accelerator=cpu",), "here")
    options = (f"model={model}", *SMALL, *epochs, *options, *where)
    done = run(*options, folder=f"{model} {folder}", small=False)
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("model", MODELS)
def test_training(run, model):
    done = start(run, model, MODELS[model], elsewhere=True)
    assert 0 <= done.summary["test/accuracy"] <= 1
    assert {row.epoch for row in done.rows} >= {0, done.summary["epochs"]}


def test_the_monitor_and_the_comparison(run):
    pairs = [
        [start(run, model, options, elsewhere=elsewhere) for elsewhere in (True, False)]
        for model, options in WATCHED.items()
    ]
    for mine, theirs in pairs:
        for name, value in theirs.weights.items():
            assert torch.allclose(mine.weights[name], value, rtol=1e-3, atol=1e-4), name
        check_rows(mine.rows, theirs.rows)
        loaded = load(f"file:{mine.folder}")
        x = torch.randn(5, 1, 8, 8)
        rebuilt = nfa.audit(loaded.model.to(NAME), [x.to(NAME)], nulls=2).rows
        check_rows(rebuilt, nfa.audit(load(f"file:{theirs.folder}").model, [x], nulls=2).rows)
    found, expected = (compare([done.folder for done in side]) for side in zip(*pairs, strict=True))
    assert [group.label for group in found.groups] == [group.label for group in expected.groups]
    for mine, theirs in zip(found.spaces, expected.spaces, strict=True):
        assert mine.name == theirs.name
        assert torch.allclose(mine.cosine, theirs.cosine, atol=1e-3)


def check_rows(found, expected):
    assert [(row.epoch, row.layer, row.status) for row in found] == [
        (row.epoch, row.layer, row.status) for row in expected
    ]
    for mine, theirs in zip(found, expected, strict=True):
        for field in ("cosine", "alignment", "null_mean", "init_cosine", "cnfc"):
            close = pytest.approx(getattr(theirs, field), abs=1e-3, nan_ok=True)
            assert getattr(mine, field) == close, (mine.layer, field)
