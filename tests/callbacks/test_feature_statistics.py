"""What data know of the features to be learned, of every model after every epoch."""

import csv

import pytest
import torch

from callbacks import FeatureStatistics
from callbacks.feature_statistics import weight_matrix
from nfa import NfaError

SMALL = ("data=low_rank", "data.dim=5", "data.n=60", "data.n_test=20", "trainer.max_epochs=2", "logger=csv")


def rows(done):
    with (done.folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_networks(run):
    done = run("model=mlp", "model.width=8", *SMALL, "callbacks.ansatz=null", small=False)
    assert done.code == 0, done.err
    first = rows(done)[0]
    for name in ("true_agop", "support", "true_agop_agop", "support_agop"):
        assert 0 < float(first[f"features/{name}"]) <= 1


def test_kernel_machines_tell_of_every_round(run):
    """Also of the last one where the best is an earlier one."""
    done = run("model=rfm", *SMALL, "callbacks.ansatz=null", small=False)
    assert done.code == 0, done.err
    first, second, _ = rows(done)
    assert float(first["features/support"]) == pytest.approx(2 / 5)  # M = I
    assert float(first["features/true_agop"]) == pytest.approx((2 / 5) ** 0.5)
    assert float(second["features/support"]) != pytest.approx(2 / 5)


def test_a_report_draws_the_first_layer_in_waves(run):
    options = ("data=modular", "data.p=7", "trainer.max_epochs=1", "logger=csv", "callbacks.ansatz.samples=8")
    done = run("model=mlp_quadratic", "model.width=8", *options, small=False)
    assert done.code == 0, done.err
    assert "in waves of a and b" in (done.folder / "report.html").read_text(encoding="utf-8")


def test_nothing_without_measuring_or_without_anything_known(run):
    done = run("model=mlp", "model.width=8", *SMALL, "callbacks=none", small=False)
    assert not [name for name in rows(done)[0] if name.startswith("features/")]
    done = run("model=mlp", "model.width=8", "data=digits", "data.n_train=100", "callbacks.ansatz=null",
               "trainer.max_epochs=1", "logger=csv", small=False)  # fmt: skip
    assert done.code == 0, done.err
    assert not [name for name in rows(done)[0] if name.startswith("features/")]


def test_a_network_that_takes_the_inputs_otherwise_has_no_such_matrix():
    assert weight_matrix(torch.nn.Conv2d(1, 2, 3), 5) is None
    W = torch.nn.Linear(5, 3)
    assert torch.allclose(weight_matrix(W, 5).float(), (W.weight.mT @ W.weight).detach())


def test_options():
    with pytest.raises(NfaError, match=r"callbacks\.features\.samples"):
        FeatureStatistics(samples=0)
