"""`RFM` against the loop oracle, on a target with two relevant features, and on bad input."""

import pytest
import torch

from nfa import FeaturePair, NfaError, audit, input_agop
from nfa.kernels import Metric, median_bandwidth
from nfa.machines.kernel_agop import kernel_agop
from nfa.machines.layer import Layer
from nfa.machines.network import KernelNetwork
from nfa.machines.radial import Radial
from nfa.machines.reached import RoundFailedWarning
from nfa.machines.rfm import RFM
from nfa.machines.system import Solver
from nfa.machines.update import Agop
from nfa.reference import rfm as oracle

D = torch.float64


def anchor():
    i = torch.arange(12, dtype=D)
    X = torch.stack([(1 + i).sin(), (2 * i).cos(), (i**2 / 2).sin()], 1)
    return X, torch.stack([X[:, 0] * X[:, 1], X[:, 2]], 1)


UNCENTRED = (
    0.035955949844, -0.004357831930, -0.023864691380, 0.010408340229, -0.032468360058, 0.769784783552,
)  # fmt: skip
CENTRED = (
    0.095127717840, 0.021764319899, 0.034591807348, 0.099695811142, -0.013462152642, 0.054868007598,
)  # fmt: skip


@pytest.mark.parametrize(("centering", "entries"), [("none", UNCENTRED), ("output", CENTRED)])
def test_anchor(centering, entries):
    machine = RFM(bandwidth=1.0, rounds=3, centering=centering, normalization="none", offset="none")
    machine.fit(*anchor())
    rows, columns = torch.triu_indices(3, 3)
    assert torch.allclose(machine.M[rows, columns], torch.tensor(entries, dtype=D), atol=1e-9, rtol=0)


KERNELS = {
    "laplace": ({"kernel": "laplace"}, oracle.Kernel("laplace", 1.2)),
    "gaussian": ({"kernel": "gaussian"}, oracle.Kernel("gaussian", 1.2)),
    "matern": ({"kernel": "matern", "nu": 1.5}, oracle.Kernel("matern32", 1.2)),
    "exponential": ({"kernel": "exponential", "q": 1.5}, oracle.Kernel("power", 1.2, 1.5)),
}


@pytest.mark.parametrize("normalization", ["none", "max", "trace"])
@pytest.mark.parametrize("centering", ["none", "output", "pooled"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_rounds_equal_the_oracle(kernel, centering, normalization):
    options, slow_kernel = KERNELS[kernel]
    X, Y = anchor()
    X_test = X[:5] + 0.3
    slow = oracle.run_rfm(X, Y, X_test, slow_kernel, 1e-2, 2, centring=centering, normalise=normalization)
    machine = RFM(
        bandwidth=1.2, ridge=1e-2, rounds=2, centering=centering, normalization=normalization, offset="none",
        **options,
    ).fit(X, Y)  # fmt: skip
    assert float((machine.M - slow.M[-1]).norm() / slow.M[-1].norm()) < 1e-8
    assert torch.allclose(machine.predict(X_test), slow.prediction[-1], atol=1e-8)
    assert machine.best_round == 2


def test_power():
    X, Y = anchor()
    slow = oracle.run_rfm(X, Y, X, oracle.Kernel("laplace", 1.0), 1e-2, 2, power=0.5, normalise="max")
    machine = RFM(bandwidth=1.0, ridge=1e-2, rounds=2, power=0.5, offset="none").fit(X, Y)
    assert float((machine.M - slow.M[-1]).norm() / slow.M[-1].norm()) < 1e-7


def product_of_two(n, d=100, seed=0):
    X = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return X, X[:, 0] * X[:, 1]


def test_two_relevant_features_of_a_hundred():
    X, y = product_of_two(2000)
    X_test, y_test = product_of_two(1000, seed=1)
    options = {"ridge": 1e-4, "centering": "output"}

    def r2(machine):
        return float(1 - (machine.predict(X_test) - y_test).square().mean() / y_test.var())

    first, once = (RFM(rounds=rounds, **options).fit(X, y) for rounds in (0, 1))
    machine = RFM(rounds=5, **options).fit(X, y)
    assert 0.02 < r2(first) < 0.2
    assert r2(once) >= 0.80
    assert r2(machine) >= 0.90
    leading = torch.linalg.eigh(machine.M.double()).eigenvectors[:, -2:]
    assert float(torch.linalg.svdvals(leading[:2]).min()) >= 0.97
    consistency = [row["self_consistency"] for row in machine.history[:-1]]
    assert consistency[0] < 0.5 < 0.99 < consistency[-1]


def test_validation_data_choose_the_round_and_classes_are_counted():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(300, 6, generator=generator, dtype=D)
    y = (X[:, 0] > 0).long() + (X[:, 1] > 0.5).long()
    machine = RFM(rounds=3).fit(X[:200], y[:200], X[200:250], y[200:250])
    best = min(machine.history, key=lambda row: row["val_mse"])
    assert machine.best_round == best["round"]
    predicted = machine.predict(X[250:])
    assert predicted.dtype == torch.int64
    assert float((predicted == y[250:]).double().mean()) > 0.8
    assert machine.scores(X[250:]).shape == (50, 3)
    scores = machine.scores(X[200:250])
    targets = torch.nn.functional.one_hot(y[200:250], 3)
    assert float((scores - targets).square().mean()) == pytest.approx(best["val_mse"], rel=1e-9)


def test_a_subset_of_points_for_the_agop_is_seeded():
    X, Y = anchor()
    first, again, other = (
        RFM(bandwidth=1.0, rounds=2, agop_samples=6, seed=seed).fit(X, Y).M for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "laplce"}, "laplace"),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"ridge": -1.0}, "ridge must be"),
        ({"rounds": -1}, "rounds must be"),
        ({"power": 0.0}, "power must be"),
        ({"centering": "mean"}, "centering must be one of"),
        ({"normalization": "l2"}, "normalization must be one of"),
        ({"solver": "lu"}, "solver must be one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(NfaError, match=message):
        RFM(**options)


def test_bad_data():
    X, Y = anchor()
    nan = X.clone()
    nan[0, 0] = torch.nan
    for arguments, message in (
        ((nan, Y), "points have values that are not finite"),
        ((X, Y * torch.nan), "targets have values that are not finite"),
        ((X[:5], Y), "one row a sample each"),
        ((X.long(), Y), "floating dtype"),
        ((X, torch.zeros(12, dtype=torch.long)), "one class only"),
        ((X, Y, X), "both X_val and y_val"),
        ((X, Y, X[:, :2], Y), "with 3 features"),
    ):
        with pytest.raises(NfaError, match=message):
            RFM(rounds=1).fit(*arguments)
    with pytest.raises(NfaError, match="call fit"):
        RFM().predict(X)
    with pytest.raises(NfaError, match="with 3 features"):
        RFM(rounds=0).fit(X, Y).predict(X[:, :2])


def wide(n=30, d=200):
    X = torch.randn(n, d, generator=torch.Generator().manual_seed(2), dtype=D)
    return X, torch.stack([X[:, 0] * X[:, 1], X[:, 2]], 1)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_fewer_points_than_features_need_no_square_matrix(power):
    X, Y = wide()
    options = {"bandwidth": 15.0, "ridge": 1e-2, "power": power}
    machine = RFM(rounds=2, **options).fit(X, Y)
    assert machine.history[0]["agop_route"] == "factored"
    assert machine.predictor.metric.root.shape[1] < 30
    slow = Layer(Radial(bandwidth=15.0), ridge=1e-2)
    M = torch.eye(200, dtype=D)
    for index in range(2):
        fit = slow.fit(Metric.from_matrix(M), X, Y)
        slope = fit.predictor.kernel.function.slope_matrix(fit.predictor.centers, fit.predictor.centers)
        agop = kernel_agop(slope, fit.predictor.centers, fit.predictor.coefficients, route="classes")
        G = fit.predictor.metric.then(agop.root()).dense()
        values, vectors = torch.linalg.eigh(G)
        M = (vectors * values.clamp_min(0) ** power) @ vectors.T
        M /= M.max()
        assert machine.history[index]["rank"] <= 30
    tolerance = 1e-8 if power == 1 else 1e-6  # the root of a rounding error of 1e-16
    assert float((machine.M - M).norm() / M.norm()) < tolerance
    X_test = X[:7] + 0.5
    fitted = slow.fit(Metric.from_matrix(M), X, Y)
    assert torch.allclose(machine.predict(X_test), fitted.predictor(X_test), atol=tolerance)


def test_validation_data_choose_bandwidth_and_ridge():
    X, Y = anchor()
    X_val = X + 0.2
    Y_val = torch.stack([X_val[:, 0] * X_val[:, 1], X_val[:, 2]], 1)
    grid = {(L, ridge) for L in (0.3, 1.0, 3.0) for ridge in (1e-3, 1e-1)}
    alone = {
        pair: RFM(bandwidth=pair[0], ridge=pair[1], rounds=0).fit(X, Y, X_val, Y_val).history[0]["val_mse"]
        for pair in grid
    }
    machine = RFM(bandwidth=[0.3, 1.0, 3.0], ridge=[1e-3, 1e-1], rounds=2).fit(X, Y, X_val, Y_val)
    first = machine.history[0]
    best = min(alone, key=alone.__getitem__)
    assert (first["bandwidth"], first["ridge"]) == best
    assert first["val_mse"] == pytest.approx(alone[best], rel=1e-9)
    assert first["solver"] == "cholesky"
    assert first["residual"] < 1e-10
    with pytest.raises(NfaError, match="needs validation data"):
        RFM(ridge=[0.1, 1.0]).fit(X, Y)


def test_median_bandwidth_follows_the_metric():
    X, Y = anchor()
    machine = RFM(bandwidth="median", rounds=1).fit(X, Y)
    first, second = (row["bandwidth"] for row in machine.history)
    assert first == pytest.approx(median_bandwidth(X))
    assert second == pytest.approx(median_bandwidth(machine.predictor.metric.transform(X)))


def test_patience_ends_the_rounds():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(120, 4, generator=generator, dtype=D)
    y = torch.randn(120, generator=generator, dtype=D)  # nothing to learn: no round is better for long
    machine = RFM(bandwidth=1.0, rounds=20, patience=2).fit(X[:80], y[:80], X[80:], y[80:])
    assert len(machine.history) == machine.best_round + 3 < 21


def test_conjugate_gradients_agree_with_cholesky_and_start_warm():
    X, Y = wide(300, 10)
    options = {"bandwidth": 5.0, "ridge": 1e-2, "rounds": 3}
    direct = RFM(solver="cholesky", **options).fit(X, Y)
    iterated = RFM(solver="cg", **options).fit(X, Y)
    assert {row["solver"] for row in iterated.history} == {"cg"}
    assert float((direct.predict(X) - iterated.predict(X)).norm() / direct.predict(X).norm()) < 1e-3
    assert float((direct.M - iterated.M).norm() / direct.M.norm()) < 1e-2
    cold = iterated.stack[0].fit(iterated.predictor.metric, X, Y).solution
    assert iterated.history[-1]["iterations"] < cold.iterations


def test_too_little_memory_takes_blocks_of_points():
    X, Y = wide(2000, 5)
    machine = RFM(bandwidth=5.0, ridge=1e-2, rounds=1).fit(X, Y)
    small = RFM(bandwidth=5.0, ridge=1e-2, rounds=1, memory=45e6).fit(X, Y)
    assert small.history[0]["solver"] == "cg"
    assert float((machine.M - small.M).norm() / machine.M.norm()) < 1e-2
    with pytest.raises(NfaError, match="GiB"):
        RFM(solver="cholesky", memory=1e5, rounds=0).fit(X, Y)


def test_a_failing_round_keeps_the_one_before(monkeypatch):
    X, Y = anchor()
    first = RFM(bandwidth=1.0, rounds=1).fit(X, Y)

    def broken(self, predictor, index, *arguments):
        if index == 1:
            raise NfaError("the AGOP is not finite")
        return original(self, predictor, index, *arguments)

    original = Agop.__call__
    monkeypatch.setattr(Agop, "__call__", broken)
    with pytest.warns(RoundFailedWarning, match="round 2 failed"):
        machine = RFM(bandwidth=1.0, rounds=3).fit(X, Y)
    assert machine.best_round == 1
    assert torch.equal(machine.M, first.M)
    assert torch.equal(machine.predict(X), first.predict(X))


@pytest.mark.parametrize("rounds", [0, 2])
def test_files_hold_the_machine(tmp_path, rounds):
    X, Y = anchor()
    y = (Y[:, 0] > 0).long()
    machine = RFM("matern", bandwidth=[0.5, 1.0], rounds=rounds, nu=2.5).fit(X, y, X + 0.1, y)
    machine.save(tmp_path / "machine.safetensors")
    again = RFM.load(tmp_path / "machine.safetensors")
    assert torch.equal(again.predict(X), machine.predict(X))
    assert torch.equal(again.scores(X + 1), machine.scores(X + 1))
    assert torch.equal(again.M, machine.M)
    assert again.history == machine.history
    assert again.stack[0].kernel.kernel_options == {"nu": 2.5}
    for content, message in ((b"no tensors", "cannot be read"), (None, "no file")):
        path = tmp_path / "other.safetensors"
        if content is not None:
            path.write_bytes(content)
        else:
            path.unlink()
        with pytest.raises(NfaError, match=message):
            RFM.load(path)


def test_the_network_is_the_machine_and_its_agop_the_next_metric():
    X, Y = wide(60, 8)
    machine = RFM(bandwidth=5.0, rounds=2).fit(X, Y)
    network = machine.network()
    points = torch.cat([X, X[:5] + 0.3])
    assert torch.allclose(network(points), machine.scores(points), rtol=1e-12, atol=1e-12)
    x = (X[:4] + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(network, (x,))
    after, _ = machine.stack[0].update(machine.predictor, 2, Solver())
    G = input_agop(network, [X])
    assert torch.allclose(G / G.max(), after.dense(), atol=1e-12)
    for chunk in (1, 2):
        row = audit(network, [X], chunk=chunk).rows[0]
        pair = FeaturePair(network.feature_map.weight, agop_in_coordinates(machine, X))
        assert row.layer == "feature_map"
        assert row.alignment == pytest.approx(pair.alignment, rel=1e-8)


def agop_in_coordinates(machine, X):
    U = machine.predictor.metric.transform(X)
    slope = machine.predictor.kernel.function.slope_matrix(U, U)
    return kernel_agop(slope, U, machine.predictor.coefficients).dense()


def test_progress_is_told(capsys):
    RFM(bandwidth=1.0, rounds=1).fit(*anchor(), progress=True)
    assert "round 1/1  train_mse" in capsys.readouterr().err


def test_constant_targets_and_features():
    X, _ = anchor()
    X = torch.cat([X, torch.ones(12, 1, dtype=D)], 1)
    machine = RFM(bandwidth=1.0, rounds=2, offset="none").fit(X, torch.ones(12, dtype=D))
    assert torch.allclose(machine.M[3], torch.zeros(4, dtype=D), atol=1e-12)
    assert machine.predict(X).shape == (12,)
    for offset, level in (("none", 0.0), ("mean", 0.0), ("mean", 0.1)):
        with pytest.warns(RoundFailedWarning, match="round 1 failed .the AGOP is zero"):
            flat = RFM(bandwidth=1.0, rounds=2, offset=offset).fit(X, torch.full((12,), level, dtype=D))
        assert torch.equal(flat.predict(X + 0.1), torch.full((12,), level, dtype=D))
        assert torch.equal(flat.M, torch.eye(4, dtype=D))


@pytest.mark.parametrize(("power", "rounds"), [(1.0, 12), (0.5, 30), (0.25, 8)])
def test_at_a_fixed_point_the_fitted_exponent_is_the_power_in_use(power, rounds):
    """``M = G^s`` means ``C ∝ M^(1/s - 1)``: alignment tests the recursion for free."""
    X = torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=D)
    y = X[:, 0] * X[:, 1] + X[:, 2]
    machine = RFM(bandwidth=5.0, rounds=rounds, power=power).fit(X, y)
    consistency = [row["self_consistency"] for row in machine.history[:-1]]
    assert consistency[0] < 0.95 < 0.9999 < consistency[-1]
    row = audit(machine.network(), [X], power=power).rows[0]
    assert row.cosine > 0.9999
    assert row.alpha_fit == pytest.approx(power, abs=0.02)


def test_small_ridges_of_a_grid_in_single_precision_are_those_of_a_direct_solve():
    X = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    y = X[:, 0] * X[:, 1]
    options = {"kernel": "gaussian", "bandwidth": 20.0, "rounds": 0}
    grid = RFM(ridge=[1e-5, 1e-5], **options).fit(X, y, X[:50] + 0.1, y[:50])
    alone = RFM(ridge=1e-5, **options).fit(X, y)
    told = grid.history[0]["train_mse"]
    assert told == pytest.approx(float((grid.predict(X) - y).square().mean()), rel=1e-3)
    assert told == pytest.approx(alone.history[0]["train_mse"], rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_the_training_error_of_contradicting_duplicates_is_told(dtype):
    X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    y = X[:, 0]
    both = torch.cat([X, X]), torch.cat([y, -y])
    for ridge in ([0.0, 1e-9], 0.0):
        with pytest.warns(UserWarning, match=r"duplicates|left out"):
            machine = RFM(ridge=ridge, rounds=0, bandwidth=3.0).fit(*both, X + 0.1, y)
        assert machine.history[0]["train_mse"] == pytest.approx(float(y.square().mean()), rel=0.01)


def test_targets_of_another_shape_are_refused():
    X, Y = anchor()
    for first, second in ((Y, Y[:, 0]), (Y[:, 0], Y), (Y[:, 0], Y[:, :1, None])):
        with pytest.raises(NfaError, match="as in the fit"):
            RFM(rounds=0).fit(X, first, X, second)


def test_a_smooth_kernel_of_small_bandwidth_keeps_its_digits():
    X = torch.randn(200, 20, generator=torch.Generator().manual_seed(1))
    y = X[:, 0] * X[:, 1]

    def second_round(X, y):
        machine = RFM("exponential", bandwidth=0.7, rounds=0, q=2.0).fit(X, y)
        layer = machine.stack[0]
        metric, _ = layer.update(machine.predictor, 0, Solver())
        return layer, layer.fit(metric, X, y[:, None]).predictor.settled()

    (layer, single), (_, double) = second_round(X, y), second_round(X.double(), y.double())
    M = double.metric.dense()
    assert float((single.metric.dense() - M).norm() / M.norm()) < 1e-4
    G = input_agop(KernelNetwork.of(single, (20,)), [X])
    after, _ = layer.update(single, 1, Solver())
    assert float((G / G.max() - after.dense()).norm() / after.dense().norm()) < 1e-4


def test_second_derivatives_are_refused_and_autocast_changes_nothing():
    X, Y = wide(60, 8)
    machine = RFM(bandwidth=5.0, rounds=1).fit(X, Y)
    x = (X[:1] + 0.1).requires_grad_()
    with pytest.raises(NfaError, match="second derivatives"):
        torch.autograd.grad(machine.network()(x).sum(), x, create_graph=True)
    X, Y = X.float(), Y.float()
    plain = RFM(bandwidth=5.0, rounds=2).fit(X, Y)
    with torch.autocast("cpu", torch.bfloat16):
        cast = RFM(bandwidth=5.0, rounds=2).fit(X, Y)
        assert torch.equal(cast.M, plain.M)
        assert torch.equal(cast.predict(X), plain.predict(X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X, Y: RFM(rounds=2.5), "whole number"),
        (lambda X, Y: RFM(agop_samples=2.5), "whole number"),
        (lambda X, Y: RFM(None), "by its name"),
        (lambda X, Y: RFM(refit=True).fit(X, Y), "refit=True adds the validation data"),
        (
            lambda X, Y: RFM().fit(X[:1].repeat(300, 1), torch.arange(300)),
            "numbers are floating",
        ),
        (lambda X, Y: RFM(rounds=0).fit(X, Y).save("/no/such/folder/machine"), "no folder"),
    ],
)
def test_plain_misuse_is_one_sentence(call, message):
    with pytest.raises(NfaError, match=message):
        call(*anchor())


def test_any_seed_will_do():
    X, Y = anchor()
    assert RFM(bandwidth=1.0, rounds=1, agop_samples=5, seed=2**61).fit(X, Y).best_round == 1
