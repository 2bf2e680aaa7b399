"""A round that learns nothing, or whose training error rises and that does harm, is told of and not kept."""

import pytest
import torch

from nfa import RFM, ConvRFM, DeepConvRFM, DeepRFM
from nfa.kernels import Metric
from nfa.machines.patches import metric_of
from nfa.machines.reached import RoundFailedWarning
from nfa.machines.update import Agop

D = torch.float64


def table(n=60, scale=1.0):
    X = torch.randn(n, 5, generator=torch.Generator().manual_seed(0), dtype=D)
    return X * scale, X[:, 0] * X[:, 1]


def images(n=40, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, 1, 4, 4, generator=generator, dtype=D)
    return X * scale, X[:, 0, 1, 1] * X[:, 0, 1, 2]


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_points_out_of_sight_of_each_other(dtype, validated):
    X, y = (part.to(dtype) for part in table(scale=1e4))
    validation = (X + 1, y) if validated else ()
    with pytest.warns(RoundFailedWarning, match="round 1 failed .the AGOP is zero.* that of round 0"):
        machine = RFM(rounds=3).fit(X, y, *validation)
    assert len(machine.history) == 1
    assert torch.equal(machine.M, torch.eye(5, dtype=dtype))
    assert torch.allclose(machine.predict(X), y, atol=1e-2)


def test_layers_go_on_without_a_metric():
    X, y = table(scale=1e6)
    with (
        pytest.warns(RoundFailedWarning, match="round 1 of layer 0 failed .the AGOP is zero"),
        pytest.warns(RoundFailedWarning, match="round 1 of layer 1 failed .the AGOP is zero"),
    ):
        machine = DeepRFM(2, 16, unit_norm=False, ridge=1e-3).fit(X, y)
    assert len(machine.layers) == 2
    assert torch.equal(machine.layers[0].M, torch.eye(5, dtype=D))
    assert {"rounds", "train_mse"} <= machine.history[0].keys()
    assert bool(machine.predict(X).isfinite().all())


@pytest.mark.parametrize("machine", [ConvRFM(2, 1, rounds=2), DeepConvRFM(2, 1, rounds=2)])
def test_targets_without_variation(machine):
    X, y = images(8)
    with pytest.warns(RoundFailedWarning, match="the AGOP is zero"):
        machine.fit(X, torch.full_like(y, 3.0))
    assert torch.equal(machine.predict(X), torch.full_like(y, 3.0))


def misled(monkeypatch, learned, from_index=0):
    """Let rounds learn what says nothing about the targets."""
    original = Agop.__call__

    def wrong(self, predictor, index, *arguments):
        found, row = original(self, predictor, index, *arguments)
        return (learned if index >= from_index else found), row

    monkeypatch.setattr(Agop, "__call__", wrong)


def blind(d, seen, scale=1.0):
    return torch.eye(d, dtype=D)[:, seen] * scale


@pytest.mark.parametrize(("from_index", "kept"), [(0, 0), (1, 1)])
def test_a_metric_that_misses_the_features(monkeypatch, from_index, kept):
    X, y = table(200)
    misled(monkeypatch, Metric.factored(blind(5, [3, 4])), from_index)
    said = f"round {kept + 1} failed .the training error rose .* halves .* that of round {kept}"
    with pytest.warns(RoundFailedWarning, match=said):
        machine = RFM(bandwidth=3.0, ridge=1e-2, rounds=4).fit(X, y)
    assert machine.best_round == kept
    assert len(machine.history) == kept + 1
    machine = RFM(bandwidth=3.0, ridge=1e-2, rounds=4).fit(X, y, X + 0.1, y)  # validation data tell it, too
    assert machine.best_round <= kept
    assert len(machine.history) == 5


def test_a_metric_that_misses_the_features_in_a_layer(monkeypatch):
    X, y = table(200)
    misled(monkeypatch, Metric.factored(blind(5, [3, 4])))
    with pytest.warns(RoundFailedWarning, match="round 1 of layer 0 failed .the training error rose"):
        machine = DeepRFM(1, 16, ridge=1e-2, unit_norm=False).fit(X, y)
    assert torch.equal(machine.layers[0].M, torch.eye(5, dtype=D))


@pytest.mark.parametrize("deep", [False, True])
def test_a_transform_that_misses_the_features(monkeypatch, deep):
    X, y = images(80)
    T = torch.zeros(4, 4, dtype=D)
    T[3, 3] = 1e-3
    misled(monkeypatch, metric_of(T))
    machine = (DeepConvRFM if deep else ConvRFM)(2, 1, rounds=2, ridge=1e-2)
    with pytest.warns(RoundFailedWarning, match="the training error rose"):
        machine.fit(X, y)
    M = machine.layers[0].M if deep else machine.M
    assert torch.equal(M, torch.eye(4, dtype=D))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_metric_that_drops_noise_is_kept_although_the_training_error_rises(noise):
    X = torch.randn(1300, 10, generator=torch.Generator().manual_seed(0))
    f = X[:, 0] * X[:, 1] + X[:, 2]
    y = f + noise * torch.randn(1300, generator=torch.Generator().manual_seed(1))
    first, machine = (RFM("gaussian", 3.0, rounds=rounds).fit(X[:300], y[:300]) for rounds in (0, 4))
    assert machine.best_round == 4
    assert machine.history[-1]["train_mse"] > 1.5 * machine.history[0]["train_mse"]
    errors = [float((fit.predict(X[300:]) - f[300:]).square().mean()) for fit in (first, machine)]
    assert errors[1] < errors[0] / 2
