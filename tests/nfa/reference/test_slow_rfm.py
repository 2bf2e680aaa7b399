"""The RFM oracle against a printed anchor, closed forms, finite differences and its own invariances.

Conventions, unless a test's name says otherwise: AGOP is a mean over points and a sum over outputs,
uncentred, power 1, no normalisation; targets are raw numbers.
"""

import math

import numpy as np
import pytest
import torch

from nfa.errors import NfaError
from nfa.reference import collapse as slow_collapse
from nfa.reference import rfm as oracle
from nfa.reference.rfm import Kernel

KERNELS = [
    Kernel("laplace", 1.3),
    Kernel("gaussian", 1.3),
    Kernel("matern12", 1.3),
    Kernel("matern32", 1.3),
    Kernel("matern52", 1.3),
    Kernel("power", 1.3, 0.7),
    Kernel("power", 1.3, 1.4),
    Kernel("power", 1.3, 2.0),
]
SMOOTH = [k for k in KERNELS if not oracle.skips_near_pairs(k)]
LAPLACE = Kernel("laplace", 1.0)


def names(kernel):
    return f"{kernel.name}-{kernel.q}" if kernel.name == "power" else kernel.name


every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=names)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def spd(d, seed):
    B = normal(d, d + 2, seed=seed)
    return B @ B.T / d


def eye(d):
    return torch.eye(d, dtype=torch.float64)


def far(a, b):
    """Relative Frobenius distance."""
    return (torch.linalg.norm(a - b) / torch.linalg.norm(b)).item()


@pytest.fixture
def X():
    return normal(7, 3, seed=0)


@pytest.fixture
def Y():
    return normal(7, 2, seed=1)


@pytest.fixture
def M():
    return spd(3, seed=2)


@pytest.fixture
def new():
    return normal(4, 3, seed=3)


def agop_of(X, Y, kernel, M, ridge=1e-2, **kwargs):
    alpha = oracle.fit(X, Y, kernel, ridge, M)
    return oracle.agop(X, X, alpha, kernel, M, **kwargs)


# --- anchor and closed forms -----------------------------------------------------------------------------


def anchor_data():
    X = torch.tensor(
        [[math.sin(1 + i), math.cos(2 * i), math.sin(i**2 / 2)] for i in range(12)], dtype=torch.float64
    )
    return X, torch.stack([X[:, 0] * X[:, 1], X[:, 2]], 1)


@pytest.mark.parametrize(
    ("centring", "expected"),
    [
        (
            "none",
            [
                [0.035955949844, -0.004357831930, -0.023864691380],
                [-0.004357831930, 0.010408340229, -0.032468360058],
                [-0.023864691380, -0.032468360058, 0.769784783552],
            ],
        ),
        (
            "output",
            [
                [0.095127717840, 0.021764319899, 0.034591807348],
                [0.021764319899, 0.099695811142, -0.013462152642],
                [0.034591807348, -0.013462152642, 0.054868007598],
            ],
        ),
    ],
)
def test_printed_anchor_after_three_rounds_of_the_mean_agop(centring, expected):
    X, Y = anchor_data()
    out = oracle.run_rfm(X, Y, X[:1], LAPLACE, 1e-3, 3, centring=centring)
    assert torch.allclose(out.M[3], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_two_points_on_a_line_have_a_closed_form_laplace_mean_agop():
    X = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    Y = torch.tensor([2.0, -1.0], dtype=torch.float64)
    k, ridge = math.exp(-1), 0.5
    det = (1 + ridge) ** 2 - k**2
    a0, a1 = (2 * (1 + ridge) + k) / det, (-(1 + ridge) - 2 * k) / det
    alpha = oracle.fit(X, Y, LAPLACE, ridge, eye(1))
    assert torch.allclose(alpha, torch.tensor([[a0], [a1]], dtype=torch.float64), atol=1e-14)
    # the slope at each point is the pull of the other one alone
    assert oracle.predictor_gradient(X[0], X, alpha, LAPLACE, eye(1)).item() == pytest.approx(a1 * k)
    assert oracle.predictor_gradient(X[1], X, alpha, LAPLACE, eye(1)).item() == pytest.approx(-a0 * k)
    assert oracle.agop(X, X, alpha, LAPLACE, eye(1)).item() == pytest.approx((a0**2 + a1**2) * k**2 / 2)


@every_kernel
def test_kernel_values_on_mapped_points_against_scikit_learn(kernel, X, M):
    from sklearn.gaussian_process.kernels import RBF, Matern
    from sklearn.metrics import pairwise_distances

    Z = (X @ oracle.matrix_power(M, 0.5)).numpy()
    L, q = kernel.L, kernel.q
    expected = {
        "laplace": Matern(L, nu=0.5),
        "gaussian": RBF(L),
        "matern12": Matern(L, nu=0.5),
        "matern32": Matern(L, nu=1.5),
        "matern52": Matern(L, nu=2.5),
        "power": lambda Z: np.exp(-((pairwise_distances(Z) / L) ** q)),
    }[kernel.name](Z)
    assert far(oracle.kernel_matrix(kernel, X, X, M), torch.from_numpy(expected)) < 1e-13


def test_ridge_is_not_scaled_by_the_number_of_points(X, Y, M):
    alpha = oracle.fit(X, Y, LAPLACE, 0.3, M)
    residual = Y - oracle.predict(X, X, alpha, LAPLACE, M)
    assert far(residual, 0.3 * alpha) < 1e-12


# --- gradients -------------------------------------------------------------------------------------------


@every_kernel
def test_predictor_gradient_by_central_differences_away_from_the_centers(kernel, X, Y, M, new):
    alpha = oracle.fit(X, Y, kernel, 1e-2, M)
    for x in new:
        exact = oracle.predictor_gradient(x, X, alpha, kernel, M)
        assert far(oracle.difference_gradient(x, X, alpha, kernel, M), exact) < 2e-8


@pytest.mark.parametrize("kernel", SMOOTH, ids=names)
def test_smooth_kernels_need_no_skip_at_a_center(kernel, X, Y, M):
    alpha = oracle.fit(X, Y, kernel, 1e-2, M)
    exact = oracle.predictor_gradient(X[0], X, alpha, kernel, M)
    assert far(oracle.difference_gradient(X[0], X, alpha, kernel, M), exact) < 2e-8


def test_skip_rule_at_a_center_is_the_predictor_without_that_center(X, Y, M):
    alpha = oracle.fit(X, Y, LAPLACE, 1e-2, M)
    at_center = oracle.predictor_gradient(X[0], X, alpha, LAPLACE, M)
    without = oracle.predictor_gradient(X[0], X[1:], alpha[1:], LAPLACE, M)
    assert torch.equal(at_center, without)
    # the self term is even about its center, so symmetric differences drop it too
    assert far(oracle.difference_gradient(X[0], X, alpha, LAPLACE, M), at_center) < 2e-8


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k not in SMOOTH], ids=names)
def test_pairs_under_the_threshold_are_skipped_and_pairs_above_it_are_not(kernel):
    x = torch.zeros(2, dtype=torch.float64)
    step = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert torch.equal(oracle.kernel_gradient(kernel, x, x, eye(2)), x)
    assert torch.equal(oracle.kernel_gradient(kernel, x, 0.9e-10 * step, eye(2)), x)
    assert oracle.kernel_gradient(kernel, x, 1.1e-10 * step, eye(2))[0] > 0


@every_kernel
def test_gradient_at_distance_zero_between_distinct_points_is_zero(kernel):
    flat = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    x, z = torch.tensor([[0.0, 1.0], [0.0, 5.0]], dtype=torch.float64)
    assert oracle.kernel_value(kernel, x, z, flat) == 1
    assert not oracle.kernel_gradient(kernel, x, z, flat).any()


@pytest.mark.parametrize(
    ("kernel", "same"),
    [
        (Kernel("power", 0.8, 1.0), Kernel("laplace", 0.8)),
        (Kernel("matern12", 0.8), Kernel("laplace", 0.8)),
        (Kernel("power", 0.8, 2.0), Kernel("gaussian", 0.8 / math.sqrt(2))),
    ],
    ids=["power-1-laplace", "matern12-laplace", "power-2-gaussian"],
)
def test_kernels_that_meet_have_one_agop(kernel, same, X, Y, M):
    assert far(agop_of(X, Y, kernel, M), agop_of(X, Y, same, M)) < 1e-12


# --- AGOP and its update ---------------------------------------------------------------------------------


def test_agop_takes_out_the_mean_of_each_output_or_one_pooled_mean(X, Y, M, new):
    alpha = oracle.fit(X, Y, LAPLACE, 1e-2, M)
    G = oracle.gradients(new, X, alpha, LAPLACE, M)
    raw = oracle.agop(new, X, alpha, LAPLACE, M)
    per_output = oracle.agop(new, X, alpha, LAPLACE, M, "output")
    pooled = oracle.agop(new, X, alpha, LAPLACE, M, "pooled")
    m = G.mean(0)
    assert far(per_output, raw - m.T @ m) < 1e-12
    assert far(pooled, raw - 2 * torch.outer(m.mean(0), m.mean(0))) < 1e-12
    assert far(pooled, per_output) > 1e-2


def test_pooled_and_per_output_centring_agree_for_one_output(X, Y, M):
    pooled = agop_of(X, Y[:, 0], LAPLACE, M, centring="pooled")
    assert far(pooled, agop_of(X, Y[:, 0], LAPLACE, M, centring="output")) < 1e-12


@pytest.mark.parametrize("centring", oracle.CENTRINGS)
def test_agop_is_symmetric_psd_and_its_trace_the_mean_square(centring, X, Y, M):
    A = agop_of(X, Y, LAPLACE, M, centring=centring)
    assert torch.equal(A, A.T)
    assert torch.linalg.eigvalsh(A)[0] > -1e-12
    if centring == "none":
        alpha = oracle.fit(X, Y, LAPLACE, 1e-2, M)
        G = oracle.gradients(X, X, alpha, LAPLACE, M)
        assert torch.trace(A).item() == pytest.approx((G**2).sum().item() / len(X))


@pytest.mark.parametrize("s", [0.25, 0.5, 1.0, 2.0])
def test_matrix_power_against_repeated_products(s, M):
    P = oracle.matrix_power(M, s)
    if s < 1:
        assert far(torch.linalg.matrix_power(P, round(1 / s)), M) < 1e-12
    else:
        assert far(P, torch.linalg.matrix_power(M, round(s))) < 1e-12


def test_matrix_power_symmetrises_and_clips_negative_eigenvalues():
    A = torch.tensor([[4.0, 1e-3], [-1e-3, -1e-18]], dtype=torch.float64)
    assert torch.allclose(
        oracle.matrix_power(A, 0.5), torch.diag(torch.tensor([2.0, 0.0]).double()), atol=1e-15
    )


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_normalised_update_is_the_power_over_its_largest_entry_or_trace(power, M):
    P = oracle.matrix_power(M, power)
    top, trace = oracle.update(M, power, "max"), oracle.update(M, power, "trace")
    assert far(top, P / P.diagonal().max()) < 1e-15
    assert torch.trace(trace).item() == pytest.approx(1)
    assert far(trace, P / torch.trace(P)) < 1e-15
    assert torch.equal(oracle.update(M, power), P)


def test_diagonal_update_keeps_the_diagonal_of_the_agop_before_the_power(M):
    assert torch.allclose(oracle.update(M, 0.5, diagonal=True), torch.diag(M.diagonal().sqrt()), atol=1e-15)


# --- rounds ----------------------------------------------------------------------------------------------


def test_rounds_are_the_plain_kernel_then_t_updates_then_a_final_fit(X, Y, new):
    kernel = Kernel("matern32", 1.3)
    out = oracle.run_rfm(X, Y, new, kernel, 1e-2, 2, centring="output", power=0.5, normalise="max")
    assert [len(v) for v in (out.M, out.alpha, out.residual, out.prediction)] == [3, 3, 3, 3]
    M = eye(3)
    for t in range(3):
        assert torch.equal(out.M[t], M)
        alpha = oracle.fit(X, Y, kernel, 1e-2, M)
        assert torch.equal(out.alpha[t], alpha)
        assert far(out.residual[t], 1e-2 * alpha) < 1e-9
        assert torch.equal(out.prediction[t], oracle.predict(new, X, alpha, kernel, M))
        M = oracle.update(oracle.agop(X, X, alpha, kernel, M, "output"), 0.5, "max")


def test_zero_rounds_is_kernel_ridge_regression_by_scikit_learn(X, Y, new):
    from sklearn.kernel_ridge import KernelRidge

    model = KernelRidge(alpha=0.1, kernel="rbf", gamma=1 / (2 * 1.3**2)).fit(X.numpy(), Y.numpy())
    out = oracle.run_rfm(X, Y, new, Kernel("gaussian", 1.3), 0.1, 0)
    assert far(out.prediction[0], torch.from_numpy(model.predict(new.numpy()))) < 1e-12


def test_agop_points_may_differ_from_the_centers(X, Y, new):
    out = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 1, points=new)
    assert torch.equal(out.M[1], oracle.update(oracle.agop(new, X, out.alpha[0], LAPLACE, eye(3))))
    assert far(out.M[1], oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 1).M[1]) > 1e-2


def test_diagonal_rounds_keep_m_diagonal(X, Y, new):
    for M in oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 2, diagonal=True, normalise="max").M:
        assert torch.equal(M, torch.diag(M.diagonal()))


def test_rounds_find_the_only_direction_that_matters():
    X = normal(16, 4, seed=10)
    out = oracle.run_rfm(X, X[:, 0] ** 2, X[:2], Kernel("gaussian", 2.0), 1e-3, 3, normalise="trace")
    assert out.M[3][0, 0] > 0.99


# --- equivalences a fast implementation may rely on ------------------------------------------------------


def test_equivalence_one_product_of_the_stacked_gradients_mean_over_points(X, Y, M, new):
    alpha = oracle.fit(X, Y, LAPLACE, 1e-2, M)
    G = oracle.gradients(new, X, alpha, LAPLACE, M).reshape(-1, 3)
    assert far(G.T @ G / len(new), oracle.agop(new, X, alpha, LAPLACE, M)) < 1e-13


@pytest.mark.parametrize("centring", ["none", "output"])
@pytest.mark.parametrize("shape", [(7, 3), (5, 9)], ids=["n>d", "d>n"])
@pytest.mark.parametrize("kernel", [Kernel("laplace", 1.3), Kernel("gaussian", 1.3)], ids=names)
def test_equivalence_dual_form_on_the_gram_matrix(kernel, shape, centring):
    (n, d), L = shape, kernel.L
    X, Y, M = normal(n, d, seed=20), normal(n, 2, seed=21), spd(d, seed=22)
    alpha = oracle.fit(X, Y, kernel, 1e-2, M)
    Kt = oracle.kernel_matrix(kernel, X, X, M)
    if kernel.name == "laplace":
        for i in range(n):
            for j in range(n):
                r = oracle.distance(X[i], X[j], M)
                Kt[i, j] = Kt[i, j] / r if r >= oracle.SKIP_BELOW else 0
    Q = torch.zeros(n, n, dtype=torch.float64)
    for c in range(2):
        Lc = Kt @ torch.diag(alpha[:, c]) - torch.diag(Kt @ alpha[:, c])
        if centring == "output":
            Lc = Lc - Lc.mean(0)
        Q += Lc.T @ Lc
    scale = L**2 if kernel.name == "laplace" else L**4
    dual = M @ X.T @ Q @ X @ M / (n * scale)
    assert far(dual, oracle.agop(X, X, alpha, kernel, M, centring)) < 1e-12


@every_kernel
def test_equivalence_mapped_points_with_the_euclidean_kernel(kernel, X, Y, M):
    R = oracle.matrix_power(M, 0.5)
    K = oracle.kernel_matrix(kernel, X, X, M)
    assert torch.allclose(oracle.kernel_matrix(kernel, X @ R, X @ R, eye(3)), K, atol=1e-13)
    mapped = agop_of(X @ R, Y, kernel, eye(3))
    assert far(R @ mapped @ R, agop_of(X, Y, kernel, M)) < 1e-12


def test_equivalence_square_root_update_maps_points_by_the_fourth_root_per_output(X, Y, new):
    A = agop_of(X, Y, LAPLACE, eye(3), centring="output")
    out = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 1, centring="output", power=0.5)
    R = oracle.matrix_power(A, 0.25)
    mapped = oracle.run_rfm(X @ R, Y, new @ R, LAPLACE, 1e-2, 0)
    assert far(out.prediction[1], mapped.prediction[0]) < 1e-11


def test_equivalence_one_hot_pairs_are_four_look_ups():
    p, M = 4, spd(8, seed=30)
    pairs = [(a, b) for a in range(p) for b in range(p)]
    X = torch.zeros(p * p, 2 * p, dtype=torch.float64)
    for i, (a, b) in enumerate(pairs):
        X[i, a] = X[i, p + b] = 1

    def look_up(x, z):
        (a, b), (u, v) = x, z
        return (M[a, u] + M[a, p + v] + M[p + b, u] + M[p + b, p + v]).item()

    for i, x in enumerate(pairs):
        for j, z in enumerate(pairs):
            assert look_up(x, z) == pytest.approx(torch.dot(X[i], M @ X[j]).item(), abs=1e-13)
            square = look_up(x, x) + look_up(z, z) - 2 * look_up(x, z)
            assert square == pytest.approx(oracle.distance(X[i], X[j], M) ** 2, abs=1e-13)


# --- invariances -----------------------------------------------------------------------------------------


@every_kernel
def test_scaling_m_and_the_squared_bandwidth_alike_changes_nothing_in_one_fit(kernel, X, Y, M):
    wide = Kernel(kernel.name, kernel.L * math.sqrt(5.0), kernel.q)
    assert far(oracle.kernel_matrix(wide, X, X, 5 * M), oracle.kernel_matrix(kernel, X, X, M)) < 1e-14
    assert far(agop_of(X, Y, wide, 5 * M), agop_of(X, Y, kernel, M)) < 1e-12


@pytest.mark.parametrize("normalise", ["none", "trace"])
@pytest.mark.parametrize("centring", oracle.CENTRINGS)
def test_rotating_points_and_m_rotates_every_round(centring, normalise, X, Y, M, new):
    R = torch.linalg.qr(normal(3, 3, seed=40))[0]
    kwargs = {"centring": centring, "normalise": normalise}
    plain = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 2, M=M, **kwargs)
    turned = oracle.run_rfm(X @ R.T, Y, new @ R.T, LAPLACE, 1e-2, 2, M=R @ M @ R.T, **kwargs)
    for t in range(3):
        assert far(turned.M[t], R @ plain.M[t] @ R.T) < 1e-10
        assert far(turned.prediction[t], plain.prediction[t]) < 1e-10


def test_normalising_by_the_largest_entry_is_not_rotation_invariant(X, Y, new):
    R = torch.linalg.qr(normal(3, 3, seed=40))[0]
    plain = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 1, normalise="max").M[1]
    turned = oracle.run_rfm(X @ R.T, Y, new @ R.T, LAPLACE, 1e-2, 1, normalise="max").M[1]
    ratio = (turned / (R @ plain @ R.T)).flatten()
    assert torch.allclose(ratio, ratio[0].expand(9), rtol=1e-8)  # one number, and it is not 1
    assert abs(ratio[0].item() - 1) > 1e-3


@pytest.mark.parametrize("centring", oracle.CENTRINGS)
def test_order_of_samples_and_of_outputs_changes_no_round(centring, X, Y, new):
    order = torch.randperm(7, generator=seeded(41))
    plain = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 2, centring=centring)
    mixed = oracle.run_rfm(X[order], Y[order].flip(1), new, LAPLACE, 1e-2, 2, centring=centring)
    for t in range(3):
        assert far(mixed.M[t], plain.M[t]) < 1e-10
        assert far(mixed.alpha[t], plain.alpha[t][order].flip(1)) < 1e-10
        assert far(mixed.prediction[t], plain.prediction[t].flip(1)) < 1e-10


@pytest.mark.parametrize("centring", ["none", "output"])
def test_duplicated_output_doubles_its_share(centring, X, Y, M):
    one, two = (agop_of(X, Y[:, c], LAPLACE, M, centring=centring) for c in (0, 1))
    both = agop_of(X, Y[:, [0, 1, 1]], LAPLACE, M, centring=centring)
    assert far(both, one + 2 * two) < 1e-13
    weighted = torch.stack([Y[:, 0], math.sqrt(2) * Y[:, 1]], 1)
    assert far(agop_of(X, weighted, LAPLACE, M, centring=centring), both) < 1e-12


@pytest.mark.parametrize("value", [0.0, 3.0], ids=["zero", "constant"])
def test_feature_that_never_varies_gives_a_zero_row_and_column(value, X, Y, new):
    def wider(Z):
        return torch.cat([Z, torch.full((len(Z), 1), value, dtype=torch.float64)], 1)

    plain = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 2)
    wide = oracle.run_rfm(wider(X), Y, wider(new), LAPLACE, 1e-2, 2)
    for t in (1, 2):
        assert not wide.M[t][3].any()
        assert not wide.M[t][:, 3].any()
        assert far(wide.M[t][:3, :3], plain.M[t]) < 1e-12
        assert far(wide.prediction[t], plain.prediction[t]) < 1e-12


@pytest.mark.parametrize("normalise", ["max", "trace"])
def test_normalised_rounds_forget_the_scale_of_the_targets(normalise, X, Y, new):
    plain = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 2, normalise=normalise)
    louder = oracle.run_rfm(X, 7 * Y, new, LAPLACE, 1e-2, 2, normalise=normalise)
    for t in range(3):
        assert far(louder.M[t], plain.M[t]) < 1e-11
        assert far(louder.prediction[t], 7 * plain.prediction[t]) < 1e-11


def test_orthogonal_mix_of_outputs_leaves_the_uncentred_and_per_output_agop(X, Y, M):
    Q = torch.linalg.qr(normal(2, 2, seed=42))[0]
    for centring in ("none", "output"):
        mixed = agop_of(X, Y @ Q, LAPLACE, M, centring=centring)
        assert far(mixed, agop_of(X, Y, LAPLACE, M, centring=centring)) < 1e-12


# --- edge cases ------------------------------------------------------------------------------------------


def test_duplicate_points_with_one_label_share_alpha_under_a_ridge(X, Y, M):
    twice, labels = torch.cat([X, X[:1]]), torch.cat([Y, Y[:1]])
    alpha = oracle.fit(twice, labels, LAPLACE, 1e-2, M)
    assert torch.allclose(alpha[0], alpha[-1], atol=1e-11)
    labels[-1, 0] += 1.0  # labels that differ by 1 set the coefficients 1/ridge apart
    apart = oracle.fit(twice, labels, LAPLACE, 1e-2, M)
    assert (apart[-1, 0] - apart[0, 0]).item() == pytest.approx(100)
    assert torch.isfinite(oracle.agop(twice, twice, apart, LAPLACE, M)).all()


def test_duplicate_points_without_a_ridge_raise():
    X = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError, match="singular"):
        oracle.fit(X, X, LAPLACE, 0.0, eye(3))


def test_rank_deficient_m_equals_the_kernel_on_the_features_it_keeps(X, Y, new):
    M = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    out = oracle.run_rfm(X, Y, new, LAPLACE, 1e-2, 1, M=M)
    kept = oracle.run_rfm(X[:, :2], Y, new[:, :2], LAPLACE, 1e-2, 1, M=M[:2, :2])
    assert not out.M[1][2].any()
    assert far(out.M[1][:2, :2], kept.M[1]) < 1e-13
    assert far(out.prediction[1], kept.prediction[1]) < 1e-12


@every_kernel
@pytest.mark.parametrize("normalise", oracle.NORMALISATIONS)
def test_zero_m_stays_zero_and_finite(normalise, kernel, X, Y, new):
    out = oracle.run_rfm(X, Y, new, kernel, 0.1, 1, M=torch.zeros(3, 3).double(), normalise=normalise)
    assert not out.M[1].any()
    mean = Y.sum(0) / (len(X) + 0.1)  # K = 11^T: one number for everyone
    assert torch.allclose(out.prediction[1], mean.expand(4, 2), atol=1e-12)


def test_one_feature_one_output_and_targets_without_a_column(new):
    X, y = normal(5, 1, seed=50), normal(5, seed=51)
    flat = oracle.run_rfm(X, y, new[:, :1], LAPLACE, 1e-2, 2)
    column = oracle.run_rfm(X, y[:, None], new[:, :1], LAPLACE, 1e-2, 2)
    assert [tuple(v[2].shape) for v in (flat.M, flat.alpha, flat.residual, flat.prediction)] == [
        (1, 1),
        (5, 1),
        (5, 1),
        (4, 1),
    ]
    assert torch.equal(flat.prediction[2], column.prediction[2])


def test_predictions_decay_to_zero_far_from_constant_labels_for_want_of_an_intercept(X):
    out = oracle.run_rfm(X, torch.ones(7).double(), X[:1] + 1e3, LAPLACE, 1e-2, 0)
    assert abs(out.prediction[0].item()) < 1e-12


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Kernel("linear", 1.0), "laplace, gaussian"),
        (lambda: Kernel("laplace", 0.0), "bandwidth"),
        (lambda: Kernel("power", 1.0, 2.5), "exponent"),
        (lambda: oracle.update(eye(2), normalise="norm"), "none, max, trace"),
        (lambda: oracle.agop(eye(2), eye(2), eye(2), LAPLACE, eye(2), "batch"), "none, output, pooled"),
        (lambda: oracle.fit(eye(2).float(), eye(2), LAPLACE, 0.0, eye(2)), "float64"),
        (lambda: slow_collapse.nc1(eye(2), [0, 2]), "every class"),
        (lambda: slow_collapse.nc1(eye(2), [0, 1], divisor="C"), "n, Cn"),
        (lambda: slow_collapse.nc2(torch.ones(4, 2).double(), [0, 0, 1, 1]), "undefined"),
        (lambda: oracle.draw_laplace(2, 3, 1.0, seeded(0), norm=3), "norm 1"),
    ],
)
def test_mistakes_are_named(call, match):
    with pytest.raises(NfaError, match=match):
        call()


# --- Deep RFM --------------------------------------------------------------------------------------------


def blobs(n_each, seed):
    """Three overlapping classes in four dimensions, the last two of them noise."""
    labels = [c for c in range(3) for _ in range(n_each)]
    X = normal(len(labels), 4, seed=seed)
    for i, c in enumerate(labels):
        X[i, 0] += 2 * math.cos(2 * math.pi * c / 3)
        X[i, 1] += 2 * math.sin(2 * math.pi * c / 3)
    return X, labels


def test_relu_features_are_a_seeded_default_linear_layer():
    features = oracle.draw_relu(4, 200, seeded(60))
    assert features.W.abs().max() <= 0.5
    assert features.b.abs().max() <= 0.5
    assert features.W.std().item() == pytest.approx(0.5 / math.sqrt(3), rel=0.05)
    assert torch.equal(features.W, oracle.draw_relu(4, 200, seeded(60)).W)
    X = normal(3, 4, seed=61)
    Phi = oracle.map_features(X, features)
    assert torch.allclose(Phi, torch.relu(X @ features.W.T + features.b), atol=1e-14)


@pytest.mark.parametrize("norm", [1, 2])
def test_cosine_features_average_to_the_laplace_kernel_of_their_norm(norm):
    X = torch.tensor([[0.0, 0.0, 0.0], [0.8, -0.5, 0.3]], dtype=torch.float64)
    Phi = oracle.map_features(X, oracle.draw_laplace(3, 20_000, 0.7, seeded(62), norm=norm))
    expected = math.exp(-0.7 * torch.linalg.vector_norm(X[1], norm).item())
    assert torch.dot(Phi[0], Phi[1]).item() == pytest.approx(expected, abs=0.025)  # 3 standard errors
    assert torch.dot(Phi[0], Phi[0]).item() == pytest.approx(1, abs=0.025)


def test_deep_rfm_layers_are_unit_rows_one_fit_root_and_features_sum_over_max():
    X, labels = blobs(3, seed=63)
    Y, new = oracle.signed_one_hot(labels, 3), normal(2, 4, seed=64)
    assert sorted(Y[0].tolist()) == [-1, -1, 1]
    kernel = Kernel("laplace", 2.0)
    draws = [oracle.draw_relu(4, 12, seeded(65)), oracle.draw_laplace(12, 6, 0.1, seeded(66))]
    out = oracle.deep_rfm(X, Y, new, kernel, draws)
    H, T = X, new
    for layer, features in zip(out, draws, strict=True):
        H, T = torch.nn.functional.normalize(H, dim=1), torch.nn.functional.normalize(T, dim=1)
        assert torch.allclose(layer.X, H, atol=1e-14)
        assert torch.allclose(layer.X_test, T, atol=1e-14)
        one_round = oracle.run_rfm(layer.X, Y, layer.X_test, kernel, 0.0, 1, normalise="max")
        assert torch.equal(layer.M, one_round.M[1])
        assert torch.equal(layer.alpha, one_round.alpha[0])
        assert layer.M.max().item() == pytest.approx(1)
        assert far(layer.root @ layer.root.T, layer.X @ layer.M @ layer.X.T) < 1e-11
        H, T = (oracle.map_features(v, features) for v in (layer.root, layer.root_test))
        assert torch.equal(layer.Phi, H)
        assert torch.equal(layer.Phi_test, T)
    assert [tuple(layer.Phi.shape) for layer in out] == [(9, 12), (9, 6)]
    assert [tuple(layer.Phi_test.shape) for layer in out] == [(2, 12), (2, 6)]


def test_root_of_m_collapses_classes_in_the_convention_of_one_over_n():
    X, labels = blobs(6, seed=67)
    Y = oracle.signed_one_hot(labels, 3)
    (layer,) = oracle.deep_rfm(X, Y, X[:1], Kernel("laplace", 2.0), [oracle.draw_relu(4, 8, seeded(68))])
    assert slow_collapse.nc1(layer.root, labels) < 0.8 * slow_collapse.nc1(layer.X, labels)


def test_zero_rows_stay_zero():
    X = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(oracle.unit_rows(X), torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=torch.float64))


# --- neural collapse -------------------------------------------------------------------------------------


def test_nc1_by_hand_in_both_divisors():
    H = torch.tensor([[1.0], [3.0], [9.0], [11.0], [10.0], [10.0]], dtype=torch.float64)
    labels = [0, 0, 1, 1, 1, 1]  # means 2 and 10, mean of means 6: between 16, within (2 + 2) over n = 6
    assert slow_collapse.nc1(H, labels) == pytest.approx(4 / 6 / 16)
    assert slow_collapse.nc1(H, labels, divisor="Cn") == pytest.approx(4 / 12 / 16)


def test_collapsed_simplex_has_nc1_and_nc2_zero():
    C = 4
    labels = [c for c in range(C) for _ in range(3)]
    corners = eye(C) - 1 / C
    H = 5 * corners[labels] + 2.0  # neither scale nor a common shift matters
    assert slow_collapse.nc1(H, labels) == pytest.approx(0, abs=1e-20)
    assert slow_collapse.nc2(H, labels) == pytest.approx(0, abs=1e-20)


def test_nc2_by_hand_for_three_means_on_a_line():
    H = torch.tensor([[-1.0], [-1.0], [2.0]], dtype=torch.float64)
    # cosines 1, 1, -1 against -1/2 off the diagonal: squares 2 (3/2)^2 + 4 (1/2)^2 over 9 entries
    assert slow_collapse.nc2(H, [0, 1, 2]) == pytest.approx((2 * 2.25 + 4 * 0.25) / 9)


def test_nc1_and_nc2_forget_rotation_scale_shift_and_order():
    X, labels = blobs(4, seed=70)
    R = torch.linalg.qr(normal(4, 4, seed=71))[0]
    order = torch.randperm(12, generator=seeded(72)).tolist()
    H, mixed = (3 * X @ R + 1.5)[order], [labels[i] for i in order]
    assert slow_collapse.nc1(H, mixed) == pytest.approx(slow_collapse.nc1(X, labels))
    assert slow_collapse.nc2(H, mixed) == pytest.approx(slow_collapse.nc2(X, labels))


# --- circulant blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "sign"), [(-1, -1), (1, 1)], ids=["x+y", "x-y"])
def test_circulant_deviation_is_zero_one_way_and_the_share_of_variance_the_other(shift, sign):
    p, h = 7, normal(7, seed=80)
    A = torch.zeros(p, p, dtype=torch.float64)
    for row in range(p):
        for j in range(p):
            A[row, j] = h[(j + sign * row) % p]
    assert slow_collapse.circulant_deviation(A, shift=shift) == pytest.approx(0, abs=1e-28)
    # rolled the wrong way every column runs through all of h (p odd)
    share = 1 - h.mean().item() ** 2 / (h**2).mean().item()
    assert slow_collapse.circulant_deviation(A, shift=-shift) == pytest.approx(share)


def test_circulant_deviation_rolls_row_l_by_minus_l():
    A = normal(5, 5, seed=81)
    B = torch.stack([torch.roll(A[row], -row) for row in range(5)])
    expected = ((B - B.mean(0)) ** 2).sum() / (A**2).sum()
    assert slow_collapse.circulant_deviation(A) == pytest.approx(expected.item())
    assert slow_collapse.circulant_deviation(A) == pytest.approx(slow_collapse.circulant_deviation(3 * A))
