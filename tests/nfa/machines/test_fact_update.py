"""Features by FACT in the place of the AGOP, and sums over predictors of inner products, against loops."""

import pytest
import torch

from nfa import RFM, ConvRFM, DeepRFM, NfaError
from nfa.kernels import Metric
from nfa.machines.inner import InnerProduct
from nfa.machines.layer import Layer
from nfa.machines.predictor import Predictor
from nfa.machines.system import Solver
from nfa.reference import fact as oracle
from nfa.reference import rfm as slow

D = torch.float64


def data(n=12, d=3, outputs=2):
    X = torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=D) + 0.5
    return X, torch.stack([X[:, 0] * X[:, 1], X[:, 2] - X[:, 0].square()], 1)[:, :outputs]


@pytest.mark.parametrize("power", [0.5, 0.25])
@pytest.mark.parametrize("name", ["laplace", "gaussian"])
def test_radial_kernels(name, power):
    X, Y = data()
    wanted = oracle.run_radial(X, Y, slow.Kernel(name, 1.5), 1e-2, 3, power)
    for rounds in (1, 2, 3):
        machine = RFM(kernel=name, bandwidth=1.5, ridge=1e-2, rounds=rounds, learn="fact", offset="none")
        machine = machine if power == 0.5 else RFM(**machine._options() | {"power": power})
        assert torch.allclose(machine.fit(X, Y).M, wanted[rounds], atol=1e-8), rounds


@pytest.mark.parametrize(("name", "degree"), [("linear", 1), ("quadratic", 2)])
@pytest.mark.parametrize("shape", [(12, 3), (5, 8)])
def test_inner_products(name, degree, shape):
    X, Y = data(*shape)
    wanted = oracle.run_inner(X, Y, degree, 1e-2, 2)
    machine = RFM(kernel=name, ridge=1e-2, rounds=2, learn="fact", offset="none").fit(X, Y)
    assert torch.allclose(machine.M, wanted[2], atol=1e-8)


@pytest.mark.parametrize(("name", "degree"), [("linear", 1), ("quadratic", 2)])
@pytest.mark.parametrize("centering", ["none", "output", "pooled"])
@pytest.mark.parametrize("shape", [(12, 3), (5, 8)])
def test_the_agop_of_inner_products(name, degree, centering, shape):
    X, _ = data(*shape)
    a = torch.randn(len(X), 2, generator=torch.Generator().manual_seed(1), dtype=D)
    points = torch.tensor([0, 2, 3])
    gradients = oracle.inner_gradients(X[points], X, a, torch.eye(X.shape[1], dtype=D), degree)
    mean = {"none": 0.0, "output": gradients.mean(0), "pooled": gradients.mean((0, 1))}[centering]
    J = (gradients - mean).flatten(0, 1)
    kernel = InnerProduct(name)
    found = kernel.agop(Predictor(kernel, Metric.identity(), X, a), points, centering, Solver())
    assert torch.allclose(found.dense(), J.mT @ J / 3, atol=1e-12)


@pytest.mark.parametrize("learn", ["agop", "fact"])
@pytest.mark.parametrize("seed", range(3))
def test_a_kernel_of_few_features_goes_on_in_single_precision(seed, learn):
    """Coefficients are large and cancel where there are more points than features, here 15."""
    X = torch.randn(100, 5, generator=torch.Generator().manual_seed(seed))
    y = X[:, 0] * X[:, 1]
    machine = RFM(kernel="quadratic", learn=learn, rounds=4).fit(X, y)
    assert len(machine.history) == 5
    assert set(machine.M.diagonal().topk(2).indices.tolist()) == {0, 1}


def test_weighted_points_count_as_copies():
    X, Y = data()
    counts = torch.tensor([1, 2, 3] * 4)
    options = {"kernel": "gaussian", "bandwidth": 2.0, "ridge": 0.1, "rounds": 2, "learn": "fact"}
    for more in ({}, {"normalization": "none"}, {"kernel": "quadratic", "bandwidth": 10.0}):
        copies = RFM(**options | more).fit(X.repeat_interleave(counts, 0), Y.repeat_interleave(counts, 0))
        weighted = RFM(**options | more).fit(X, Y, sample_weight=counts)
        assert torch.allclose(weighted.M, copies.M, rtol=1e-6, atol=1e-9), more


def test_it_finds_what_the_agop_does_not():
    """A parity of three of twenty signs."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randint(0, 2, (300, 20), generator=generator).double() * 2 - 1
    y = X[:, :3].prod(1)
    options = {"kernel": "gaussian", "bandwidth": 5.0, "rounds": 5, "normalization": "max"}
    share = {}
    for learn, power in (("fact", 0.5), ("agop", 0.5)):
        M = RFM(**options, learn=learn, power=power).fit(X, y).M.diagonal()
        share[learn] = float(M[:3].sum() / M.sum())
    assert share["fact"] > 0.9 > share["agop"]


def test_what_it_is_not_for():
    with pytest.raises(NfaError, match="for kernels of points"):
        ConvRFM(learn="fact")
    with pytest.raises(NfaError, match="no use for centering='output'"):
        RFM(learn="fact", centering="output")
    with pytest.raises(NfaError, match="no use for agop_samples=5"):
        DeepRFM(learn="fact", agop_samples=5)
    assert Layer().update.power == 1.0
    assert RFM(learn="fact").stack[0].update.power == 0.5
    with pytest.raises(NfaError, match="power must be a positive number"):
        RFM(power="half")
