"""`DeepConvRFM` against the loop oracle with the same filters, by steps, as a network, and in files."""

import pytest
import torch
from torch import nn

from nfa import NfaError, agop, audit
from nfa.machines.conv_rfm import ConvRFM
from nfa.machines.deep_conv_rfm import DeepConvRFM
from nfa.machines.layer import Layer
from nfa.machines.patches import gradients_at
from nfa.machines.random_filters import ConvFeatures
from nfa.machines.reached import RoundFailedWarning
from nfa.machines.update import Agop
from nfa.reference import conv_rfm as oracle
from tests.nfa.machines.test_conv_rfm import far, images, slow_kernel
from tests.nfa.machines.test_deep_rfm import stepped, stepwise

D = torch.float64


def drawn(machine):
    """The random filters A of all layers but the last, as the oracle takes them."""
    return [layer.random.weight.detach().flatten(1) for layer in machine.layers[:-1]]


CASES = {
    "as published": ({}, {}, (1, 4, 5)),
    "relu": ({"activation": "relu"}, {"nonlinearity": "relu"}, (1, 4, 5)),
    "padded": ({"padding": "zero"}, {}, (1, 2, 3)),
    "stride": ({"conv_stride": 2}, {"conv_stride": 2}, (1, 5, 6)),
    "plain, accuracy": (
        {"power": 2.0, "criterion": "accuracy"},
        {"update": "plain", "select": "accuracy"},
        (1, 4, 5),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_equal_the_oracle(case):
    options, slow_options, shape = CASES[case]
    (X, y), (X_val, y_val), (X_test, _) = images(6, shape), images(5, shape, seed=1), images(3, shape, seed=2)
    ridges = [1e-3, 1e-1]
    machine = DeepConvRFM(2, 2, width=2, ridge=ridges, rounds=2, **options).fit(X, y, X_val, y_val)
    Y, Y_val = (torch.eye(3, dtype=D)[labels] for labels in (y, y_val))
    kernel = slow_kernel(machine.stack[0].kernel.function)
    slow_options = {"select": "mse"} | slow_options
    slow = oracle.deep_conv_rfm(X, Y, X_val, Y_val, X_test, kernel, ridges, 2, drawn(machine), **slow_options)
    assert len(machine.layers) == len(slow) == 2
    for index, (layer, expected, row) in enumerate(zip(machine.layers, slow, machine.history, strict=True)):
        T = expected.rounds.T[expected.best]
        assert far(machine.features(X_test, index), expected.X_test) < 1e-8
        assert row["best_round"] == expected.best
        assert [r["ridge"] for r in row["rounds"]] == expected.rounds.ridge
        assert row["ridge"] == expected.rounds.ridge[expected.best]
        assert far(layer.M, T @ T) < 1e-8
    assert far(machine.scores(X_test), slow[-1].rounds.prediction[slow[-1].best]) < 1e-8
    assert torch.equal(machine.predict(X_test), machine.scores(X_test).argmax(1))


def test_one_layer_is_a_conv_rfm_and_pooling_makes_images_smaller():
    X, y = images(9, (2, 6, 7))
    deep, flat = DeepConvRFM(2, 2, 1, rounds=2).fit(X, y), ConvRFM(2, 2, rounds=2).fit(X, y)
    assert torch.equal(deep.scores(X + 0.1), flat.scores(X + 0.1))
    assert torch.equal(deep.layers[0].M, flat.M)
    machine = DeepConvRFM(2, 3, 2, 4, rounds=1, conv_padding="zero", pool=2, activation="relu").fit(X, y)
    H = machine.features(X, 1)
    assert H.shape == (9, 4, 3, 4)
    A, T = machine.layers[0].random.weight, machine.layers[0].feature_map.weight
    z = nn.functional.conv2d(nn.functional.conv2d(X, T, padding=1), A).relu()
    assert far(H, nn.functional.avg_pool2d(z, 2)) < 1e-12
    assert [layer.kernel.function.depth for layer in machine.stack] == [3, 2]
    assert [layer.kernel.function.depth for layer in DeepConvRFM(2, 1, 3, 4, rounds=0).fit(X, y).stack] == [
        1,
        1,
        1,
    ]


def test_parts_change_nothing_and_equal_images_are_recognised(monkeypatch):
    X, y = images(9, (2, 6, 7))
    machine = DeepConvRFM(2, 2, width=5, rounds=1, activation="relu").fit(X.float(), y)
    H = machine.features(X.float(), 1)
    assert torch.equal(machine.predictor.centers, H)
    monkeypatch.setattr("nfa.machines.stages._HELD", 1)
    monkeypatch.setattr("nfa.machines.tails._HELD", 600)
    assert torch.equal(machine.features(X.float(), 1), H)
    assert torch.equal(machine.features(X[3:4].float(), 1), H[3:4])
    assert far(machine.network()(X.float()), machine.scores(X.float())) < 1e-4


def test_the_network_is_the_machine_and_an_audit_measures_every_layer():
    X, y = images(8, (2, 6, 7))
    machine = DeepConvRFM(2, 3, width=3, rounds=1, activation="relu", ridge=1e-2).fit(X, y)
    network = machine.network()
    points = torch.cat([X[:3], X[:1] + 0.1])
    with torch.no_grad():
        assert torch.equal(network(points), machine.scores(points))
    assert far(network(points), machine.scores(points)) < 1e-10
    rows = {row.layer: row for row in audit(network, [points]).rows}
    assert [*rows] == [
        "layer0.feature_map", "layer0.random", "layer1.feature_map", "layer1.random", "layer2.feature_map",
    ]  # fmt: skip
    assert all(row.status == "ok" and row.kind == "conv2d" for row in rows.values())
    own = gradients_at(machine.predictor, machine.features(points, 2))
    assert far(agop(network, [points])["layer2.feature_map"], own) < 1e-8
    x = (points[3:] + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(network, (x,), atol=1e-6, fast_mode=True)


def test_steps_are_the_fit_and_go_on_from_a_state_dict():
    (X, y), validation = images(8), images(6, seed=1)
    machine = DeepConvRFM(2, 2, width=4, rounds=2).fit(X, y, *validation)
    network, steps = stepwise(machine, X, y, validation)
    assert torch.equal(network.double()(X), torch.zeros(8, 3, dtype=D))
    count = 0
    for _ in stepped(network, steps):
        count += 1
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        after, left = stepwise(machine, X, y, validation)
        nn.ModuleList([after]).load_state_dict({f"0.{name}": t for name, t in state.items()})
        with torch.no_grad():
            assert torch.equal(after(X + 0.1), network(X + 0.1))
        row = next(stepped(after, left), None)
        if row is not None:  # the round to come is the same after a restart
            expected = machine.history[row["layer"]]["rounds"][row["round"]]
            assert row["val_mse"] == expected["val_mse"]
    assert row is None
    assert count == 6
    with torch.no_grad():
        assert torch.equal(network(X + 0.1), machine.scores(X + 0.1))


def test_the_last_layer_or_the_best_on_validation_data():
    (X, y), validation = images(12), images(20, seed=1)
    last = DeepConvRFM(2, 3, width=4, rounds=1).fit(X, y, *validation)
    best = DeepConvRFM(2, 3, width=4, rounds=1, select="best").fit(X, y, *validation)
    errors = [row["val_mse"] for row in last.history]
    assert [row["val_mse"] for row in best.history] == errors
    assert last.best_layer == 2
    assert best.best_layer == errors.index(min(errors))
    Y = torch.eye(3, dtype=D)[validation[1]]
    for machine in (last, best):
        mse = float((machine.scores(validation[0]) - Y).square().mean())
        assert mse == pytest.approx(errors[machine.best_layer], rel=1e-9)
    for row in last.history:
        assert row["best_round"] == min(row["rounds"], key=lambda r: r["val_mse"])["round"]
        for phase in ("kernel", "solve", "predict", "agop"):
            total = sum(step.get(f"{phase}_seconds", 0.0) for step in row["rounds"])
            assert row[f"{phase}_seconds"] == pytest.approx(total)
    with pytest.raises(NfaError, match="select='best' needs validation data"):
        DeepConvRFM(select="best").fit(X, y)


def test_the_seed_decides_alone():
    X, y = images(8)
    torch.manual_seed(0)
    first = DeepConvRFM(2, 2, width=4, rounds=1, agop_images=4, seed=3).fit(X, y)
    torch.manual_seed(1)
    again, other = (DeepConvRFM(2, 2, width=4, rounds=1, agop_images=4, seed=s).fit(X, y) for s in (3, 4))
    assert torch.equal(first.scores(X + 0.1), again.scores(X + 0.1))
    assert not torch.allclose(first.scores(X + 0.1), other.scores(X + 0.1))
    A = ConvFeatures(200).filters(50, torch.Generator().manual_seed(0))
    assert A.shape == (200, 50)
    assert float(A.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("select", ["last", "best"])
def test_files(tmp_path, select):
    (X, y), validation = images(8), images(6, seed=1)
    machine = DeepConvRFM(2, 3, width=4, rounds=1, select=select, activation="relu").fit(X, y, *validation)
    machine.save(tmp_path / "machine.safetensors")
    loaded = DeepConvRFM.load(tmp_path / "machine.safetensors")
    assert torch.equal(loaded.scores(X + 0.1), machine.scores(X + 0.1))
    assert loaded.best_layer == machine.best_layer
    assert loaded.history == machine.history
    assert loaded.stack == machine.stack
    for layer, expected in zip(loaded.layers, machine.layers, strict=True):
        assert torch.equal(layer.M, expected.M)
    loaded.save(tmp_path / "again.safetensors")
    again = DeepConvRFM.load(tmp_path / "again.safetensors")
    assert torch.equal(again.predict(X), machine.predict(X))
    ConvRFM(2, 1, rounds=0).fit(X, y).save(tmp_path / "other.safetensors")
    with pytest.raises(NfaError, match=r"DeepConvRFM\.save"):
        DeepConvRFM.load(tmp_path / "other.safetensors")


def test_a_layer_that_fails_leaves_the_ones_before(monkeypatch, tmp_path):
    X, y = images(8)
    calls, original = [], Layer.fit

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 3:  # of two rounds a layer
            raise NfaError("no fit in layer 1")
        return original(self, *arguments)

    monkeypatch.setattr(Layer, "fit", failing)
    with pytest.warns(RoundFailedWarning, match="layer 1 failed"):
        machine = DeepConvRFM(2, 3, width=4, rounds=1).fit(X, y)
    assert len(machine.layers) == 1
    first = ConvRFM(2, 3, rounds=1)
    assert torch.equal(machine.scores(X + 0.1), first.fit(X, y).scores(X + 0.1))
    machine.save(tmp_path / "machine.safetensors")
    loaded = DeepConvRFM.load(tmp_path / "machine.safetensors")
    assert torch.equal(loaded.scores(X + 0.1), machine.scores(X + 0.1))


def test_a_round_that_fails_ends_its_layer(monkeypatch, tmp_path):
    X, y = images(8)
    original = Agop.__call__

    def failing(self, predictor, index, *arguments):
        if index == 1:
            raise NfaError("no second update")
        return original(self, predictor, index, *arguments)

    monkeypatch.setattr(Agop, "__call__", failing)
    said = "round 2 of layer 0 failed .no second update.; the layer is that of round 1"
    with pytest.warns(RoundFailedWarning, match=said):
        machine = DeepConvRFM(2, 3, width=4, rounds=2).fit(X, y)
    assert [(len(row["rounds"]), row["best_round"]) for row in machine.history] == [(2, 1), (3, 2), (3, 2)]
    assert torch.equal(machine.layers[0].M, ConvRFM(2, 3, rounds=1).fit(X, y).M)
    machine.save(tmp_path / "machine.safetensors")
    loaded = DeepConvRFM.load(tmp_path / "machine.safetensors")
    assert torch.equal(loaded.scores(X + 0.1), machine.scores(X + 0.1))


def test_bad_options_and_bad_data():
    for options, message in (
        ({"depth": 0}, "depth must be"),
        ({"layers": 0}, "layers must be a whole number of 1 or more"),
        ({"rounds": -1}, "rounds must be"),
        ({"width": 0}, "width must be"),
        ({"pool": 0}, "pool must be"),
        ({"activation": "tanh"}, "activation must be one of none, relu"),
        ({"conv_padding": "same"}, "padding must be one of none, zero"),
        ({"select": "first"}, "select must be one of"),
    ):
        with pytest.raises(NfaError, match=message):
            DeepConvRFM(**options)
    X, y = images(8)
    for machine, arguments, message in (
        (DeepConvRFM(2, 2), (X.flatten(1), y), "reshape flat vectors to images first"),
        (DeepConvRFM(3, 3), (X, y), "layer 0: 3 convolutions of 3 pixels need images of at least 7 × 7"),
        (DeepConvRFM(2, 2, conv_stride=4), (X, y), "layer 1: 1 convolutions of 2 pixels need"),
        (DeepConvRFM(2, 2, pool=5), (X, y), "nothing is left of the images before layer 1"),
        (
            DeepConvRFM(2, 2, width=10**8),
            (X, y),
            "layers of 400000000 features takes .* give a smaller width",
        ),
        (DeepConvRFM(2, 2), (X, y, X), "both X_val and y_val"),
    ):
        with pytest.raises(NfaError, match=message):
            machine.fit(*arguments)
    with pytest.raises(NfaError, match="call fit"):
        DeepConvRFM().predict(X)
    machine = DeepConvRFM(2, 2, width=3, rounds=0).fit(X, y)
    with pytest.raises(NfaError, match="as in the fit"):
        machine.predict(X[:, :1])
    with pytest.raises(NfaError, match="a layer from 0 to 1"):
        machine.features(X, 2)
