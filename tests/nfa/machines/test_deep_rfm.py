"""`DeepRFM` against the loop oracle with the same random numbers, by steps, as a network, and in files."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nfa import NfaError, agop, audit, input_agop
from nfa.kernels import Metric
from nfa.machines.deep_rfm import DeepRFM
from nfa.machines.layer import Layer
from nfa.machines.loop import Steps
from nfa.machines.network import DeepNetwork
from nfa.machines.normalization import symmetric
from nfa.machines.random_features import RandomFeatures, UnitRows, ZeroRowsWarning
from nfa.machines.reached import RoundFailedWarning
from nfa.machines.rfm import RFM
from nfa.machines.system import Solver
from nfa.machines.target_code import TargetCode
from nfa.machines.update import Agop
from nfa.reference import collapse as slow_collapse
from nfa.reference import rfm as oracle

D = torch.float64
KERNEL = oracle.Kernel("laplace", 2.0)


def blobs(n=18, d=5, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    means = torch.randn(classes, d, generator=torch.Generator().manual_seed(7), dtype=D)
    return means[y] + 0.7 * torch.randn(n, d, generator=generator, dtype=D), y


def drawn(machine):
    """The random numbers of a machine, as the oracle takes them."""
    kind, found = machine.stack[0].lift.activation, []
    for random in (layer.random for layer in machine.layers):
        b = torch.zeros(len(random.weight), dtype=D) if random.bias is None else random.bias
        found.append(oracle.Features(kind, random.weight.data, b))
    return found


def far(A, B):
    return float((A - B).norm() / B.norm())


FEATURES = {
    "relu": {"activation": "relu"},
    "relu with a bias": {"activation": "relu", "bias": True},
    "laplace in norm 1": {"activation": "laplace", "gamma": 0.3},
    "laplace in norm 2": {"activation": "laplace", "gamma": 0.5, "norm": 2},
}


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize("features", FEATURES)
def test_layers_equal_the_oracle(features, ridge):
    (X, y), (X_test, _) = blobs(), blobs(4, seed=1)
    Y = oracle.signed_one_hot(y.tolist(), 3)
    machine = DeepRFM(depth=3, width=9, ridge=ridge, **FEATURES[features]).fit(X, y)
    slow = oracle.deep_rfm(X, Y, X_test, KERNEL, drawn(machine), ridge)
    for index, (layer, expected, row) in enumerate(zip(machine.layers, slow, machine.history, strict=True)):
        assert far(layer.M, expected.M) < 1e-8
        assert far(machine.features(X, index), expected.Phi) < 1e-8
        assert far(machine.features(X_test, index), expected.Phi_test) < 1e-8
        stages = {"input": expected.X, "root": expected.root, "features": expected.Phi}
        for of, points in stages.items():
            assert row[f"nc1_{of}"] == pytest.approx(slow_collapse.nc1(points, y.tolist()), rel=1e-8)
            assert row[f"nc2_{of}"] == pytest.approx(slow_collapse.nc2(points, y.tolist()), rel=1e-8)
    last = slow[-1]
    predicted = oracle.run_rfm(last.X, Y, last.X_test, KERNEL, ridge, 1, normalise="max").prediction[-1]
    assert far(machine.scores(X_test), predicted) < 1e-8
    assert torch.equal(machine.predict(X_test), predicted.argmax(1))
    assert machine.best_layer == 2


def test_rounds_within_a_layer_and_other_options_equal_the_oracle():
    (X, y), (X_test, _) = blobs(), blobs(4, seed=1)
    options = {"power": 0.5, "centering": "output", "normalization": "trace"}
    machine = DeepRFM(2, 9, kernel="gaussian", ridge=1e-2, rounds=2, labels="one_hot", **options).fit(X, y)
    H, T = X, X_test
    for index, (layer, features) in enumerate(zip(machine.layers, drawn(machine), strict=True)):
        slow = oracle.run_rfm(
            oracle.unit_rows(H), torch.eye(3, dtype=D)[y], oracle.unit_rows(T),
            oracle.Kernel("gaussian", 2.0), 1e-2, 2, power=0.5, centring="output", normalise="trace",
        )  # fmt: skip
        assert far(layer.M, slow.M[-1]) < 1e-8
        R = oracle.matrix_power(slow.M[-1], 0.5)
        H, T = (oracle.map_features(oracle.unit_rows(points) @ R, features) for points in (H, T))
        assert far(machine.features(X_test, index), T) < 1e-8
        assert [row["round"] for row in machine.history[index]["rounds"]] == [0, 1, 2]
    assert far(machine.scores(X_test), slow.prediction[-1]) < 1e-8


def test_one_layer_without_scaling_is_an_rfm_also_of_numbers():
    X, _ = blobs()
    y = X[:, 0] * X[:, 1]
    deep = DeepRFM(1, 4, unit_norm=False, rounds=2, ridge=1e-3).fit(X, y)
    flat = RFM(bandwidth=2.0, rounds=2, ridge=1e-3).fit(X, y)
    assert torch.allclose(deep.predict(X + 0.1), flat.predict(X + 0.1), atol=1e-11)
    assert deep.predict(X).shape == (18,)
    assert far(deep.layers[0].M, flat.M) < 1e-11
    assert not any(name.startswith("nc") for name in deep.history[0])  # no classes that could collapse
    assert deep.history[0]["train_mse"] < 1e-4


def test_a_metric_of_low_rank_has_a_symmetric_root():
    X, y = blobs(6, 20)
    machine = DeepRFM(1, 8).fit(X, y)
    (layer,), (features,) = machine.layers, drawn(machine)
    assert machine.history[0]["rank"] <= 6  # points
    Phi = oracle.map_features(oracle.unit_rows(X) @ oracle.matrix_power(layer.M, 0.5), features)
    assert far(machine.features(X, 0), Phi) < 1e-6  # the root of a rounding error of 1e-16
    for k in (9, 20, 30):
        factor = torch.randn(20, k, generator=torch.Generator().manual_seed(0), dtype=D)
        root = symmetric(Metric.factored(factor)).root
        assert far(root, root.T) < 1e-14
        assert far(root @ root, factor @ factor.T) < 1e-13
        assert float(torch.linalg.eigvalsh(root).min()) > -1e-13
    assert not symmetric(Metric.factored(torch.zeros(4, 2))).root.any()


# --- classes, collapse, selection ------------------------------------------------------------------------


def test_classes_collapse_with_depth():
    X, y = blobs(60, 10, 4)
    machine = DeepRFM(4, 64).fit(X.float(), y)
    stages = [row[f"nc1_{of}"] for row in machine.history for of in ("input", "root")]
    assert all(later < earlier for earlier, later in zip(stages[::2], stages[2::2], strict=False))
    assert all(root < points for points, root in zip(stages[::2], stages[1::2], strict=True))
    assert machine.history[-1]["nc1_features"] < 0.2 * machine.history[0]["nc1_input"]
    assert machine.scores(X.float()).dtype == torch.float32
    assert machine.history[-1]["train_accuracy"] == 1


def test_the_last_layer_or_the_best_on_validation_data():
    (X, y), validation = blobs(), blobs(30, seed=1)
    last = DeepRFM(4, 16, seed=2).fit(X, y, *validation)
    best = DeepRFM(4, 16, seed=2, select="best").fit(X, y, *validation)
    errors = [row["val_mse"] for row in last.history]
    assert [row["val_mse"] for row in best.history] == errors
    assert last.best_layer == 3 != best.best_layer == errors.index(min(errors))
    for machine in (last, best):
        Y = oracle.signed_one_hot(validation[1].tolist(), 3)
        mse = float((machine.scores(validation[0]) - Y).square().mean())
        assert mse == pytest.approx(errors[machine.best_layer], rel=1e-9)
        assert torch.allclose(machine.network()(validation[0]), machine.scores(validation[0]), atol=1e-12)
    with pytest.raises(NfaError, match="select='best' needs validation data"):
        DeepRFM(select="best").fit(X, y)


def test_validation_data_choose_bandwidth_and_ridge_in_every_layer():
    (X, y), validation = blobs(), blobs(30, seed=1)
    machine = DeepRFM(2, 16, bandwidth=[0.5, 2.0, 8.0], ridge=[1e-3, 1.0]).fit(X, y, *validation)
    assert all(row["bandwidth"] in (0.5, 2.0, 8.0) and row["ridge"] in (1e-3, 1.0) for row in machine.history)
    with pytest.raises(NfaError, match="needs validation data"):
        DeepRFM(2, 16, ridge=[1e-3, 1.0]).fit(X, y)


def test_history_tells_of_every_layer():
    machine = DeepRFM(2, 16, rounds=2).fit(*blobs(), *blobs(6, seed=1))
    for index, row in enumerate(machine.history):
        assert row["layer"] == index
        assert "round" not in row
        assert 0 < row["self_consistency"] <= 1
        assert row["residual"] < 1e-9
        for phase in ("kernel", "solve", "predict", "agop", "features"):
            total = sum(step.get(f"{phase}_seconds", 0.0) for step in row["rounds"])
            assert row[f"{phase}_seconds"] == pytest.approx(total)
    assert "self_consistency" not in machine.history[0]["rounds"][0]


def test_the_seed_decides_alone():
    X, y = blobs()
    for options in ({}, {"activation": "laplace"}, {"agop_samples": 9}):
        torch.manual_seed(0)
        first = DeepRFM(2, 16, seed=3, **options).fit(X, y)
        torch.manual_seed(1)
        again, other = (DeepRFM(2, 16, seed=seed, **options).fit(X, y) for seed in (3, 4))
        assert torch.equal(first.scores(X + 0.1), again.scores(X + 0.1))
        assert not torch.allclose(first.scores(X + 0.1), other.scores(X + 0.1))
    first, second = (layer.random.weight for layer in DeepRFM(2, 5, bias=True).fit(X, y).layers)
    assert not torch.allclose(first, second)


# --- random features -------------------------------------------------------------------------------------


def test_relu_draws_are_those_of_a_default_linear_layer():
    features = RandomFeatures("relu", 400, bias=True)
    R, b = features.draw(16, torch.Generator().manual_seed(0))
    assert R.shape == (400, 16)
    for values in (R, b):
        assert float(values.abs().max()) <= 0.25
        assert float(values.std()) == pytest.approx(0.25 / math.sqrt(3), rel=0.05)
    without, none = RandomFeatures("relu", 400).draw(16, torch.Generator().manual_seed(0))
    assert none is None
    assert torch.equal(without, R)


@pytest.mark.parametrize("norm", [1, 2])
def test_cosine_features_average_to_the_laplace_kernel_of_their_norm(norm):
    X = torch.tensor([[0.0, 0.0, 0.0], [0.8, -0.5, 0.3]], dtype=D)
    features = RandomFeatures("laplace", 20_000, 0.7, norm)
    R, b = features.draw(3, torch.Generator().manual_seed(0))
    Phi = features.nonlinearity()(X @ R.T + b)
    expected = math.exp(-0.7 * float(torch.linalg.vector_norm(X[1], norm)))
    assert float(Phi[0] @ Phi[1]) == pytest.approx(expected, abs=0.025)  # 3 standard errors
    assert float(Phi[0] @ Phi[0]) == pytest.approx(1, abs=0.025)


@pytest.mark.parametrize("activation", ["relu", "laplace"])
def test_equal_points_have_equal_features_whatever_the_batch(activation):
    X, y = blobs(300, 37)
    X = X.float()
    machine = DeepRFM(2, 65, activation).fit(X, y)
    together = machine.features(X, 1)
    for rows in (slice(0, 1), slice(7, 24), slice(299, 300)):
        assert torch.equal(machine.features(X[rows].clone(), 1), together[rows])


def test_unit_rows_keep_zeros_and_their_gradients_are_finite():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=D, requires_grad=True)
    unit = UnitRows()(x)
    assert torch.allclose(unit, torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=D))
    (gradient,) = torch.autograd.grad(unit[:, 0].sum(), x)
    assert torch.allclose(gradient, torch.tensor([[0.128, -0.096], [0.0, 0.0]], dtype=D))


# --- one step at a time ----------------------------------------------------------------------------------


def stepwise(machine, X, y, validation=None):
    """An unfitted network of a machine, and what steps through the rounds that are left of it."""
    targets, network = TargetCode.of(y), DeepNetwork(machine.stack, X.shape[1:], 3)
    seen = (
        None
        if validation is None
        else (validation[0], machine._columns(targets, validation[1], X[: len(validation[0])]))
    )
    steps = Steps(
        machine.stack, X, machine._columns(targets, y, X), targets, seen, network=network, resumable=True
    )
    return network, steps


def stepped(network, steps):
    """Rounds, held by the network one after the other."""
    for found in steps.after(network.reached()):
        network.take(found)
        yield {"layer": found.layer, "round": found.index, **found.update, **found.row}


def test_steps_are_the_fit_and_go_on_from_a_state_dict():
    (X, y), validation = blobs(), blobs(6, seed=1)
    machine = DeepRFM(3, 16, rounds=2).fit(X, y, *validation)
    network, steps = stepwise(machine, X, y, validation)
    assert torch.equal(network(X), torch.zeros(18, 3))
    rows = []
    for told in stepped(network, steps):
        rows.append(told)
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        after, left = stepwise(machine, X, y, validation)
        nn.ModuleList([after]).load_state_dict({f"0.{name}": t for name, t in state.items()})
        assert torch.equal(after(X), network(X))
        row = next(stepped(after, left), None)
        if row is not None:  # the round to come is the same after a restart
            expected = machine.history[row["layer"]]["rounds"][row["round"]]
            assert row["layer"] == expected["layer"]
            assert row["val_mse"] == expected["val_mse"]
    assert row is None
    assert len(rows) == 9
    assert [(row["layer"], row["round"]) for row in rows] == [(i, j) for i in range(3) for j in range(3)]
    timeless = [
        [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in found]
        for found in (rows, [row for layer in machine.history for row in layer["rounds"]])
    ]
    assert timeless[0] == timeless[1]
    assert torch.allclose(network(X + 0.1), machine.scores(X + 0.1), atol=1e-12)


def test_a_state_dict_of_other_sizes_is_refused():
    stack = DeepRFM(2, 9).stack
    state = DeepNetwork(stack, (5,), 3).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for layer0\.random\.weight"):
        DeepNetwork(DeepRFM(2, 8).stack, (5,), 3).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"size mismatch for layer0\.feature_map\.weight"):
        DeepNetwork(stack, (6,), 3).load_state_dict(state)


# --- as a network ----------------------------------------------------------------------------------------


def test_the_network_is_the_machine_and_is_measured_layer_by_layer():
    X, y = blobs(40, 6)
    machine = DeepRFM(3, 12).fit(X, y)
    network = machine.network()
    points = torch.cat([X, X[:5] + 0.3])
    assert torch.allclose(network(points), machine.scores(points), atol=1e-12)
    assert torch.autograd.gradcheck(network, ((X[:3] + 0.3).requires_grad_(),))
    report = audit(network, [X])
    assert [row.layer for row in report.rows] == [
        "layer0.feature_map", "layer0.random", "layer1.feature_map", "layer1.random", "layer2.feature_map",
    ]  # fmt: skip
    assert all(row.status == "ok" for row in report.rows)
    for index, layer in enumerate(machine.layers):
        weight = report.weights[f"layer{index}.feature_map"][0].to(D)
        assert far(weight.T @ weight, layer.M) < 1e-12
    # at the last map the network is the kernel predictor alone
    last = replace(machine.stack[2], offset="none")
    H = machine.layers[2].scale(machine.features(X, 1))
    fit = last.fit(machine.predictor.metric, H, 2 * torch.eye(3, dtype=D)[y] - 1)
    after, _ = last.update(fit.predictor, 0, Solver())
    G = report.pair("layer2.feature_map").agop()
    assert far(G / G.max(), after.dense()) < 1e-8


def test_a_network_in_the_middle_of_its_fit_is_measured_beside_the_one_it_was():
    X, y = blobs(40, 6)
    network, steps = stepwise(DeepRFM(3, 16), X, y)
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    left = stepped(network, steps)
    for _ in range(4):
        next(left)
    rows = {row.layer: row for row in audit(network, [X], initial_state=initial).rows}
    assert [name for name, row in rows.items() if row.measured] == list(rows)[:3]
    assert all("not called" in row.status for row in list(rows.values())[3:])
    learned, random = rows["layer0.feature_map"], rows["layer0.random"]
    assert learned.init_nfm_cosine < 0.9 < random.init_nfm_cosine == pytest.approx(1)
    assert math.isnan(random.cnfc)  # it does not change


@pytest.mark.parametrize("unit_norm", [True, False])
def test_the_agop_of_the_first_map_is_that_of_the_inputs_it_sees(unit_norm):
    X, y = blobs(20, 6)
    network = DeepRFM(2, 12, unit_norm=unit_norm).fit(X, y).network()
    first = network.layer0
    behind = nn.Sequential(Behind(network))
    G = agop(network, [X])["layer0.feature_map"].to(D)
    assert far(input_agop(behind, [first.scale(X)]), G) < 1e-11
    if not unit_norm:
        assert far(input_agop(network, [X]), G) < 1e-11


class Behind(nn.Module):
    """A network of points that are scaled already."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        first, second = self.network.layers
        u = second.feature_map(second.scale(first.features(x)) - self.network.offset)
        return self.network.radial(u)


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 1])
@pytest.mark.parametrize("activation", ["relu", "laplace"])
def test_files_hold_the_machine(tmp_path, activation, rounds):
    (X, y), validation = blobs(), blobs(9, seed=1)
    machine = DeepRFM(
        3, 16, activation, "matern", [0.5, 2.0], 1e-3, rounds, bias=True, select="best", seed=1, nu=2.5
    ).fit(X, y, *validation)
    machine.save(tmp_path / "machine.safetensors")
    again = DeepRFM.load(tmp_path / "machine.safetensors")
    assert torch.equal(again.scores(X + 0.1), machine.scores(X + 0.1))
    assert torch.equal(again.predict(X), machine.predict(X))
    assert torch.equal(again.features(X, 2), machine.features(X, 2))
    assert torch.equal(again.layers[0].M, machine.layers[0].M)
    assert again.history == machine.history
    assert again.best_layer == machine.best_layer
    assert again.stack == machine.stack
    assert torch.equal(again.network()(X), machine.network()(X))
    RFM(rounds=0).fit(X, y).save(tmp_path / "flat.safetensors")
    for name, message in (("flat", "is no machine saved by DeepRFM.save"), ("none", "no file at")):
        with pytest.raises(NfaError, match=message):
            DeepRFM.load(tmp_path / f"{name}.safetensors")


# --- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be a whole number of 1 or more, got 0"),
        ({"width": 0}, "width must be a whole number of 1 or more, got 0"),
        ({"activation": "tanh"}, "activation must be one of relu, laplace"),
        ({"gamma": 0.0}, "gamma must be a positive number"),
        ({"norm": 3}, "norm must be 1 or 2"),
        ({"rounds": -1}, "rounds must be a whole number of 0 or more"),
        ({"labels": "soft"}, "labels must be one of signed, one_hot"),
        ({"select": "first"}, "select must be one of last, best"),
        ({"kernel": "laplce"}, "did you mean 'laplace'"),
        ({"bandwidth": 0.0}, "bandwidth"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(NfaError, match=message):
        DeepRFM(**options)


def test_bad_data():
    X, y = blobs()
    machine = DeepRFM(2, 16)
    for arguments, message in (
        ((X * torch.nan, y), "points have values that are not finite"),
        ((X[:5], y), "one row a sample each"),
        ((X, y, X), "both X_val and y_val"),
        ((X, y, X[:, :2], y), "with 5 features"),
        ((X, y, X, X[:, 0]), "expected class indices"),
        ((X * 0, y), "layer 0 cannot scale its inputs to unit length, all are zero"),
    ):
        with pytest.raises(NfaError, match=message):
            machine.fit(*arguments)
    for call in (machine.network, lambda: machine.scores(X), lambda: machine.features(X, 0)):
        with pytest.raises(NfaError, match="call fit"):
            call()
    machine.fit(X, y)
    with pytest.raises(NfaError, match="expected a layer from 0 to 1, got 2"):
        machine.features(X, 2)
    with pytest.raises(NfaError, match="with 5 features"):
        machine.predict(X[:, :2])


def test_zero_rows_are_told_of_and_stay_zero():
    X, y = blobs()
    X[4] = 0
    with pytest.warns(ZeroRowsWarning, match="1 of 18 inputs of layer 0 are zero, have no direction"):
        machine = DeepRFM(1, 16).fit(X, y)
    assert torch.isfinite(machine.scores(X)).all()
    assert not machine.features(X, 0)[4].any()
    assert torch.isfinite(DeepRFM(2, 16, unit_norm=False).fit(X, y).scores(X)).all()


def test_features_that_die_are_told_of():
    X, y = blobs()
    with (
        pytest.warns(ZeroRowsWarning, match="layer 1 are zero.*larger width or a bias"),
        pytest.warns(UserWarning, match="has no Cholesky factor"),
    ):
        DeepRFM(2, 2, seed=0).fit(X, y)


def test_a_failing_layer_keeps_those_before(monkeypatch):
    X, y = blobs()
    first = DeepRFM(2, 16).fit(X, y)

    def broken(self, *arguments):
        calls.append(1)
        if len(calls) == 5:  # of two rounds a layer
            raise NfaError("the outputs are not finite")
        return original(self, *arguments)

    calls, original = [], Layer.fit
    monkeypatch.setattr(Layer, "fit", broken)
    with pytest.warns(RoundFailedWarning, match="layer 2 failed .* that of layer 1"):
        machine = DeepRFM(4, 16).fit(X, y)
    assert len(machine.layers) == len(machine.history) == 2
    assert torch.equal(machine.scores(X + 0.1), first.scores(X + 0.1))
    assert torch.equal(machine.network()(X), first.network()(X))


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failing_round_ends_its_layer(monkeypatch, tmp_path, failing):
    X, y = blobs()
    first = DeepRFM(1, 16, rounds=failing, select="last").fit(X, y)

    def broken(self, predictor, index, *arguments):
        if index == failing:
            raise NfaError("the AGOP is not finite")
        return original(self, predictor, index, *arguments)

    original = Agop.__call__
    monkeypatch.setattr(Agop, "__call__", broken)
    said = f"round {failing + 1} of layer 0 failed .* the layer is that of round {failing}"
    with pytest.warns(RoundFailedWarning, match=said):
        machine = DeepRFM(2, 16, rounds=2).fit(X, y)
    assert [len(row["rounds"]) for row in machine.history] == [failing + 1, 3]
    assert far(machine.layers[0].M, first.layers[0].M) < 1e-10
    assert far(machine.features(X, 0), first.features(X, 0)) < 1e-6
    assert {"nc1_features", "train_mse"} <= machine.history[0].keys()
    machine.save(tmp_path / "machine.safetensors")
    assert torch.equal(DeepRFM.load(tmp_path / "machine.safetensors").scores(X), machine.scores(X))


def test_duplicates_without_a_ridge_are_told_of():
    X, y = blobs()
    with pytest.warns(UserWarning, match="1 of the 19 rows are duplicates"):
        DeepRFM(1, 16).fit(torch.cat([X, X[:1]]), torch.cat([y, y[:1] + 1]))


def test_progress_is_told(capsys):
    DeepRFM(2, 16).fit(*blobs(), progress=True)
    err = capsys.readouterr().err
    assert "layer 1/2  train_mse" in err
    assert "nc1_features" in err
