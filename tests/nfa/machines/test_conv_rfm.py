"""`ConvRFM` against the loop oracle, as a network, in files, and on bad input."""

import warnings
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from nfa import NfaError, agop, audit
from nfa.kernels import Metric
from nfa.kernels.conv import ConvKernel
from nfa.machines.conv_rfm import ConvRFM
from nfa.machines.named import conv_network
from nfa.machines.patch_agop import patch_agop
from nfa.machines.patches import gradients_at, transform_of
from nfa.machines.reached import RoundFailedWarning
from nfa.machines.system import Solver
from nfa.machines.tails import beside, matches
from nfa.machines.update import Agop
from nfa.reference import conv_kernel as loops
from nfa.reference import conv_rfm as oracle

D = torch.float64


def images(n=7, shape=(2, 5, 6), seed=0, classes=3):
    X = torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=D)
    y = torch.arange(n) % classes
    return X + y[:, None, None, None] / 2, y


def far(A, B):
    return float(((A - B).norm() / B.norm()).detach())


def slow_kernel(kernel):
    border = kernel.patch_size // 2 if kernel.padding == "zero" else 0
    return loops.ConvKernel(
        kernel.patch_size, kernel.depth, border, kernel.stride, kind=kernel.kind, head=kernel.head
    )


CASES = {
    "depth 1": ({"patch_size": 3, "depth": 1}, {}),
    "depth 2, even patches": ({"patch_size": 2, "depth": 2}, {}),
    "plain": ({"patch_size": 2, "depth": 2, "power": 2.0}, {"update": "plain"}),
    "padded": ({"patch_size": 3, "depth": 1, "padding": "zero"}, {}),
    "stride": ({"patch_size": 2, "depth": 1, "stride": 2}, {}),
    "nngp": ({"patch_size": 2, "depth": 2, "kind": "nngp"}, {}),
    "pool": ({"patch_size": 2, "depth": 1, "head": "pool", "stride": 2}, {}),
    "some images": ({"patch_size": 2, "depth": 1, "agop_images": 3, "agop_draw": "first"}, {"images": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_rounds_equal_the_oracle(case):
    options, slow_options = CASES[case]
    (X, y), (X_test, _) = images(), images(3, seed=1)
    machine = ConvRFM(ridge=1e-2, rounds=2, **options).fit(X, y)
    Y = torch.eye(3, dtype=D)[y]
    layer = replace(machine.stack[0], offset="none")
    slow = oracle.run_conv_rfm(X, Y, X_test, slow_kernel(layer.kernel.function), 1e-2, 2, **slow_options)
    metric = Metric.identity()
    for index in range(3):
        fit = layer.fit(metric, X, Y)
        assert far(fit.predictor.weight, slow.T[index]) < 1e-8
        assert fit.facts["scale"] == pytest.approx(slow.scale[index], rel=1e-10)
        assert far(fit.solution.coefficients, slow.alpha[index]) < 1e-8
        assert far(fit.predictor(X_test), slow.prediction[index]) < 1e-8
        if index < 2:
            same = torch.arange(len(X))[: slow_options.get("images")]
            assert far(gradients_at(fit.predictor, X[same], same), slow.agop[index]) < 1e-8
            metric, _ = layer.update(fit.predictor, index, Solver())
    assert far(machine.transform, slow.T[-1]) < 1e-8
    assert far(machine.M, slow.T[-1] @ slow.T[-1]) < 1e-8
    assert far(machine.scores(X_test), slow.prediction[-1]) < 1e-8
    assert machine.best_round == 2
    assert float(machine.M.trace()) == pytest.approx(1)


@pytest.mark.parametrize("criterion", ["mse", "accuracy"])
def test_validation_images_choose_ridge_and_round_as_in_the_oracle(criterion):
    (X, y), (X_val, y_val) = images(9, (1, 4, 5)), images(8, (1, 4, 5), seed=2)
    ridges = [1e-4, 1e-1, 10.0]
    machine = ConvRFM(2, 1, ridges, 3, None, criterion=criterion).fit(X, y, X_val, y_val)
    Y, Y_val = (torch.eye(3, dtype=D)[labels] for labels in (y, y_val))
    slow = oracle.run_conv_rfm(
        X, Y, X_val, slow_kernel(machine.stack[0].kernel.function), ridges, 3, X_val=X_val, Y_val=Y_val,
        select=criterion,
    )  # fmt: skip
    assert [row["ridge"] for row in machine.history] == slow.ridge
    assert machine.best_round == slow.best
    assert far(machine.scores(X_val), slow.prediction[slow.best]) < 1e-8
    if criterion == "mse":
        assert [row["val_mse"] for row in machine.history] == pytest.approx([-max(s) for s in slow.val_score])
        assert all(row["solver"] == "cholesky" for row in machine.history)
    with pytest.raises(NfaError, match="needs validation data"):
        ConvRFM(2, 1, ridges).fit(X, y)


def test_the_ridge_is_relative_to_the_largest_kernel_value():
    (X, y), (X_test, _) = images(), images(3, seed=1)
    machine = ConvRFM(2, 2, 1e-1, 0).fit(X, y)
    K = machine.stack[0].kernel.function.matrix(X)
    a = torch.linalg.solve(K + 0.1 * K.max() * torch.eye(7, dtype=D), torch.eye(3, dtype=D)[y])
    assert far(machine.scores(X_test), machine.stack[0].kernel.function.matrix(X_test, X) @ a) < 1e-10
    assert far(machine.scores(X), K @ a) < 1e-10
    assert torch.equal(machine.transform, torch.eye(8, dtype=D))


def test_history_and_solvers():
    X, y = images(12)
    machine = ConvRFM(2, 2, rounds=2).fit(X, y)
    for row in machine.history:
        assert row["solver"] == "cholesky"
        assert row["residual"] < 1e-10
        assert row["train_accuracy"] == 1
        assert all(row[f"{phase}_seconds"] >= 0 for phase in ("kernel", "solve", "predict"))
        train = float((machine.scores(X) - torch.eye(3, dtype=D)[y]).square().mean())
    assert machine.history[-1]["train_mse"] == pytest.approx(train, rel=1e-6)
    assert all(0 < row["self_consistency"] <= 1 and row["rank"] == 8 for row in machine.history[:-1])
    assert all(row["agop_seconds"] > 0 for row in machine.history[:-1])
    again = ConvRFM(2, 2, rounds=2, solver="cg").fit(X, y)
    assert again.history[0]["solver"] == "cg"
    assert far(again.scores(X), machine.scores(X)) < 1e-2


def test_numbers_and_the_seed():
    X, _ = images(9)
    y = X[:, 0, 1, 1] * X[:, 0, 1, 2]
    machine, again, other, first = (
        ConvRFM(2, 1, rounds=1, agop_images=3, seed=seed, agop_draw=draw).fit(X, y)
        for seed, draw in ((0, "random"), (0, "random"), (1, "random"), (5, "first"))
    )
    assert machine.predict(X).shape == (9,)
    assert torch.equal(machine.M, again.M)
    assert not torch.allclose(machine.M, other.M)
    cpu = torch.device("cpu")
    assert torch.equal(first.stack[0].update.points(9, 0, 5, cpu), torch.arange(3))
    drawn = [machine.stack[0].update.points(9, index, 0, cpu).tolist() for index in range(5)]
    assert len({tuple(of) for of in drawn}) > 1
    assert all(len(set(of)) == 3 for of in drawn)


def test_a_local_signal_is_found():
    generator = torch.Generator().manual_seed(0)
    X = 0.5 * torch.randn(280, 2, 14, 14, generator=generator)
    y = torch.arange(280) % 2
    for i in range(1, 280, 2):
        a, b = torch.randint(0, 10, (2,), generator=generator).tolist()
        X[i, 0, a : a + 5, b] += 1
        X[i, 0, a + 2, b : b + 5] += 1
    machine = ConvRFM(5, 1, rounds=1).fit(X[:80], y[:80], X[80:], y[80:])
    accuracies = [row["val_accuracy"] for row in machine.history]
    assert accuracies[1] > accuracies[0] + 0.05
    assert float(machine.M[25:, 25:].trace()) < 0.42  # the channel that is noise alone


def test_patience_and_refit():
    (X, y), validation = images(12), images(6, seed=3)
    machine = ConvRFM(2, 1, rounds=6, patience=1).fit(X, y, *validation)
    assert len(machine.history) <= 7
    assert machine.best_round >= len(machine.history) - 2
    both = ConvRFM(2, 1, rounds=2, refit=True).fit(X, y, *validation)
    assert len(both.predictor.centers) == 18
    X, y = (torch.cat(pair) for pair in zip((X, y), validation, strict=True))
    layer = replace(both.stack[0], offset="none")
    fit = layer.fit(both.predictor.metric, X, torch.eye(3, dtype=D)[y])
    assert far(both.predictor.coefficients, fit.predictor.coefficients) < 1e-10


# --- edge cases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_constant_images_zero_patches_and_equal_backgrounds(dtype):
    X, y = images(6, (1, 5, 6))
    X[:, :, :, :3] = 0  # patches without anything, in all images
    X[:, :, 3:, 3:] = 1  # the same in all images
    X[5] = 2
    X = X.to(dtype)
    machine = ConvRFM(2, 2, 1e-2, 2, None).fit(X, y)
    slow = oracle.run_conv_rfm(
        X.double(),
        torch.eye(3, dtype=D)[y],
        X.double(),
        slow_kernel(machine.stack[0].kernel.function),
        1e-2,
        2,
    )
    assert far(machine.M.double(), slow.T[-1] @ slow.T[-1]) < (1e-6 if dtype == D else 1e-3)
    assert far(machine.scores(X).double(), slow.prediction[-1]) < (1e-6 if dtype == D else 1e-3)
    machine = ConvRFM(2, 2, rounds=2).fit(torch.ones_like(X) * (1 + y[:, None, None, None]), y)
    assert bool(machine.scores(X).isfinite().all())


def test_images_of_zeros_have_no_features():
    X = torch.zeros(4, 1, 4, 4, dtype=D)
    with pytest.warns(RoundFailedWarning, match="round 1 failed .the AGOP is zero"):
        machine = ConvRFM(2, 1, rounds=1).fit(X, torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=D))
    assert torch.equal(machine.transform, torch.eye(4, dtype=D))
    assert torch.equal(machine.predict(X), torch.full((4,), 1.5, dtype=D))


def test_bad_options_and_bad_data():
    for options, message in (
        ({"depth": 0}, "depth must be a whole number of 1 or more"),
        ({"patch_size": 0}, "patch_size must be"),
        ({"ridge": -1.0}, "ridge must be"),
        ({"ridge": []}, "at least one ridge"),
        ({"rounds": -1}, "rounds must be"),
        ({"power": 0.0}, "power must be"),
        ({"agop_images": 0}, "agop_images must be"),
        ({"agop_draw": "last"}, "agop_draw must be one of random, first"),
        ({"criterion": "f1"}, "criterion must be one of"),
        ({"solver": "lu"}, "solver must be one of"),
        ({"head": "mean"}, "head must be one of"),
    ):
        with pytest.raises(NfaError, match=message):
            ConvRFM(**options)
    X, y = images()
    for arguments, message in (
        ((X.flatten(1), y), "reshape flat vectors to images first"),
        ((X.tolist(), y), "expected images as a tensor"),
        ((X * torch.nan, y), "not finite"),
        ((X.long(), y), "float32 or float64"),
        ((X[:5], y), "one row a sample each"),
        ((X[..., :4, :], y), "3 convolutions of 3 pixels need images of at least 7 × 7, got 4 × 6"),
        ((X, y * 0), "one class only"),
        ((X, y, X), "both X_val and y_val"),
        ((X, y, X[:, :1], y), r"images of shape \(2, 5, 6\), as in the fit, got \(1, 5, 6\)"),
    ):
        with pytest.raises(NfaError, match=message):
            ConvRFM(3, 3).fit(*arguments)
    with pytest.raises(NfaError, match="criterion='accuracy' needs labels of classes"):
        ConvRFM(2, 1, criterion="accuracy").fit(X, y.double())
    with pytest.raises(NfaError, match="call fit"):
        ConvRFM().predict(X)
    with pytest.raises(NfaError, match=r"as in the fit"):
        ConvRFM(2, 1, rounds=0).fit(X, y).predict(X[:, :, 1:])
    with pytest.raises(NfaError, match="give fewer images, or raise the memory"):
        ConvRFM(2, 1, memory=1000).fit(X, y)


def test_a_round_that_fails_leaves_the_one_before(monkeypatch):
    X, y = images()
    original = Agop.__call__

    def failing(self, predictor, index, *arguments):
        if index == 1:
            raise NfaError("no second update")
        return original(self, predictor, index, *arguments)

    monkeypatch.setattr(Agop, "__call__", failing)
    with pytest.warns(RoundFailedWarning, match="round 2 failed"):
        machine = ConvRFM(2, 1, rounds=4).fit(X, y)
    assert machine.best_round == 1
    assert len(machine.history) == 2


# --- the machine as a network ----------------------------------------------------------------------------

NETWORKS = {
    "depth 2": {"patch_size": 2, "depth": 2},
    "padded": {"patch_size": 3, "depth": 2, "padding": "zero"},
    "stride": {"patch_size": 2, "depth": 2, "stride": 2},
    "pool": {"patch_size": 2, "depth": 1, "stride": 2, "head": "pool"},
    "nngp, first round": {"patch_size": 2, "depth": 1, "kind": "nngp", "rounds": 0},
}


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize("case", NETWORKS)
def test_the_network_is_the_machine_and_an_audit_measures_its_agop(case, dtype):
    X, y = images(8, (2, 6, 7))
    X[1, :, 4:] = X[0, :, 4:]  # patches that images share
    X = X.to(dtype)
    machine = ConvRFM(**{"rounds": 1} | NETWORKS[case]).fit(X, y)
    network, p = machine.network(), machine.predictor
    tolerance = 1e-10 if dtype == D else 1e-4
    points = torch.cat([X[:3], X[5:6], X[:2] + 0.1])  # two are no centers
    with torch.no_grad():
        assert torch.equal(network(points), machine.scores(points))
    assert far(network(points), machine.scores(points)) < tolerance
    same = torch.tensor([0, 1, 2, 5, -1, -1])
    assert torch.equal(matches(points, X), same)
    own = patch_agop(
        machine.stack[0].kernel.function, points, X, p.coefficients, transform_of(p.metric), same=same
    )
    W = network.feature_map.weight.flatten(1)
    assert far(W.mT @ W, machine.M) < 1e-6
    measured = agop(network, [points])["feature_map"]
    assert far(measured.double(), own) < (1e-8 if dtype == D else 1e-3)
    if dtype == D and machine.stack[0].kernel.function.head == "flatten":
        assert far(agop(network, [points[:1], points[1:]])["feature_map"], own) < 1e-8
        (row,) = audit(network, [points], chunk=2).rows
        assert row.status == ("ok" if machine.stack[0].rounds else row.status)
        assert row.kind == "conv2d"


def test_gradients_of_the_network_are_those_of_its_outputs():
    X, y = images(6, (2, 3, 4))
    network = ConvRFM(2, 2, rounds=1, padding="zero").fit(X, y).network()
    x = (X[:2] + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(network, (x,), atol=1e-6, fast_mode=True)
    maps = network.feature_map(x.detach()).requires_grad_()
    none = torch.tensor([-1, -1])
    assert torch.autograd.gradcheck(lambda u: network.sum(u, none), (maps,), atol=1e-6, fast_mode=True)
    own = torch.nn.functional.conv2d(x, network.feature_map.weight, padding=1)
    assert far(network.feature_map(x), own) < 1e-12


def test_patches_side_by_side():
    X, _ = images(3, (2, 5, 6))
    kernel, apart = ConvKernel(2, 2), ConvKernel(2, 2, stride=2)
    maps = nn.functional.unfold(X, 2).view(3, 8, 4, 5)
    assert far(apart.matrix(beside(maps, 2)), kernel.matrix(X)) < 1e-12


def test_an_unfitted_network_takes_over_fits_and_state_dicts():
    X, y = images()
    network = conv_network(asdict(ConvKernel(2, 2)), (2, 5, 6), 3)
    assert torch.equal(network(X.float()), torch.zeros(7, 3))
    assert network.predictor() is None
    assert torch.equal(network.feature_map.weight.flatten(1), torch.eye(8))
    machine = ConvRFM(2, 2, rounds=1).fit(X, y)
    network.take_over(machine.predictor, 1e-3)
    other = conv_network(asdict(ConvKernel(2, 2)), [2, 5, 6], 3)
    nn.ModuleList([other]).load_state_dict({f"0.{k}": v for k, v in network.state_dict().items()})
    assert float(other.tail.ridge) == 1e-3
    assert torch.equal(other.predictor()(X + 0.1), machine.scores(X + 0.1))
    # the next round from the loaded state is that of the machine
    longer = ConvRFM(2, 2, rounds=2).fit(X, y)
    metric, _ = machine.stack[0].update(other.predictor(), 1, Solver())
    fit = replace(machine.stack[0], offset="none").fit(metric, X, torch.eye(3, dtype=D)[y])
    assert torch.equal(fit.predictor(X), longer.scores(X))
    first = ConvRFM(2, 2, rounds=0).fit(X, y).network()
    assert first.predictor().metric.root is None
    with pytest.raises(NfaError, match="need images of at least"):
        conv_network(asdict(ConvKernel(3, 3)), (1, 5, 5), 2)


@pytest.mark.parametrize("rounds", [0, 2])
def test_files(tmp_path, rounds):
    X, y = images()
    machine = ConvRFM(2, 2, [1e-3, 1e-2], rounds, 5, padding="zero", seed=3).fit(X, y, X + 0.2, y)
    machine.save(tmp_path / "machine.safetensors")
    loaded = ConvRFM.load(tmp_path / "machine.safetensors")
    assert torch.equal(loaded.scores(X + 0.1), machine.scores(X + 0.1))
    assert torch.equal(loaded.predict(X), machine.predict(X))
    assert torch.equal(loaded.M, machine.M)
    assert loaded.history == machine.history
    assert (loaded.best_round, loaded.stack[0].rounds) == (machine.best_round, rounds)
    assert loaded.stack == machine.stack
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(loaded.fit(X, y, X + 0.2, y).M, machine.M)
    with pytest.raises(NfaError, match=r"ConvRFM\.save"):
        ConvRFM.load(tmp_path / "none.safetensors")
