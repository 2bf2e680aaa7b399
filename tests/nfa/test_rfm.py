"""`RFM` against the loop oracle, on a target with two relevant features, and on bad input."""

import pytest
import torch

from nfa import NfaError
from nfa.machines.rfm import RFM
from tests.nfa import rfm_oracle as oracle

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
    machine = RFM(bandwidth=1.0, rounds=3, centering=centering, normalization="none").fit(*anchor())
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
        bandwidth=1.2, ridge=1e-2, rounds=2, centering=centering, normalization=normalization, **options
    ).fit(X, Y)
    assert float((machine.M - slow.M[-1]).norm() / slow.M[-1].norm()) < 1e-8
    assert torch.allclose(machine.predict(X_test), slow.prediction[-1], atol=1e-8)
    assert machine.best_round == 2


def test_power():
    X, Y = anchor()
    slow = oracle.run_rfm(X, Y, X, oracle.Kernel("laplace", 1.0), 1e-2, 2, power=0.5, normalise="max")
    machine = RFM(bandwidth=1.0, ridge=1e-2, rounds=2, power=0.5).fit(X, Y)
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


def test_constant_targets_and_features():
    X, _ = anchor()
    X = torch.cat([X, torch.ones(12, 1, dtype=D)], 1)
    machine = RFM(bandwidth=1.0, rounds=2).fit(X, torch.ones(12, dtype=D))
    assert torch.allclose(machine.M[3], torch.zeros(4, dtype=D), atol=1e-12)
    assert machine.predict(X).shape == (12,)
    zero = RFM(bandwidth=1.0, rounds=2).fit(X, torch.zeros(12, dtype=D))
    assert torch.equal(zero.predict(X), torch.zeros(12, dtype=D))
