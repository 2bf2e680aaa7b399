"""Radial kernels: what every kernel must satisfy, the metric, and distances that keep their digits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa.errors import NfaError
from nfa.kernels import (
    KERNELS,
    Exponential,
    Gaussian,
    KernelOperator,
    Laplace,
    Matern,
    Metric,
    distances,
    kernel_product,
    make_kernel,
    median_bandwidth,
)
from nfa.kernels import operator as operator_module

f32, f64 = torch.float32, torch.float64

CASES = {
    "laplace": lambda L: Laplace(L),
    "gaussian": lambda L: Gaussian(L),
    "matern-1/2": lambda L: Matern(L, nu=0.5),
    "matern-3/2": lambda L: Matern(L, nu=1.5),
    "matern-5/2": lambda L: Matern(L, nu=2.5),
    "exponential-0.6": lambda L: Exponential(L, q=0.6),
    "exponential-1.3": lambda L: Exponential(L, q=1.3),
    "exponential-2": lambda L: Exponential(L, q=2.0),
}
CUSPS = {"laplace", "matern-1/2", "exponential-0.6", "exponential-1.3"}
SLOPES_AT_ZERO = {"gaussian": -1 / 4, "matern-3/2": -3 / 4, "matern-5/2": -5 / 12, "exponential-2": -2 / 4}


def randn(*shape, seed=0, dtype=f64):
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative(A, B):
    return float((A.double() - B.double()).norm() / B.double().norm())


def psd(d, rank=None, seed=1):
    F = randn(d, rank or d, seed=seed)
    return F @ F.T


def loop_distances(X, Z, M=None):
    """Distances from the difference vectors, pair by pair, in float64."""
    X, Z = X.double(), Z.double()
    M = torch.eye(X.shape[1], dtype=f64) if M is None else M.double()
    rows = [[math.sqrt(max(float((x - z) @ M @ (x - z)), 0.0)) for z in Z] for x in X]
    return torch.tensor(rows, dtype=f64)


@pytest.mark.parametrize("name", CASES)
class TestEveryKernel:
    """The conformance suite: a new kernel enters `CASES` and gets all of it."""

    X, Z = randn(11, 12), randn(7, 12, seed=1)

    def make(self, name, bandwidth=2.0):
        return CASES[name](bandwidth)

    def test_agrees_with_the_loop(self, name):
        kernel = self.make(name)
        M = psd(12)
        slow = kernel.value(loop_distances(self.X, self.Z, M))
        assert relative(kernel.matrix(self.X, self.Z, Metric.from_matrix(M)), slow) < 1e-12

    def test_symmetric_with_unit_diagonal(self, name):
        K = self.make(name).matrix(self.X)
        assert torch.equal(K, K.T)
        assert torch.equal(K.diagonal(), torch.ones(11, dtype=f64))
        assert 0 <= float(K.min()) <= float(K.max()) <= 1

    def test_positive_semi_definite(self, name):
        for d in (1, 3, 12):
            values = torch.linalg.eigvalsh(self.make(name).matrix(randn(40, d, seed=2)))
            assert values[0] > -1e-12 * values[-1]

    def test_slope_is_the_gradient(self, name):
        kernel = self.make(name)
        x = self.X[0].clone().requires_grad_()
        for z in self.Z:
            (gradient,) = torch.autograd.grad(kernel.value((x - z).norm()), x)
            r = (x - z).norm().detach()
            assert relative(kernel.slope(r) * (x - z).detach(), gradient) < 1e-12

    def test_gradient_in_the_metric(self, name):
        kernel, M = self.make(name), psd(12)
        metric = Metric.from_matrix(M)
        x, z = self.X[0].clone().requires_grad_(), self.Z[0]
        (gradient,) = torch.autograd.grad(kernel.value(((x - z) @ M @ (x - z)).sqrt()), x)
        slope = kernel.slope_matrix(self.X[:1], self.Z[:1], metric)
        u = metric.transform(self.X[:1]) - metric.transform(self.Z[:1])
        assert relative(metric.pull_back_gradients(slope * u)[0], gradient) < 1e-10

    def test_rule_at_zero(self, name):
        kernel = self.make(name)
        r = torch.tensor([0.0, 0.9e-10, 1.1e-10], dtype=f64)
        slope = kernel.slope(r)
        assert kernel.cusp == (name in CUSPS)
        assert kernel.value(r[:1]) == 1
        if kernel.cusp:
            assert torch.equal(slope[:2], torch.zeros(2, dtype=f64))
            assert slope[2] < 0
        else:
            assert torch.allclose(slope, torch.full_like(slope, SLOPES_AT_ZERO[name]), rtol=1e-9)

    def test_identity_is_no_metric(self, name):
        kernel = self.make(name)
        K = kernel.matrix(self.X, self.Z)
        assert torch.equal(kernel.matrix(self.X, self.Z, Metric.identity()), K)
        assert (
            relative(kernel.matrix(self.X, self.Z, Metric.from_matrix(torch.eye(12, dtype=f64))), K) < 1e-13
        )
        assert relative(kernel.matrix(self.X, self.Z, Metric.diagonal(torch.ones(12, dtype=f64))), K) < 1e-15

    def test_forms_of_the_metric_agree(self, name):
        kernel, values = self.make(name), torch.arange(12, dtype=f64)
        full = kernel.matrix(self.X, self.Z, Metric.from_matrix(values.diag()))
        assert relative(kernel.matrix(self.X, self.Z, Metric.diagonal(values)), full) < 1e-12
        F = randn(12, 3, seed=4)
        low = kernel.matrix(self.X, self.Z, Metric.factored(F))
        assert relative(kernel.matrix(self.X, self.Z, Metric.from_matrix(F @ F.T)), low) < 1e-12

    def test_scale_of_the_metric_is_that_of_the_bandwidth(self, name):
        metric = Metric.from_matrix(psd(12))
        K = self.make(name).matrix(self.X, self.Z, metric)
        scaled = self.make(name, 2.0 * math.sqrt(7.0)).matrix(self.X, self.Z, metric.scaled(7.0))
        assert relative(scaled, K) < 1e-13

    def test_rotation_of_points_and_metric(self, name):
        kernel, M = self.make(name), psd(12)
        Q = torch.linalg.qr(randn(12, 12, seed=5)).Q
        turned = kernel.matrix(self.X @ Q.T, self.Z @ Q.T, Metric.from_matrix(Q @ M @ Q.T))
        assert relative(turned, kernel.matrix(self.X, self.Z, Metric.from_matrix(M))) < 1e-11

    @pytest.mark.parametrize("dtype", [f32, f64])
    def test_dtype_follows_the_points(self, name, dtype):
        kernel, metric = self.make(name), Metric.from_matrix(psd(12))
        X = self.X.to(dtype)
        assert kernel.matrix(X).dtype == kernel.slope_matrix(X, None, metric).dtype == dtype
        assert KernelOperator(kernel, X).columns(torch.tensor([0])).dtype == dtype

    def test_float32_against_float64(self, name):
        kernel = self.make(name, 5.0)
        X, Z = randn(60, 12, seed=6, dtype=f32), randn(50, 12, seed=7, dtype=f32)
        assert relative(kernel.matrix(X, Z), kernel.matrix(X.double(), Z.double())) < 1e-6
        assert relative(kernel.slope_matrix(X, Z), kernel.slope_matrix(X.double(), Z.double())) < 1e-5

    def test_blocks_change_nothing(self, name, monkeypatch):
        kernel = self.make(name)
        V = randn(11, 3, seed=8)
        K, S, rectangle = kernel.matrix(self.X), kernel.slope_matrix(self.X), kernel.matrix(self.X, self.Z)
        for entries in (1, 9, 30):
            monkeypatch.setitem(distances.__globals__["_TILE_ENTRIES"], "cpu", entries)
            assert torch.allclose(kernel.matrix(self.X), K, rtol=1e-13, atol=1e-15)
            assert torch.allclose(kernel.slope_matrix(self.X), S, rtol=1e-12, atol=1e-15)
            assert torch.allclose(kernel.matrix(self.X, self.Z), rectangle, rtol=1e-13, atol=1e-15)
            assert relative(kernel_product(kernel, self.Z, self.X, V), rectangle.T @ V) < 1e-13
            for cache in (0, 400, 1e6):
                operator = KernelOperator(kernel, self.X, 8 * entries, cache_bytes=cache)
                assert relative(operator(V), K @ V) < 1e-13
                assert relative(operator(V), K @ V) < 1e-13  # from the tiles that were kept

    def test_duplicates_are_one_point(self, name):
        kernel = self.make(name)
        X = torch.cat([self.X, self.X[3:5]])
        metric = Metric.from_matrix(psd(12))
        for dtype in (f32, f64):
            K, S = (m(X.to(dtype), None, metric) for m in (kernel.matrix, kernel.slope_matrix))
            assert torch.allclose(K[3], K[11])
            assert K[3, 11] == K[4, 12] == 1
            assert S[3, 11] == S[0, 0]

    def test_overwrites_its_argument(self, name):
        kernel, r = self.make(name), distances(self.X, self.Z)
        for method, pure in ((kernel.value_, kernel.value), (kernel.slope_, kernel.slope)):
            work = r.clone()
            assert method(work) is work
            assert torch.equal(work, pure(r))

    @pytest.mark.parametrize("bandwidth", [0, -1.0, math.inf, math.nan, "10"])
    def test_refuses_a_bandwidth(self, name, bandwidth):
        with pytest.raises(NfaError, match="bandwidth must be a positive finite number"):
            self.make(name, bandwidth)


def test_special_cases_are_the_same_kernel():
    r = torch.linspace(0, 5, 50, dtype=f64)
    for a, b in [
        (Matern(3.0, nu=0.5), Laplace(3.0)),
        (Exponential(3.0, q=1.0), Laplace(3.0)),
        (Exponential(3.0 * math.sqrt(2), q=2.0), Gaussian(3.0)),
    ]:
        assert torch.allclose(a.value(r), b.value(r), rtol=1e-14)
        assert torch.allclose(a.slope(r), b.slope(r), rtol=1e-12)


def test_names():
    assert make_kernel("Laplace", 3.0) == Laplace(3.0)
    assert make_kernel("matern", 3.0, nu=2.5) == Matern(3.0, nu=2.5)
    assert {type(CASES[case](1.0)) for case in CASES} == set(KERNELS.values())
    with pytest.raises(NfaError, match="did you mean 'laplace'"):
        make_kernel("laplacian", 1.0)
    with pytest.raises(NfaError, match="choose from laplace, gaussian"):
        make_kernel("zzz", 1.0)
    with pytest.raises(NfaError, match="takes no options, got 'nu'"):
        make_kernel("laplace", 1.0, nu=0.5)
    with pytest.raises(NfaError, match="takes q, got 'nu'"):
        make_kernel("exponential", 1.0, nu=0.5)
    with pytest.raises(NfaError, match=r"nu must be 0\.5, 1\.5 or 2\.5"):
        make_kernel("matern", 1.0, nu=1.0)
    for q in (0, 2.1, -1):
        with pytest.raises(NfaError, match=r"q must be in \(0, 2\]"):
            make_kernel("exponential", 1.0, q=q)


# ---- distances -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(1, 40),
    shift=st.sampled_from([0.0, 1.0, 1e4]),
    dtype=st.sampled_from([f32, f64]),
    seed=st.integers(0, 10**6),
)
def test_distances_agree_with_differences(n, m, d, shift, dtype, seed):
    X, Z = (randn(n, d, seed=seed) + shift).to(dtype), (randn(m, d, seed=seed + 1) + shift).to(dtype)
    k = min(n, m)
    Z[: k // 2] = X[: k // 2]  # some rows in common
    r, slow = distances(X, Z), loop_distances(X, Z)
    assert torch.allclose(r.double(), slow, rtol=1e-4 if dtype == f32 else 1e-10, atol=0)


@pytest.mark.parametrize("d", [3, 20, 784])
@pytest.mark.parametrize("shift", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("apart", [1e-1, 3e-2, 1e-2, 1e-3])
def test_near_duplicates_in_float32(d, shift, apart):
    X = randn(50, d) + shift
    step = torch.nn.functional.normalize(randn(50, d, seed=1), dim=1)
    X, Z = X.float(), (X + apart * X.norm(dim=1, keepdim=True) * step).float()
    true = (X.double() - Z.double()).norm(dim=1)
    for r in (distances(X, Z).diagonal(), distances(torch.cat([X, Z]))[:50, 50:].diagonal()):
        assert float(((r.double() - true) / true).abs().max()) < 3e-4


@pytest.mark.parametrize("dtype", [f32, f64])
def test_equal_rows_have_distance_zero(dtype):
    for d, scale in ((3072, 5.0), (5, 1e3), (20, 1e-12)):
        X = scale * (randn(30, d) + 3).to(dtype)
        r = distances(X)
        assert torch.equal(r.diagonal(), torch.zeros(30, dtype=dtype))
        assert torch.equal(r, r.T)
        assert torch.equal(distances(X, X.clone()).diagonal(), torch.zeros(30, dtype=dtype))
        assert float(r.fill_diagonal_(1).min()) > 0
    assert not distances(torch.full((4, 20), 7.3, dtype=dtype)).any()


def test_few_directions_among_many():
    """Most pairs lose their digits where one coordinate outweighs the others and points come in clusters."""
    X = randn(300, 20, dtype=f32)
    X[:, 0] = 1e3 * torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(2))
    r, true = distances(X), (X.double()[:, None] - X.double()).norm(dim=2)
    assert torch.allclose(r.double(), true, rtol=1e-4, atol=0)


def test_equal_points_stay_equal_in_the_metric():
    X = randn(203, 20, dtype=f32)[torch.randint(0, 20, (1003,), generator=torch.Generator().manual_seed(0))]
    metric = Metric.from_matrix(psd(20).float())
    r, alike = distances(metric.transform(X), metric.transform(X[:7])), (X[:, None] == X[:7]).all(2)
    assert torch.equal(r == 0, alike)


def test_out_is_written_and_no_gradient_kept():
    X, out = randn(5, 9).requires_grad_(), torch.empty(5, 5, dtype=f64)
    r = distances(X, out=out)
    assert r is out
    assert not r.requires_grad
    with pytest.raises(NfaError, match=r"out must be torch.float64 of shape \(5, 5\)"):
        distances(X, out=torch.empty(5, 4, dtype=f64))


def test_products_keep_their_digits_under_other_settings():
    X = randn(64, 48, dtype=f32)
    K = Laplace(3.0).matrix(X)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(Laplace(3.0).matrix(X), K)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_distances_refuse():
    X = randn(4, 3)
    for bad, message in [
        (X[0], r"non-empty \(n, d\)"),
        (X.half(), "float32 or float64"),
        (X[:0], "non-empty"),
        (X.long(), "float32 or float64, got torch.int64"),
        (1e300 * X, "too large"),
    ]:
        with pytest.raises(NfaError, match=message):
            distances(bad)
    for value in (math.nan, math.inf):
        broken = X.clone()
        broken[2, 1] = value
        with pytest.raises(NfaError, match="rows with values that are not finite"):
            distances(X, broken)
    with pytest.raises(NfaError, match="one width, dtype and device"):
        distances(X, randn(4, 2))
    with pytest.raises(NfaError, match="one width, dtype and device"):
        distances(X, X.float())


# ---- metric ----------------------------------------------------------------------------------------------


def metrics():
    F = randn(9, 2, seed=3)
    return {
        "identity": (Metric.identity(), torch.eye(9, dtype=f64)),
        "diagonal": (Metric.diagonal(torch.arange(9, dtype=f64)), torch.arange(9, dtype=f64).diag()),
        "full": (Metric.from_matrix(psd(9)), psd(9)),
        "factored": (Metric.factored(F), F @ F.T),
        "of low rank": (Metric.from_matrix(F @ F.T), F @ F.T),
        "zero": (Metric.from_matrix(torch.zeros(9, 9, dtype=f64)), torch.zeros(9, 9, dtype=f64)),
    }


@pytest.mark.parametrize("form", metrics())
def test_metric_against_its_matrix(form):
    metric, M = metrics()[form]
    X, Z = randn(6, 9), randn(5, 9, seed=1)
    assert torch.allclose(metric.dense(9).double(), M, rtol=1e-12, atol=1e-12)
    r = distances(metric.transform(X), metric.transform(Z))
    assert torch.allclose(r, loop_distances(X, Z, M), rtol=1e-9, atol=1e-12)
    k = metric.rank or 9
    gradients = randn(4, k, seed=2)
    back = metric.pull_back_gradients(gradients)
    next_metric = metric.then(gradients.T)
    assert torch.allclose(next_metric.dense(), back.T @ back, rtol=1e-11, atol=1e-11)
    with pytest.raises(NfaError, match="width"):
        Metric.diagonal(torch.ones(3)).then(torch.ones(4, 1))


def test_a_metric_of_gradients_is_that_of_the_original_points():
    M, x = psd(9), randn(9)
    root = Metric.from_matrix(M).root
    u = (root @ x).requires_grad_()
    (inner,) = torch.autograd.grad((u**3).sum(), u)
    y = x.clone().requires_grad_()
    (outer,) = torch.autograd.grad(((root @ y) ** 3).sum(), y)
    G = Metric.from_matrix(M).then(inner[:, None]).dense()
    assert relative(G, torch.outer(outer, outer)) < 1e-12


def test_form_follows_the_rank():
    assert Metric.from_matrix(psd(9)).kind == "full"
    assert Metric.from_matrix(torch.arange(9.0)).kind == "diagonal"
    for dtype in (f32, f64):
        low = Metric.from_matrix(psd(40, rank=5).to(dtype))
        assert (low.kind, low.rank, low.in_features, low.root.dtype) == ("factored", 5, 40, dtype)
        assert low.root.is_contiguous()
    assert Metric.from_matrix(psd(40, rank=38)).rank == 40
    assert Metric.from_matrix(torch.zeros(5, 5)).rank == 1
    assert Metric.identity().rank is None
    assert Metric.identity().in_features is None


def test_weak_directions_are_kept():
    values = torch.logspace(0, -9, 10, dtype=f64)
    Q = torch.linalg.qr(randn(10, 10)).Q
    assert relative(Metric.from_matrix(Q * values @ Q.T).dense(), Q * values @ Q.T) < 1e-14
    assert Metric.from_matrix(Q * values @ Q.T).kind == "full"


def test_singular_metrics_give_distance_zero():
    X = randn(5, 4)
    for M in (torch.zeros(4, 4, dtype=f64), torch.zeros(4, dtype=f64)):
        metric = Metric.from_matrix(M)
        assert not distances(metric.transform(X)).any()
        for kernel in (Laplace(1.0), Gaussian(1.0)):
            assert torch.equal(kernel.matrix(X, None, metric), torch.ones(5, 5, dtype=f64))
            assert kernel.slope_matrix(X, None, metric).isfinite().all()
    direction = torch.tensor([1.0, 0, 0, 0], dtype=f64)
    X[1] = X[0] + torch.tensor([0.0, 3, -2, 5], dtype=f64)
    assert distances(Metric.from_matrix(torch.outer(direction, direction)).transform(X))[0, 1] < 1e-15


def test_rounding_of_a_matrix_is_mended():
    M = psd(12, rank=12)
    crooked = M + 1e-3 * torch.triu(randn(12, 12), 1)
    symmetric = (crooked + crooked.T) / 2
    assert relative(Metric.from_matrix(crooked).dense(), symmetric) < 1e-12
    values, vectors = torch.linalg.eigh(M)
    values[0] = -1e-6
    assert float(torch.linalg.eigvalsh(Metric.from_matrix(vectors * values @ vectors.T).dense())[0]) > -1e-12


def test_metric_refuses():
    for bad, message in [
        (randn(3, 4), r"square \(d, d\)"),
        (randn(2, 3, 3), "2 dimensions"),
        (torch.eye(3).long(), "must be a non-empty real"),
        (torch.full((3, 3), math.nan), "not finite"),
        (-torch.eye(3), "positive semi-definite"),
        (torch.tensor([1.0, -0.5]), "positive semi-definite"),
    ]:
        with pytest.raises(NfaError, match=message):
            Metric.from_matrix(bad)
    with pytest.raises(NfaError, match="points of width 3, got 4"):
        Metric.from_matrix(torch.eye(3)).transform(randn(2, 4))
    with pytest.raises(NfaError, match=r"dense\(in_features\)"):
        Metric.identity().dense()
    with pytest.raises(NfaError, match="has no scale"):
        Metric.identity().scaled(2.0)
    with pytest.raises(NfaError, match="factor >= 0"):
        Metric.diagonal(torch.ones(2)).scaled(-1.0)


# ---- bandwidth, operator ---------------------------------------------------------------------------------


def test_median_bandwidth():
    X = randn(30, 4)
    r = loop_distances(X, X)
    pairs = sorted(float(r[i, j]) for i in range(30) for j in range(i))
    median = (pairs[217] + pairs[217]) / 2
    assert len(pairs) == 435
    assert median_bandwidth(X) == pytest.approx(median, rel=1e-12)
    scaled = Metric.diagonal(4 * torch.ones(4, dtype=f64))
    assert median_bandwidth(X, metric=scaled) == pytest.approx(2 * median, rel=1e-12)
    many = randn(3000, 4)
    assert median_bandwidth(many, seed=1) == median_bandwidth(many, seed=1)
    assert median_bandwidth(many, seed=1) != median_bandwidth(many, seed=2)
    assert median_bandwidth(many) == pytest.approx(median_bandwidth(many, samples=3000), rel=0.05)
    mostly_one = torch.cat([torch.zeros(20, 4, dtype=f64), randn(2, 4)])
    assert median_bandwidth(mostly_one) > 0
    for rows in (X[:1], X[:1].repeat(5, 1)):
        with pytest.raises(NfaError, match="rows that differ"):
            median_bandwidth(rows)


def test_operator_evaluates_a_kept_tile_once(monkeypatch):
    calls = []
    pairs = operator_module.Pairs.distances
    monkeypatch.setattr(
        operator_module.Pairs, "distances", lambda *arguments: calls.append(1) or pairs(*arguments)
    )
    X, V = randn(40, 5), randn(40, 2, seed=1)
    operator = KernelOperator(Laplace(2.0), X, 8 * 100)  # tiles of 10 x 10: ten of them above the diagonal
    for cache_bytes, evaluations in ((0, 20), (8 * 400, 16), (8 * 1600, 10)):
        calls.clear()
        cached = operator.with_cache(cache_bytes)
        cached(V)
        cached(V)
        assert len(calls) == evaluations
    with pytest.raises(NfaError, match=r"multiplies \(40, c\)"):
        operator(V[:3])
    assert torch.equal(operator.diagonal(), torch.ones(40, dtype=f64))
    assert torch.equal(operator.columns(torch.tensor([3, 30])), operator.matrix()[:, [3, 30]])
    with pytest.raises(NfaError, match=r"coefficients \(40, c\)"):
        kernel_product(Laplace(1.0), X, X, V[:4])
