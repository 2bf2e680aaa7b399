"""Weighted training points: 0 is removal, 2 is twice; and what points are predicted from all others."""

from dataclasses import replace

import pytest
import torch

import nfa
from nfa.errors import NfaError
from nfa.kernels import KernelOperator, Metric, ScaledOperator, make_kernel
from nfa.machines.inner import InnerProduct
from nfa.machines.kernel_agop import blockwise_agop, kernel_agop
from nfa.machines.layer import Layer
from nfa.machines.leave_one_out import leave_one_out
from nfa.machines.radial import Radial
from nfa.machines.system import Solver
from nfa.solvers import solve

COUNTS = torch.tensor([2, 1, 3, 1, 1, 2, 1, 1, 4, 1, 1, 1])


def points(n=12, d=3, c=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=g, dtype=torch.float64)
    return X, torch.stack([X[:, 0] * X[:, 1], X[:, 2].sin() + 3][:c], 1)


OPTIONS = [
    {},
    {"kernel": "gaussian", "bandwidth": 2.0, "centering": "output"},
    {"kernel": "quadratic", "centering": "pooled", "ridge": 0.1},
    {"kernel": "linear", "ridge": 0.1, "rounds": 2},
    {"metric": "diagonal", "power": 0.5},
    {"offset": "none", "normalization": "trace", "solver": "cg"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_weight_of_two_is_twice(options):
    X, y = points()
    options = {"rounds": 3, **options}
    repeated = nfa.RFM(**options).fit(X.repeat_interleave(COUNTS, 0), y.repeat_interleave(COUNTS, 0))
    weighted = nfa.RFM(**options).fit(X, y, sample_weight=COUNTS)
    tol = 1e-3 if options.get("solver") == "cg" else 1e-8
    new, _ = points(seed=1)
    torch.testing.assert_close(weighted.predict(new), repeated.predict(new), rtol=tol, atol=tol)
    torch.testing.assert_close(weighted.M, repeated.M, rtol=10 * tol, atol=10 * tol)


def test_a_weight_of_zero_is_removal_to_the_last_bit():
    X, y = points()
    labels = (y[:, 0] > 0).long()
    labels[3] = 7  # a class of one point, which goes with it
    weights = torch.ones(12)
    weights[3] = 0
    kept = weights > 0
    whole = nfa.RFM(rounds=2).fit(X, labels, sample_weight=weights)
    without = nfa.RFM(rounds=2).fit(X[kept], labels[kept], sample_weight=weights[kept])
    assert whole.classes == without.classes == (0, 1)
    assert torch.equal(whole.scores(X), without.scores(X))
    texts = [str(v) for v in labels.tolist()]
    assert nfa.RFM(rounds=1).fit(X, texts, sample_weight=weights).classes == ("0", "1")


def test_equal_weights_of_one_change_nothing():
    X, y = points()
    plain, ones = nfa.RFM(rounds=2).fit(X, y), nfa.RFM(rounds=2).fit(X, y, sample_weight=torch.ones(12))
    torch.testing.assert_close(plain.predict(X), ones.predict(X), rtol=1e-12, atol=1e-12)


def test_the_system_is_that_of_the_text_book():
    X, y = points()
    w = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.1
    machine = nfa.RFM(rounds=0, offset="none", ridge=0.3).fit(X, y, sample_weight=w)
    K = make_kernel("laplace", 10.0).matrix(X)
    expected = torch.linalg.solve(K + 0.3 * (1 / w).diag(), y)
    torch.testing.assert_close(machine.predictor.coefficients, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("centering", ["none", "output", "pooled"])
@pytest.mark.parametrize("given", [None, [0, 2, 5, 7]])
def test_weighted_gradients_by_every_route(centering, given):
    Z, a = points(d=14, c=2)[0], points()[1]
    at = torch.arange(12) if given is None else torch.tensor(given)
    w = COUNTS[at].double()
    kernel = make_kernel("gaussian", 2.0)
    x = Z[at].clone()
    K = lambda u: kernel.value((u[None] - Z).norm(dim=1)) @ a  # noqa: E731
    J = torch.stack([torch.func.jacrev(K)(u + 1e-30) for u in x])
    mean = (w[:, None, None] * J).sum(0) / w.sum()
    taken = {"none": 0.0, "output": mean, "pooled": mean.mean(0, keepdim=True).expand_as(mean)}[centering]
    expected = torch.einsum("ick,icl,i->kl", J, J, w) / w.sum()
    if centering != "none":
        expected = expected - taken.mT @ taken
    slope = kernel.slope_matrix(x, Z)
    slope[torch.arange(len(at)), at] = 0
    options = {"points": None if given is None else at, "weights": w, "centering": centering}
    for route in ("classes", "dual", "factored"):
        if route == "factored" and centering == "pooled":
            continue
        found = kernel_agop(slope.clone(), Z, a, route=route, **options).dense()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    found = blockwise_agop(kernel, Z, a, rows=5, **options).dense()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_scaled_operator_is_that_of_the_scaled_matrix():
    X, y = points(60)
    D = torch.rand(60, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    operator = ScaledOperator(KernelOperator(make_kernel("laplace", 3.0), X), D)
    K = D[:, None] * make_kernel("laplace", 3.0).matrix(X) * D
    torch.testing.assert_close(operator(y), K @ y)
    torch.testing.assert_close(operator.columns(torch.tensor([3, 5])), K[:, [3, 5]])
    torch.testing.assert_close(operator.diagonal(), K.diagonal())
    for method in ("cholesky", "cg"):
        found = solve(operator, y, 0.1, method=method, tol=1e-10).coefficients
        torch.testing.assert_close(
            found, torch.linalg.solve(K + 0.1 * torch.eye(60), y), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        (torch.ones(3), "sample_weight"),
        (-torch.ones(12), "0 or more"),
        (torch.zeros(12), "above 0"),
        (torch.full((12,), float("nan")), "finite"),
        ([1.0] * 12, "tensor"),
    ],
)
def test_other_weights_are_refused(weights, word):
    X, y = points()
    with pytest.raises(NfaError, match=word):
        nfa.RFM().fit(X, y, sample_weight=weights)


def test_machines_on_images_have_no_weights():
    with pytest.raises(NfaError, match="machines on points"):
        nfa.ConvRFM().fit(torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]), sample_weight=torch.ones(4))


def test_a_deep_machine_weighs_its_points():
    X, y = points()
    options = {"depth": 2, "rounds": 1, "width": 16, "ridge": 0.1}
    repeated = nfa.DeepRFM(**options).fit(X.repeat_interleave(COUNTS, 0), y.repeat_interleave(COUNTS, 0))
    weighted = nfa.DeepRFM(**options).fit(X, y, sample_weight=COUNTS)
    torch.testing.assert_close(weighted.predict(X), repeated.predict(X), rtol=1e-5, atol=1e-5)


# ---- without each point ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", ["mean", "none"])
@pytest.mark.parametrize(
    "kernel", [Radial("laplace", 3.0), InnerProduct("quadratic")], ids=["radial", "inner"]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_a_fit_without_each(offset, kernel, weighted):
    X, Y = points()
    layer = Layer(kernel, ridge=0.2, offset=offset)
    w = COUNTS.double() if weighted else None
    metric = Metric.diagonal(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    fit = layer.fit(metric, X, Y, weights=w)
    found, other = leave_one_out(fit.predictor, Y, [0.2, 1.0])
    for i in range(12):
        less = (COUNTS if weighted else torch.ones(12)).double()
        less[i] -= 1
        kept = less > 0
        # by hand: the center of a radial kernel is nothing that predictions depend on
        own = layer.fit(metric, X[kept], Y[kept], weights=less[kept]).predictor
        torch.testing.assert_close(own(X[i][None])[0], found[i], rtol=1e-7, atol=1e-7)
        own = replace(layer, ridge=1.0).fit(metric, X[kept], Y[kept], weights=less[kept]).predictor
        torch.testing.assert_close(own(X[i][None])[0], other[i], rtol=1e-7, atol=1e-7)


def test_a_ridge_of_nothing_is_raised_to_rounding():
    X, Y = points()
    fit = Layer(ridge=0.0).fit(Metric.identity(), X, Y)
    (found,) = leave_one_out(fit.predictor, Y, [0.0])
    assert found.isfinite().all()


def test_leave_one_out_says_what_it_takes():
    X, Y = points()
    fit = Layer().fit(Metric.identity(), X, Y)
    with pytest.raises(NfaError, match="leave-one-out predictions of 12 points take"):
        leave_one_out(fit.predictor, Y, [0.1], memory=100.0)


def test_a_layer_chooses_by_leaving_one_out():
    X, Y = points(40)
    Y = Y[:, :1] + 2 * torch.randn(40, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    layer = Layer(Radial("laplace", [1.0, 10.0]), ridge=[1e-6, 0.1, 3.0], leave_one_out=True)
    fit = layer.fit(Metric.identity(), X, Y)
    errors = {}
    for bandwidth in (1.0, 10.0):
        plain = Layer(Radial("laplace", bandwidth), ridge=1.0).fit(Metric.identity(), X, Y).predictor
        for ridge, scores in zip((1e-6, 0.1, 3.0), leave_one_out(plain, Y, (1e-6, 0.1, 3.0)), strict=True):
            errors[bandwidth, ridge] = float((scores - Y).square().mean())
    assert (fit.facts["bandwidth"], fit.solution.ridge) == min(errors, key=errors.get)
    with pytest.raises(NfaError, match="validation data"):
        replace(layer, leave_one_out=False).fit(Metric.identity(), X, Y)


def test_by_conjugate_gradients_too():
    X, Y = points(50)
    w = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    dense = Layer(ridge=0.1).fit(Metric.identity(), X, Y, weights=w)
    by_cg = Layer(ridge=0.1, solver=Solver("cg")).fit(Metric.identity(), X, Y, weights=w)
    torch.testing.assert_close(by_cg.train_scores, dense.train_scores, rtol=1e-3, atol=1e-3)


def test_machines_on_images_take_no_weights():
    images, y = torch.randn(6, 1, 4, 4), torch.randn(6)
    with pytest.raises(NfaError, match=r"sample_weight goes with machines on points.*: leave it out"):
        nfa.ConvRFM(patch_size=3, rounds=0).fit(images, y, sample_weight=torch.ones(6))


@pytest.mark.parametrize("options", [{}, {"kernel": "quadratic", "ridge": 0.1}, {"offset": "none"}], ids=str)
def test_refitted_with_validation_data_training_points_keep_their_weights(options):
    X, y = points()
    X_val, y_val = points(n=5, seed=1)
    options = {"rounds": 0, **options}
    refitted = nfa.RFM(**options, refit=True).fit(X, y, X_val, y_val, sample_weight=COUNTS)
    both = (
        torch.cat([X.repeat_interleave(COUNTS, 0), X_val]),
        torch.cat([y.repeat_interleave(COUNTS, 0), y_val]),
    )
    repeated = nfa.RFM(**options).fit(*both)
    new, _ = points(seed=2)
    torch.testing.assert_close(refitted.predict(new), repeated.predict(new), rtol=1e-8, atol=1e-8)
    without = nfa.RFM(**options, refit=True).fit(X, y, X_val, y_val)
    assert not torch.allclose(without.predict(new), repeated.predict(new), rtol=1e-3)
