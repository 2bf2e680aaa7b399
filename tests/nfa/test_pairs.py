"""Gram-space statistics against dense ones, their invariances, their nulls, and where they are undefined."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import FeaturePair, NfaError, reference
from nfa.pairs import effective_rank, haar, weight_cosine

SHAPES = {  # groups, out, in, rank of C
    "in<out": (1, 9, 5, 9),
    "in>out": (1, 5, 12, 5),
    "square": (1, 7, 7, 7),
    "C rank one": (1, 6, 9, 1),
    "C low rank, in<out": (1, 12, 6, 3),
    "grouped": (3, 4, 6, 4),
    "grouped in<out": (2, 6, 3, 6),
    "depthwise": (8, 1, 9, 1),
    "wide": (1, 4, 5000, 4),
}


def make(groups, out, inputs, rank, seed=0):
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(groups, out, inputs, generator=g, dtype=torch.float64)
    A = torch.randn(groups, out, rank, generator=g, dtype=torch.float64)
    return W, A @ A.mT


def both(W, C, power):
    N = W.mT @ W
    return N, reference.matrix_power(W.mT @ C @ W, power)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.25])
@pytest.mark.parametrize(
    "shape", [s for n, s in SHAPES.items() if n != "wide"], ids=[n for n in SHAPES if n != "wide"]
)
def test_gram_space_equals_dense(shape, power):
    W, C = make(*shape)
    pair, (N, G) = FeaturePair(W, C), both(W, C, power)
    close = {"abs": 1e-8, "rel": 1e-8, "nan_ok": True}
    assert pair.cosine(power) == pytest.approx(reference.cosine(N, G), **close)
    assert pair.pearson(power) == pytest.approx(reference.pearson(N, G), **close)
    assert pair.offdiag(power) == pytest.approx(reference.offdiag_pearson(N, G), **close)
    assert (pair.alignment, pair.z) == pytest.approx(reference.alignment(W, C), **close)
    if int(shape[0] * min(shape[1:3])) >= 3:
        assert pair.alpha_fit() == pytest.approx(reference.alpha_fit(W, C), **close)
    assert torch.allclose(pair.nfm(), N)
    assert float((pair.agop(power) - G).norm() / G.norm()) < 1e-8
    identity = torch.eye(shape[1], dtype=torch.float64).expand(shape[0], -1, -1)
    assert pair.null_isotropic(power) == pytest.approx(reference.cosine(*both(W, identity, power)), **close)
    D = torch.randn_like(W)
    assert pair.cosine_with(D, power) == pytest.approx(reference.cosine(D.mT @ D, G), **close)
    r = min(shape[1:3])
    dense = torch.linalg.eigvalsh(W.mT @ C @ W).flip(-1)[:, :r].flatten().sort(descending=True).values
    assert torch.allclose(pair.agop_spectrum(), dense, atol=1e-10 * float(dense[0]))
    dense = torch.linalg.eigvalsh(N).flip(-1)[:, :r].flatten().sort(descending=True).values
    assert torch.allclose(pair.nfm_spectrum(), dense, atol=1e-10 * float(dense[0]))


def test_blocks_of_columns_do_not_change_the_pearson_correlation():
    W, C = make(*SHAPES["wide"])
    N, G = both(W, C, 1.0)
    assert FeaturePair(W, C).pearson() == pytest.approx(reference.pearson(N, G), abs=1e-9)
    entries = ~torch.eye(5000, dtype=torch.bool)
    dense = torch.corrcoef(torch.stack([N[0][entries], G[0][entries]]))[0, 1]
    assert FeaturePair(W, C).offdiag() == pytest.approx(float(dense), abs=1e-9)


def test_eigenvectors_are_those_of_the_dense_matrices():
    W, C = make(1, 5, 12, 5)
    pair = FeaturePair(W[0], C[0])
    for vectors, matrix in ((pair.nfm_eigenvectors(2), pair.nfm()), (pair.agop_eigenvectors(2), pair.agop())):
        exact = torch.linalg.eigh(matrix).eigenvectors.flip(-1)[:, :2].T
        assert torch.allclose((vectors * exact).sum(1).abs(), torch.ones(2, dtype=torch.float64))


def test_ansatz_that_holds_has_cosine_alignment_and_exponent_of_the_theory():
    W, _ = make(1, 6, 9, 1)
    for alpha in (0.4, 0.5, 0.8):
        C = reference.matrix_power(W @ W.mT, 1 / alpha - 1)
        pair = FeaturePair(W, C)
        assert pair.cosine(alpha) == pytest.approx(1, abs=1e-9)
        assert pair.alpha_fit() == pytest.approx((alpha, 1.0), abs=1e-9)
    assert FeaturePair(W, W @ W.mT).alignment == pytest.approx(1, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    out=st.integers(2, 7),
    inputs=st.integers(2, 9),
    scale=st.sampled_from([1e-30, 1e-8, 1.0, 1e20]),
    power=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_statistics_ignore_scales_and_rotations(seed, out, inputs, scale, power):
    W, C = make(1, out, inputs, out, seed)
    pair = FeaturePair(W, C)
    scaled = FeaturePair(W * scale, C * scale**2)
    generator = torch.Generator().manual_seed(seed)
    Q, R = haar(1, out, generator), haar(1, inputs, generator)
    turned = FeaturePair(Q @ W @ R, Q @ C @ Q.mT)
    for name in ("alignment", "z"):
        assert getattr(scaled, name) == pytest.approx(getattr(pair, name), abs=1e-7, rel=1e-7, nan_ok=True)
        assert getattr(turned, name) == pytest.approx(getattr(pair, name), abs=1e-6, rel=1e-6, nan_ok=True)
    assert scaled.cosine(power) == pytest.approx(pair.cosine(power), abs=1e-9)
    assert turned.cosine(power) == pytest.approx(pair.cosine(power), abs=1e-7)
    assert scaled.pearson(power) == pytest.approx(pair.pearson(power), abs=1e-7, nan_ok=True)
    assert -1 <= pair.alignment <= 1 or math.isnan(pair.alignment)
    assert 0 <= pair.cosine(power) <= 1


# ---- nulls ------------------------------------------------------------------------------------------------


def test_haar_null_has_the_moments_of_the_dense_reference():
    W, C = make(1, 8, 12, 3)
    fast = FeaturePair(W, C).null_cosines(0.5, 300, seed=1)
    slow = reference.haar_null(W, C, 0.5, 300, seed=2)
    error = (fast.var() / 300 + slow.var() / 300).sqrt()
    assert abs(float(fast.mean() - slow.mean())) < 4 * float(error)
    assert float(fast.std() / slow.std()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("shape", ["in>out", "in<out", "depthwise"])
def test_alignment_under_the_null_has_the_closed_form_deviation(shape):
    groups, out, inputs, rank = SHAPES[shape]
    W, C = make(groups, out, inputs, rank)
    generator = torch.Generator().manual_seed(0)
    basis = (
        torch.linalg.qr(W).Q if inputs < out else torch.eye(out, dtype=torch.float64).expand(groups, -1, -1)
    )
    inside = basis.mT @ C @ basis
    values = []
    for _ in range(1500):
        Q = haar(groups, inside.shape[1], generator)
        dealt = inside[torch.randperm(groups, generator=generator)]
        values.append(FeaturePair(basis.mT @ W, Q @ dealt @ Q.mT).alignment)
    values = torch.tensor(values)
    std = FeaturePair(W, C).alignment_std
    assert abs(float(values.mean())) < 4 * std / 1500**0.5
    assert float(values.std()) == pytest.approx(std, rel=0.08)


def test_null_is_seeded_and_leaves_the_global_generator_alone():
    pair = FeaturePair(*make(1, 5, 8, 5))
    state = torch.get_rng_state()
    assert torch.equal(pair.null_cosines(0.5, 5, seed=3), pair.null_cosines(0.5, 5, seed=3))
    assert not torch.equal(pair.null_cosines(0.5, 5, seed=3), pair.null_cosines(0.5, 5, seed=4))
    assert torch.equal(state, torch.get_rng_state())


# ---- undefined, and refused -------------------------------------------------------------------------------


def isnan(*values):
    return all(math.isnan(v) for v in values)


def test_dead_layer_is_undefined():
    pair = FeaturePair(torch.randn(4, 6), torch.zeros(4, 4))
    assert isnan(pair.alignment, pair.z, pair.cosine(0.5), pair.pearson(), pair.offdiag(), *pair.alpha_fit())
    zero = FeaturePair(torch.zeros(4, 6), torch.eye(4))
    assert isnan(zero.alignment, zero.cosine(), zero.pearson(), zero.null_isotropic())


def test_identity_sensitivity_has_cosine_one_and_no_alignment():
    pair = FeaturePair(torch.randn(4, 6), torch.eye(4) * 3)
    assert pair.cosine(1.0) == pytest.approx(1)
    assert isnan(pair.alignment)
    alpha, r = pair.alpha_fit()
    assert alpha == pytest.approx(1)
    assert math.isnan(r)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonal_weight_leaves_nothing_to_align_with(dtype):
    W = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64)).Q[:40].to(dtype)
    pair = FeaturePair(W, torch.diag(torch.rand(40, dtype=torch.float64)))
    assert isnan(pair.alignment, *pair.alpha_fit())


def test_constant_matrices_have_no_pearson_correlation():
    W = torch.ones(3, 5)
    pair = FeaturePair(W, torch.eye(3))
    assert pair.cosine() == pytest.approx(1)
    assert isnan(pair.pearson(), pair.offdiag(), pair.alignment)


def test_spiky_matrix_is_right_or_undefined():
    W = torch.eye(6, dtype=torch.float64)
    W[0, 0] = 1e12
    C = torch.eye(6, dtype=torch.float64)
    C[2, 3] = C[3, 2] = 0.5
    pair = FeaturePair(W, C)
    assert pair.cosine(1.0) == pytest.approx(1)
    assert math.isnan(pair.offdiag())
    N, G = both(W[None], C[None], 1.0)
    assert pair.pearson() == pytest.approx(reference.pearson(N, G), abs=1e-9)


def test_one_dimensional_input():
    pair = FeaturePair(torch.randn(4, 1), torch.eye(4))
    assert pair.cosine(0.5) == pytest.approx(1)
    assert isnan(pair.pearson(), pair.offdiag(), pair.alignment)


@pytest.mark.parametrize(
    ("W", "C", "message"),
    [
        (torch.ones(3, 4), torch.ones(4, 4), "needs a sensitivity of shape"),
        (torch.ones(3), torch.ones(3, 3), "must be a non-empty real"),
        (torch.ones(0, 4), torch.ones(0, 0), "must be a non-empty real"),
        (torch.ones(3, 4), torch.full((3, 3), math.nan), "not finite"),
        (torch.ones(3, 4, dtype=torch.complex64), torch.ones(3, 3), "must be a non-empty real"),
    ],
)
def test_bad_pairs_are_refused(W, C, message):
    with pytest.raises(NfaError, match=message):
        FeaturePair(W, C)


def test_bad_power_and_wrong_change_are_refused():
    pair = FeaturePair(torch.randn(3, 4), torch.eye(3))
    with pytest.raises(NfaError, match="power must be positive"):
        pair.cosine(0)
    with pytest.raises(NfaError, match="expected the shape of the weight"):
        pair.cosine_with(torch.ones(4, 3))


# ---- the rest ---------------------------------------------------------------------------------------------


def test_jackknife_of_equal_replicates_is_zero_and_of_one_is_undefined():
    W, C = make(1, 4, 6, 4)
    pair = FeaturePair(W, C)
    assert pair.jackknife([C * n for n in (5, 5, 2)], [5, 5, 2], 0.5) == pytest.approx(0, abs=1e-12)
    assert math.isnan(pair.jackknife([C], [1]))


def test_weight_cosine_is_the_dense_cosine():
    for shape in ((1, 4, 9), (1, 9, 4), (3, 2, 5)):
        A, B = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
        assert weight_cosine(A, B) == pytest.approx(reference.cosine(A.mT @ A, B.mT @ B), abs=1e-12)


def test_effective_rank():
    assert effective_rank(torch.ones(5)) == pytest.approx(5)
    assert effective_rank(torch.tensor([1e-30, 0, 0])) == pytest.approx(1)
    assert math.isnan(effective_rank(torch.zeros(3)))
