"""The exponent of a layer, its interval, and the best exponent, against their definitions."""

import math

import pytest
import torch

import nfa
from nfa import FeaturePair
from nfa.ansatz.best_exponent import ALPHAS, beyond_chance
from nfa.ansatz.forms import haar
from nfa.reference import alpha_fit

D = torch.float64


def weight(out, inputs, seed=0, groups=1):
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(groups, out, inputs, dtype=D, generator=g)
    return W if groups > 1 else W[0]


def power_of(W, exponent):
    values, U = torch.linalg.eigh(W @ W.mT)
    return (U * values.clamp_min(0) ** exponent) @ U.mT


def noisy_groups(C, groups, samples, seed):
    """Sums over samples of a sensitivity that C is the mean of."""
    g = torch.Generator().manual_seed(seed)
    root = torch.linalg.cholesky(C)
    X = root @ torch.randn(groups, len(C), samples, dtype=D, generator=g)
    return list((X @ X.mT)[:, None])


# ---- the fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 20), (12, 12), (20, 8)])
def test_the_fit_is_that_of_the_reference(shape):
    W = weight(*shape)
    X = torch.randn(shape[0], 3 * shape[0], dtype=D, generator=torch.Generator().manual_seed(1))
    expected = alpha_fit(W[None], (X @ X.T)[None])
    assert FeaturePair(W, X @ X.T).alpha_fit() == pytest.approx(expected, abs=1e-9)


def test_a_tiny_direction_does_not_lead():
    W = weight(12, 30)
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    S[-1] = 1e-5  # by rounding, say, or as an almost dead unit
    W = (U * S) @ V
    C = (U * S.clamp_min(0.1 * S[0]) ** 2) @ U.T  # α = ½ but in that direction
    assert FeaturePair(W, C).alpha_fit()[0] == pytest.approx(0.5, abs=0.05)
    x, y = (2 * S.log()), (U.T @ C @ U).diagonal().log()
    slope = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution[0, 0]
    assert 1 / (1 + float(slope)) > 0.75  # where it counts like any other


@pytest.mark.parametrize("alpha", [0.25, 0.5, 2.0])
def test_an_exact_law_has_its_exponent_with_any_weights(alpha):
    W = weight(16, 16)
    pair = FeaturePair(W, power_of(W, 1 / alpha - 1))
    assert pair.alpha_fit()[0] == pytest.approx(alpha, rel=1e-6)
    assert pair.alpha_fit()[1] == pytest.approx(math.copysign(1, 1 / alpha - 1))


# ---- its interval ------------------------------------------------------------------------------------------


def coverage(layers, groups):
    hits = 0
    for seed in range(layers):
        W = weight(24, 40, seed)
        sums = noisy_groups(power_of(W, 1.0), groups, 12, seed)
        known = FeaturePair(W, sum(sums)[0]).precision(sums, [12] * groups)
        assert known.alpha_low < FeaturePair(W, sum(sums)[0]).alpha_fit()[0] < known.alpha_high
        hits += known.alpha_low <= 0.5 <= known.alpha_high
    return hits / layers


def test_the_interval_holds_the_exponent():
    assert coverage(60, 8) >= 0.85


@pytest.mark.long
@pytest.mark.parametrize("groups", [4, 8, 16])
def test_the_interval_holds_the_exponent_in_nineteen_of_twenty(groups):
    assert 0.9 <= coverage(400, groups) <= 0.99


def test_the_interval_is_a_bootstrap_over_groups():
    W = weight(10, 20)
    sums = noisy_groups(power_of(W, 1.0), 8, 20, 0)
    known = FeaturePair(W, sum(sums)[0]).precision(sums, [20] * 8)
    U = torch.linalg.svd(W, full_matrices=False).U
    g = torch.Generator().manual_seed(5)
    fits = []
    for _ in range(3000):
        C = sum(sums[j][0] for j in torch.randint(8, (8,), generator=g).tolist())
        fits.append(1 / alpha_fit(W[None], (U @ U.T @ C @ U @ U.T)[None])[0])
    fit = 1 / FeaturePair(W, sum(sums)[0]).alpha_fit()[0]
    low, high = torch.tensor(fits).quantile(torch.tensor([0.025, 0.975])).tolist()
    widening = 2.36 / 1.96 * math.sqrt(8 / 7)  # Student's t with 7 degrees of freedom
    expected = [1 / (fit + widening * (end - fit)) for end in (high, low)]
    assert [known.alpha_low, known.alpha_high] == pytest.approx(expected, rel=0.02)


def test_without_groups_it_is_not_known():
    W = weight(6, 9)
    known = FeaturePair(W, W @ W.T).precision([(W @ W.T)[None]], [5])
    assert math.isnan(known.alpha_low)
    assert math.isnan(known.basis)


def test_no_exponent_may_be_the_one():
    """A slope that may be -1: C ∝ (WWᵀ)⁻¹, so that G is flat."""
    W = weight(12, 30)
    sums = noisy_groups(power_of(W, -1.0), 8, 3, 0)
    known = FeaturePair(W, sum(sums)[0]).precision(sums, [3] * 8)
    assert math.isinf(known.alpha_high)
    assert known.alpha_low > 0


# ---- the best exponent -------------------------------------------------------------------------------------


def best_by_definition(W, C):
    U, S, _ = torch.linalg.svd(W, full_matrices=False)
    eye = torch.eye(len(S), dtype=D)
    c = U.T @ C @ U
    c = c - c.trace() / len(S) * eye
    found = []
    for k in [*range(-24, 0), *range(1, 25)]:
        s = torch.diag((S / S[0]) ** (2 * (1 / 2 ** (k / 8) - 1)))
        s = s - s.trace() / len(S) * eye
        found.append(float((c * s).sum() / (c.norm() * s.norm())))
    return max(found)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (30, 40)])
def test_the_best_is_the_best(shape):
    W = weight(*shape)
    X = torch.randn(shape[0], shape[0], dtype=D, generator=torch.Generator().manual_seed(1))
    C = X @ X.T
    assert len(ALPHAS) == 48
    assert FeaturePair(W, C).best_alignment == pytest.approx(best_by_definition(W, C), abs=1e-8)
    assert FeaturePair(W, factor=X[:, :2]).best_alignment == pytest.approx(
        best_by_definition(W, X[:, :2] @ X[:, :2].T), abs=1e-8
    )


@pytest.mark.parametrize("k", [-12, -8, 8, 20])
def test_it_is_one_where_the_ansatz_holds_with_one_of_them(k):
    W = weight(10, 30)
    pair = FeaturePair(W, power_of(W, 1 / 2 ** (k / 8) - 1))
    assert pair.best_alignment == pytest.approx(1)
    assert beyond_chance(pair.best_alignment, pair.best_alignments(200)) > 4


def test_its_null_is_the_best_of_rotations():
    W = weight(8, 20)
    X = torch.randn(8, 3, dtype=D, generator=torch.Generator().manual_seed(1))
    C = X @ X.T
    null = FeaturePair(W, C).best_alignments(2000)
    rotations = haar(400, 8, torch.Generator().manual_seed(2))
    direct = torch.tensor([best_by_definition(W, Q @ C @ Q.T) for Q in rotations])
    assert float(null.mean()) == pytest.approx(float(direct.mean()), abs=4 * float(direct.std()) / 20)
    assert float(null.std()) == pytest.approx(float(direct.std()), rel=0.2)


def test_wide_layers_draw_diagonals_that_are_as_rotations_leave_them():
    W, X = weight(80, 100), weight(80, 160, 1)
    null = FeaturePair(W, X @ X.T).best_alignments(1000)
    rotations = haar(100, 80, torch.Generator().manual_seed(2))
    direct = torch.tensor([FeaturePair(W, Q @ X @ X.T @ Q.T).best_alignment for Q in rotations])
    assert float(null.mean()) == pytest.approx(float(direct.mean()), abs=5 * float(direct.std()) / 10)
    assert float(null.std()) == pytest.approx(float(direct.std()), rel=0.35)


def test_of_a_depthwise_layer_values_are_dealt_out_anew():
    W = weight(1, 9, groups=40)
    c = torch.rand(40, dtype=D, generator=torch.Generator().manual_seed(3))
    null = FeaturePair(W, c[:, None, None]).best_alignments(1000)
    orders = [torch.randperm(40, generator=torch.Generator().manual_seed(i)) for i in range(200)]
    direct = torch.tensor([FeaturePair(W, c[o][:, None, None]).best_alignment for o in orders])
    assert float(null.mean()) == pytest.approx(float(direct.mean()), abs=5 * float(direct.std()) / 14)


def test_where_it_says_nothing_it_is_undefined():
    eye = torch.eye(5, dtype=D)
    assert math.isnan(FeaturePair(weight(5, 8), eye).best_alignment)
    assert math.isnan(FeaturePair(eye, weight(5, 8) @ weight(5, 8).T).best_alignment)
    assert len(FeaturePair(eye, weight(5, 8) @ weight(5, 8).T).best_alignments(10)) == 0
    assert math.isnan(beyond_chance(0.5, torch.zeros(0)))


# ---- in every mode -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [{}, {"probes": 4}, {"tolerance": 0.5}, {"nulls": 0}])
def test_every_mode_fills_the_columns(mode):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(12, 16),
        torch.nn.Tanh(),
        torch.nn.Linear(16, 10),
        torch.nn.Tanh(),
        torch.nn.Linear(10, 3),
    )
    report = nfa.audit(net, list(torch.randn(8, 16, 12)), **mode)
    for row in report.rows[:2]:
        assert row.alpha_low < row.alpha_high
        assert row.basis_stderr > 0
        assert 0 < row.best_alignment <= 1
        assert row.best_alignment >= row.alignment - 1e-9
        assert math.isnan(row.best_z) == ("nulls" in mode)
    assert math.isnan(report.rows[2].alpha_low)  # trivial


def test_c_nfc_has_a_null_of_units():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 30), torch.nn.Tanh()
    )
    net.append(torch.nn.Linear(30, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for weight in net.parameters():
        weight.data += 0.3 * torch.randn_like(weight)
    report = nfa.audit(net, list(torch.randn(4, 16, 12)), initial_state=before, nulls=64)
    first, wide = report["0"], report["2"]
    C, change = report.pair("0").sensitivity[0], (net[0].weight.detach() - before["0.weight"]).double()
    N = change.T @ change
    g = torch.Generator().manual_seed(3)
    found = []
    for _ in range(300):
        order = torch.randperm(8, generator=g)
        G = change.T @ C[order][:, order] @ change
        found.append(float((N * G).sum() / (N.norm() * G.norm())))
    null = torch.tensor(found)
    assert first.cnfc_null == pytest.approx(float(null.mean()), abs=5 * float(null.std()) / 8)
    assert first.cnfc_null_std == pytest.approx(float(null.std()), rel=0.4)
    W = net[0].weight.detach().double()
    G = W.T @ C @ W
    assert first.uc_nfc == pytest.approx(float((W.T @ W * G).sum() / ((W.T @ W).norm() * G.norm())), abs=1e-6)
    assert math.isnan(wide.cnfc_null)  # 30 outputs: measured in the range of two weights of 8 inputs
    assert math.isfinite(wide.uc_nfc)


def test_equal_singular_values_have_one_place_in_the_fit_whatever_their_vectors():
    generator = torch.Generator().manual_seed(0)
    for turn in range(20):
        r = 6 + turn
        values = torch.tensor([5.0] * 3 + [3.0] * (r - 5) + [1.0] * 2, dtype=torch.float64)
        Q, V = haar(1, r + 2, generator)[0, :, :r], haar(1, r + 4, generator)[0, :, :r]
        X = torch.randn(r + 2, r + 2, dtype=torch.float64, generator=generator)
        C = X @ X.T
        blocks = [range(3), range(3, r - 2), range(r - 2, r)]
        c = Q.T @ C @ Q
        means = [float(c.diagonal()[list(block)].mean()) for block in blocks]
        sizes = torch.tensor([len(block) for block in blocks])
        x = torch.tensor([25.0, 9.0, 1.0], dtype=D).log().repeat_interleave(sizes)
        y = torch.tensor(means, dtype=D).log().repeat_interleave(sizes)
        dx, dy = x - x.mean(), y - y.mean()
        alpha, r_of_fit = FeaturePair(Q @ torch.diag(values) @ V.T, C).alpha_fit()
        assert alpha == pytest.approx(float(1 / (1 + dx @ dy / (dx @ dx))), rel=1e-9)
        assert r_of_fit == pytest.approx(float(dx @ dy / (dx.norm() * dy.norm())), abs=1e-9)
