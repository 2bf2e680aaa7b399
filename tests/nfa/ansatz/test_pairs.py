"""Gram-space statistics against dense ones, their invariances, their nulls, and where they are undefined."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nfa import FeaturePair, NfaError, reference
from nfa.ansatz.blockwise import gram
from nfa.ansatz.feature_matrices import effective_rank, weight_cosine
from nfa.ansatz.forms import haar

SHAPES = {  # groups, out, in, rank of C
    "in<out": (1, 9, 5, 9),
    "in>out": (1, 5, 12, 5),
    "square": (1, 7, 7, 7),
    "C rank one": (1, 6, 9, 1),
    "C low rank, in<out": (1, 12, 6, 3),
    "grouped": (3, 4, 6, 4),
    "grouped in<out": (2, 6, 3, 6),
    "depthwise": (8, 1, 9, 1),
    "wide": (1, 4, 2500, 4),
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


def test_blocks_of_columns_do_not_change_a_statistic():
    W, C = make(*SHAPES["wide"])
    N, G, pair = W.mT @ W, W.mT @ C @ W, FeaturePair(W, C)
    assert pair.cosine() == pytest.approx(reference.cosine(N, G), abs=1e-9)
    assert pair.pearson() == pytest.approx(reference.pearson(N, G), abs=1e-9)
    entries = ~torch.eye(2500, dtype=torch.bool)
    dense = torch.corrcoef(torch.stack([N[0][entries], G[0][entries]]))[0, 1]
    assert pair.offdiag() == pytest.approx(float(dense), abs=1e-9)
    D = torch.randn_like(W)
    assert pair.cosine_with(D) == pytest.approx(reference.cosine(D.mT @ D, G), abs=1e-9)
    assert weight_cosine(W, D) == pytest.approx(reference.cosine(N, D.mT @ D), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gram_in_strips_and_blocks_is_the_product(dtype):
    for shape in ((2, 700, 9), (1, 1100, 1100), (1, 3, 2100)):
        A = torch.randn(shape, dtype=dtype)
        S, exact = gram(A, 3.0), A.double() @ A.double().mT / 9
        assert torch.allclose(S, exact, rtol=1e-12, atol=1e-12)


def test_pooled_matrices_are_averages_of_blocks():
    W, C = make(1, 600, 8, 3)
    pair = FeaturePair(W[0], C[0])
    for dense, small in ((pair.nfm(), pair.nfm(4)), (pair.agop(0.5), pair.agop(0.5, 4))):
        assert torch.allclose(dense.unfold(0, 2, 2).unfold(1, 2, 2).mean((-1, -2)), small)


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


# ---- a factor X in the place of C = XXᵀ -------------------------------------------------------------------

FACTORS = {  # groups, out, in, columns
    "one column": (1, 6, 9, 1),
    "few columns": (1, 8, 20, 3),
    "in<out": (1, 12, 6, 3),
    "one less than full": (1, 6, 9, 5),
    "square": (1, 6, 6, 6),
    "more columns than outputs": (1, 5, 9, 11),
    "grouped": (3, 5, 7, 2),
    "grouped in<out": (2, 9, 6, 2),
    "depthwise": (8, 1, 9, 2),
}


def make_factor(groups, out, inputs, columns, seed=0):
    W, _ = make(groups, out, inputs, 1, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    return W, torch.randn(groups, out, columns, generator=generator, dtype=torch.float64)


def statistics(pair, power, parts=(), factors=False):
    """Every number a pair gives, the null's draws included."""
    found = {
        "alignment": pair.alignment,
        "alignment_std": pair.alignment_std,
        "z": pair.z,
        "cosine": pair.cosine(power),
        "pearson": pair.pearson(power),
        "offdiag": pair.offdiag(power),
        "null_isotropic": pair.null_isotropic(power),
        "cosine_with": pair.cosine_with(pair.weight.flip(-1), power),
    }
    alpha, found["alpha_r"] = pair.alpha_fit()
    found["1 / alpha"] = 1 / alpha  # a flat G has an exponent near infinity
    found |= {f"null {i}": float(value) for i, value in enumerate(pair.null_cosines(power, 3))}
    if parts:
        counts = [3, 5, 2, 7][: len(parts)]
        found["jackknife"] = pair.precision(parts, counts, power, factors=factors).cosine
    return found


def exact_statistics(W, X, power):
    """The statistics in the space of inputs by definition: ``G^α`` from singular values of the gradients."""
    N, C = W.mT @ W, X @ X.mT
    V, s, _ = torch.linalg.svd(W.mT @ X, full_matrices=False)
    s = torch.where(s > 1e-10 * s[:, :1], s, 0)
    G = (V * (s ** (2 * power))[:, None]) @ V.mT
    alignment, z = reference.alignment(W, C)
    alpha, alpha_r = reference.alpha_fit(W, C)
    D = W.flip(-1)
    return {
        "alignment": alignment,
        "z": z,
        "1 / alpha": 1 / alpha,
        "alpha_r": alpha_r,
        "cosine": reference.cosine(N, G),
        "pearson": reference.pearson(N, G),
        "offdiag": reference.offdiag_pearson(N, G),
        "cosine_with": reference.cosine(D.mT @ D, G),
    }


@pytest.mark.parametrize("power", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("shape", FACTORS.values(), ids=FACTORS)
def test_factor_gives_what_the_dense_matrices_give(shape, power):
    W, X = make_factor(*shape)
    pair = FeaturePair(W, factor=X)
    found, exact = statistics(pair, power), exact_statistics(W, X, power)
    if shape[0] * min(shape[1:3]) < 3:
        exact |= {"1 / alpha": math.nan, "alpha_r": math.nan}
    assert {name: found[name] for name in exact} == pytest.approx(exact, abs=1e-9, rel=1e-9, nan_ok=True)
    assert torch.allclose(pair.sensitivity, X @ X.mT, rtol=1e-12)
    G = reference.matrix_power(W.mT @ X @ X.mT @ W, power)
    assert float((pair.agop(power) - G).norm() / G.norm()) < 1e-6
    dense = FeaturePair(W, X @ X.mT)
    first = float(dense.agop_spectrum(power)[0])
    assert torch.allclose(pair.agop_spectrum(power), dense.agop_spectrum(power), atol=1e-4 * first)
    assert torch.allclose(pair.agop_spectrum(), dense.agop_spectrum(), rtol=1e-9, atol=1e-12 * first)
    assert torch.equal(pair.nfm_spectrum(), dense.nfm_spectrum())


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 1, 2, 3]),
    out=st.integers(1, 8),
    inputs=st.integers(1, 9),
    columns=st.integers(1, 10),
    deficient=st.booleans(),
    integer=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    scales=st.sampled_from([(1.0, 1.0), (2.0**-66, 2.0**60), (2.0**60, 2.0**-66)]),
)
@example(  # one group of samples has nothing on the range of W
    seed=0, groups=1, out=4, inputs=2, columns=2, deficient=True, integer=True, dtype=torch.float32,
    scales=(1.0, 1.0),
)  # fmt: skip
@example(  # an eigenvalue of rounding, between two and four roundings of the largest
    seed=211, groups=1, out=4, inputs=8, columns=1, deficient=False, integer=False, dtype=torch.float64,
    scales=(1.0, 1.0),
)  # fmt: skip
def test_factor_gives_what_its_product_gives(
    seed, groups, out, inputs, columns, deficient, integer, dtype, scales
):
    W, X = make_factor(groups, out, inputs, columns, seed)
    if integer:  # ties, zeros, equal rows
        W, X = W.round(), X.round()
    if deficient:
        W[:, out // 2 :] = W[:, : out - out // 2].clone()
    X = X.to(dtype)
    C = X.double() @ X.double().mT
    parts = list(X.split((columns + 3) // 4, 2))
    products = [part.double() @ part.double().mT for part in parts]
    pair = FeaturePair(W * scales[0], factor=X * scales[1])
    found = statistics(pair, 1.0, parts, factors=True)
    exact = statistics(FeaturePair(W, C), 1.0, products)
    if deficient or out > inputs:  # eigenvalues that are rounding may draw more columns of the same law
        found, exact = ({name: v for name, v in d.items() if "null " not in name} for d in (found, exact))
    assert found == pytest.approx(exact, abs=1e-9, rel=1e-9, nan_ok=True)


def test_factored_and_dense_null_have_the_same_moments():
    W, X = make_factor(1, 9, 14, 3)
    fast = FeaturePair(W, factor=X).null_cosines(0.5, 400, seed=1)
    slow = reference.haar_null(W, X @ X.mT, 0.5, 400, seed=2)
    error = (fast.var() / 400 + slow.var() / 400).sqrt()
    assert abs(float(fast.mean() - slow.mean())) < 4 * float(error)
    assert float(fast.std() / slow.std()) == pytest.approx(1, abs=0.2)


def test_a_factor_needs_one_decomposition_of_the_size_of_the_weight(monkeypatch):
    W, X = make_factor(1, 60, 90, 6)
    sizes = []

    def counted(original):
        def count_and_call(A, *args, **kwargs):
            sizes.append(min(A.shape[-2:]))
            return original(A, *args, **kwargs)

        return count_and_call

    for name in ("eigh", "eigvalsh", "qr", "svd"):
        monkeypatch.setattr(torch.linalg, name, counted(getattr(torch.linalg, name)))
    pair = FeaturePair(W, factor=X)
    statistics(pair, 0.5, list(X.split(2, 2)), factors=True)
    (
        pair.agop(0.5, 8),
        pair.nfm(8),
        pair.agop_spectrum(1.0),
        pair.nfm_eigenvectors(3),
        pair.agop_eigenvectors(3),
    )
    assert sorted(sizes)[-2:] == [6, 60]


def test_null_of_a_rank_deficient_weight_stays_in_its_range():
    W, X = make_factor(1, 9, 14, 3)
    W[:, 6:] = W[:, :3]
    fast = FeaturePair(W, factor=X).null_cosines(0.5, 400, seed=1)
    slow = reference.haar_null(W, X @ X.mT, 0.5, 400, seed=2)
    error = (fast.var() / 400 + slow.var() / 400).sqrt()
    assert abs(float(fast.mean() - slow.mean())) < 4 * float(error)


def test_first_columns_of_haar_matrices_are_orthonormal_and_isotropic():
    Q = haar(4000, 5, torch.Generator().manual_seed(0), width=2)
    assert torch.allclose(Q.mT @ Q, torch.eye(2, dtype=torch.float64).expand(4000, -1, -1), atol=1e-12)
    assert torch.allclose((Q @ Q.mT).mean(0), 0.4 * torch.eye(5, dtype=torch.float64), atol=0.03)


def test_eigenvectors_from_a_factor():
    for deficient in (False, True):
        W, X = make_factor(1, 7, 12, 3)
        if deficient:
            W[:, 4:] = W[:, :3]
        pair, dense = FeaturePair(W[0], factor=X[0]), FeaturePair(W[0], (X @ X.mT)[0])
        found, exact = pair.agop_eigenvectors(3), dense.agop_eigenvectors(3)
        assert torch.allclose((found * exact).sum(1).abs(), torch.ones(3, dtype=torch.float64))
        assert pair.agop_eigenvectors(9).shape == (3, 12)
        assert torch.equal(pair.nfm_eigenvectors(4), dense.nfm_eigenvectors(4))


def test_factor_that_is_zero_or_outside_the_range_is_undefined():
    W = torch.randn(6, 9, dtype=torch.float64)
    flat = torch.randn(6, 2, dtype=torch.float64) @ torch.randn(2, 9, dtype=torch.float64)
    outside = torch.linalg.svd(flat).U[:, 2:]
    for weight, X in ((W, torch.zeros(6, 2)), (flat, outside[:, :1]), (flat, outside)):
        for pair in (FeaturePair(weight, factor=X), FeaturePair(weight, X @ X.mT)):
            assert isnan(pair.alignment, pair.z, pair.cosine(0.5), pair.pearson(), pair.offdiag())
            assert isnan(*pair.alpha_fit(), *pair.null_cosines(0.5, 2).tolist())
            assert float(pair.agop_spectrum().abs().max()) == 0
    dead = FeaturePair(torch.zeros(4, 6), factor=torch.ones(4, 2))
    assert isnan(dead.alignment, dead.cosine(), dead.pearson(), dead.null_isotropic(), *dead.null_cosines())


def test_isotropic_factor_has_no_alignment():
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    pair = FeaturePair(torch.randn(6, 9, dtype=torch.float64), factor=Q)
    assert pair.cosine() == pytest.approx(pair.null_isotropic())
    assert isnan(pair.alignment, pair.alpha_fit()[1])
    flat = torch.randn(6, 2, dtype=torch.float64) @ torch.randn(2, 9, dtype=torch.float64)
    basis = torch.linalg.svd(flat).U[:, :2]  # isotropic on the range only, with fewer columns than outputs
    assert math.isnan(FeaturePair(flat, factor=basis).alignment)


@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_single_precision_factors_of_any_scale(scale):
    W, X = (A.float() for A in make_factor(1, 8, 20, 3))
    found = statistics(FeaturePair(W / scale, factor=X * scale), 0.5, [X * scale, X[..., :1]], factors=True)
    exact = statistics(FeaturePair(W, factor=X), 0.5, [X, X[..., :1] / scale], factors=True)
    assert found == pytest.approx(exact, abs=1e-5, rel=1e-4)
    assert FeaturePair(W / scale, factor=X * scale).agop() == pytest.approx(
        FeaturePair(W, factor=X).agop(), rel=1e-4, abs=1e-4
    )


def test_jackknife_takes_sums_or_factors_for_either_pair():
    W, X = make_factor(2, 6, 9, 8)
    parts, counts = list(X.split([3, 1, 4], 2)), [4, 1, 6]
    products = [part @ part.mT for part in parts]
    by_sums = FeaturePair(W, X @ X.mT).precision(products, counts, 0.5).cosine
    for pair in (FeaturePair(W, X @ X.mT), FeaturePair(W, factor=X * 7)):
        assert pair.precision(products, counts, 0.5).cosine == pytest.approx(by_sums, rel=1e-9)
        assert pair.precision(parts, counts, 0.5, factors=True).cosine == pytest.approx(by_sums, rel=1e-9)
    N = W.mT @ W
    cosines = []
    for left_out in range(3):
        C = sum(product for j, product in enumerate(products) if j != left_out)
        cosines.append(reference.cosine(N, reference.matrix_power(W.mT @ C @ W, 0.5)))
    h = [11 / count for count in counts]
    whole = reference.cosine(N, reference.matrix_power(W.mT @ X @ X.mT @ W, 0.5))
    mean = 3 * whole - sum((1 - 1 / a) * c for a, c in zip(h, cosines, strict=True))
    terms = [(a * whole - (a - 1) * c - mean) ** 2 / (a - 1) for a, c in zip(h, cosines, strict=True)]
    spread = math.sqrt(sum(terms) / 3) * 4.30 / 1.96  # Student's t of two degrees of freedom
    assert by_sums == pytest.approx(math.hypot(spread, whole - mean), rel=1e-7)


def test_factor_alone_or_sensitivity_alone_and_of_the_right_shape():
    W = torch.randn(3, 4)
    for arguments in ({}, {"sensitivity": torch.eye(3), "factor": torch.eye(3)}):
        with pytest.raises(NfaError, match="either a sensitivity C or a factor X"):
            FeaturePair(W, **arguments)
    with pytest.raises(NfaError, match="needs a factor of shape"):
        FeaturePair(W, factor=torch.ones(4, 2))
    with pytest.raises(NfaError, match="must be a non-empty real"):
        FeaturePair(W, factor=torch.ones(3, 0))
    with pytest.raises(NfaError, match="factor has entries that are not finite"):
        FeaturePair(W, factor=torch.full((3, 2), math.inf))


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
    with pytest.raises(NfaError, match="power must be a positive number"):
        pair.cosine(0)
    with pytest.raises(NfaError, match="expected the shape of the weight"):
        pair.cosine_with(torch.ones(4, 3))


# ---- the rest ---------------------------------------------------------------------------------------------


def test_jackknife_of_equal_replicates_is_zero_and_of_one_is_undefined():
    W, C = make(1, 4, 6, 4)
    pair = FeaturePair(W, C)
    assert pair.precision([C * n for n in (5, 5, 2)], [5, 5, 2], 0.5).cosine == pytest.approx(0, abs=1e-12)
    assert math.isnan(pair.precision([C], [1]).cosine)


def test_weight_cosine_is_the_dense_cosine():
    for shape in ((1, 4, 9), (1, 9, 4), (3, 2, 5)):
        A, B = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
        assert weight_cosine(A, B) == pytest.approx(reference.cosine(A.mT @ A, B.mT @ B), abs=1e-12)


def test_effective_rank():
    assert effective_rank(torch.ones(5)) == pytest.approx(5)
    assert effective_rank(torch.tensor([1e-30, 0, 0])) == pytest.approx(1)
    assert math.isnan(effective_rank(torch.zeros(3)))


@pytest.mark.parametrize("factored", [False, True])
def test_what_is_seen_of_c_from_the_left_singular_vectors_is_on_the_scale_of_both(factored):
    g = torch.Generator().manual_seed(0)
    W = 3 * torch.randn(2, 6, 9, generator=g, dtype=torch.float64)
    X = 5 * torch.randn(2, 6, 4, generator=g, dtype=torch.float64)
    pair = FeaturePair(W, factor=X) if factored else FeaturePair(W, X @ X.mT)
    U, sigma2 = pair.left_vectors, pair.squared_singular_values
    torch.testing.assert_close((U * sigma2[:, None, :]) @ U.mT, W @ W.mT)
    torch.testing.assert_close(pair.sensitivity_inside, U.mT @ X @ X.mT @ U)
