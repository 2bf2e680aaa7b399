"""How far C is diagonal in the eigenbasis of WWᵀ: against dense formulas, and what chance gives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import FeaturePair, audit
from nfa.ansatz.basis import Spectrum, spread_of
from nfa.ansatz.forms import Dense, LowRank, Spanned, haar
from nfa.ansatz.told import Told

D = torch.float64
SPECTRA = {
    "bulk": lambda r, g: torch.rand(r, generator=g, dtype=D),
    "rank one": lambda r, g: (torch.arange(r) == 0).to(D),
    "heavy": lambda r, g: torch.arange(1, r + 1, dtype=D) ** -1.5,
    "flat half": lambda r, g: (torch.arange(r) < r // 2).to(D),
}
SIZES = {  # of the blocks of equal singular values
    "all apart": lambda r: [1] * r,
    "two alike": lambda r: [2] + [1] * (r - 2),
    "two halves": lambda r: [r // 2, r - r // 2],
}


def dense(sizes, C):
    """D of each C (n, r, r) by its definition, on blocks of these sizes."""
    r = C.shape[-1]
    C = C - C.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(r, dtype=D)
    on = torch.block_diag(*[torch.ones(b, b, dtype=D) for b in sizes])
    return (C.square() * on).sum((1, 2)) / C.square().sum((1, 2))


def spectrum(sizes):
    r = sum(sizes)
    values = torch.cat([torch.full((b,), float(len(sizes) - i), dtype=D) for i, b in enumerate(sizes)])
    return Spectrum.of(values[None], torch.ones(1, r, dtype=torch.bool), 1e-12, 1e-12)


def told(sizes, C):
    return Told.of(C, spectrum(sizes), C.spectrum)


@pytest.mark.parametrize("r", [2, 4, 16, pytest.param(64, marks=pytest.mark.long)])
@pytest.mark.parametrize("values", SPECTRA)
@pytest.mark.parametrize("sizes", SIZES)
def test_chance_is_what_rotations_give(r, values, sizes):
    g, sizes = torch.Generator().manual_seed(r), SIZES[sizes](r)
    if len(sizes) < 2:
        pytest.skip("one block: any basis is one")
    eigenvalues, n = SPECTRA[values](r, g), 10_000 if r < 64 else 4_000
    Q = haar(n, r, g)
    C = (Q * eigenvalues) @ Q.mT
    one = told(sizes, Dense(C[:1])).basis
    mean = 1 - one.room / float(_traceless(C[:1]).square().sum())  # m: room is (1 - m) ‖c'‖²
    shares = (dense(sizes, C) - mean) / (1 - mean)
    assert one.share == pytest.approx(float(shares[0]), abs=1e-12)
    std = math.sqrt(spread_of(spectrum(sizes), told(sizes, Dense(C[:1])).powers)) / one.room
    assert abs(float(shares.mean())) < 4 * std / math.sqrt(n)
    assert float(shares.std()) == pytest.approx(std, rel=0.12 if r == 64 else 0.06)


def _traceless(C):
    return C - C.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(C.shape[-1], dtype=D)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(1, 9), st.sampled_from(list(SIZES)), st.integers(0, 10**6))
def test_all_forms_agree(r, k, sizes, seed):
    g, sizes = torch.Generator().manual_seed(seed), SIZES[sizes](r)
    Y = torch.randn(1, r, k, generator=g, dtype=D)
    B, R = torch.linalg.qr(Y)
    forms = (Dense(Y @ Y.mT), LowRank(Y), Spanned(B, R @ R.mT))
    known = [told(sizes, C) for C in forms]
    found = [(one.basis, spread_of(spectrum(sizes), one.powers)) for one in known]
    expected, spread = found[0]
    for other, other_spread in found[1:]:
        assert other.above == pytest.approx(expected.above, rel=1e-9, abs=1e-9)
        assert other.room == pytest.approx(expected.room, rel=1e-9, abs=1e-9)
        assert other_spread == pytest.approx(spread, rel=1e-7, abs=1e-7)


def pair_of(groups, out, inputs, exponent, seed=0):
    """A weight, and ``C = (WWᵀ)^exponent`` in each group."""
    W = torch.randn(groups, out, inputs, generator=torch.Generator().manual_seed(seed), dtype=D)
    U, s, _ = torch.linalg.svd(W, full_matrices=False)
    return W, (U * s[:, None] ** (2 * exponent)) @ U.mT


@pytest.mark.parametrize("exponent", [-1.0, 0.5, 3.0])
@pytest.mark.parametrize("shape", [(1, 5, 9), (1, 9, 5), (3, 4, 6), (2, 6, 3)])
def test_one_where_the_ansatz_holds_for_any_exponent(shape, exponent):
    pair = FeaturePair(*pair_of(*shape, exponent))
    assert pair.basis == pytest.approx(1.0, abs=1e-9)
    assert pair.basis / pair.basis_std > 2


def test_invariant_to_scales_and_to_turns_of_the_inputs():
    g = torch.Generator().manual_seed(1)
    W, A = torch.randn(7, 11, generator=g, dtype=D), torch.randn(7, 7, generator=g, dtype=D)
    C, Q, P = A @ A.T, haar(1, 11, g)[0], haar(1, 7, g)[0]
    expected = FeaturePair(W, C)
    for other in (
        FeaturePair(1e-20 * W, 1e20 * C), FeaturePair(W @ Q, C), FeaturePair(P @ W, P @ C @ P.T),
        FeaturePair(W, factor=A), FeaturePair(W, C + 5.0 * torch.eye(7, dtype=D)),
    ):  # fmt: skip
        assert other.basis == pytest.approx(expected.basis, abs=1e-9)
        assert other.basis_std == pytest.approx(expected.basis_std, rel=1e-9)


def test_groups_add_up():
    W, _ = pair_of(3, 4, 6, 1.0)
    A = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=D)
    C = A @ A.mT
    C /= C.abs().amax((1, 2), keepdim=True)  # a pair scales C to entries of at most one

    def sums(pair):
        known = pair._told
        return known.basis.above, known.basis.room, spread_of(pair._spectrum, known.powers)

    alone = [sums(FeaturePair(w, c)) for w, c in zip(W, C, strict=True)]
    expected = [sum(values) for values in zip(*alone, strict=True)]
    assert sums(FeaturePair(W, C)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("W", "C"),
    [
        (torch.randn(5, 8, dtype=D), torch.eye(5, dtype=D)),
        (torch.eye(5, dtype=D), torch.diag(torch.arange(5.0, dtype=D))),
        (torch.randn(6, 1, 3, dtype=D), torch.rand(6, 1, 1, dtype=D)),
        (torch.zeros(4, 4, dtype=D), torch.eye(4, dtype=D)),
    ],
    ids=["C isotropic", "W orthogonal", "depthwise", "dead"],
)
def test_undefined(W, C):
    pair = FeaturePair(W, C)
    assert math.isnan(pair.basis)
    assert math.isnan(pair.basis_std)


def test_probes_do_not_bend_it():
    """Noise of few probes brings the share of C as measured nearer to 0; the row has it without."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.Tanh(), torch.nn.Linear(16, 30)).double()
    U = torch.linalg.svd(net[0].weight.data)[0]
    V = torch.linalg.svd(net[2].weight.data, full_matrices=False)[0]
    net[2].weight.data = (V * torch.linspace(6, 0.1, 16, dtype=D)) @ U.T  # what follows has these directions
    X = 0.1 * torch.randn(40, 12, generator=torch.Generator().manual_seed(2), dtype=D)
    exact = audit(net, [X], nulls=0).row("0").basis
    few = [audit(net, [X], nulls=0, probes=4, seed=seed).row("0").basis for seed in range(20)]
    error = float(torch.tensor(few).std()) / math.sqrt(20)
    assert exact > 0.5
    assert abs(sum(few) / 20 - exact) < 4 * error + 0.01


@pytest.mark.parametrize("seed", range(12))
def test_values_that_are_equal_but_for_the_rounding_of_the_decomposition_share_a_block(seed):
    generator = torch.Generator().manual_seed(seed)
    r = 8 + 3 * seed
    values = torch.tensor([5.0] * 4 + [3.0] * (r - 6) + [1.0] * 2, dtype=torch.float64)
    Q, V = haar(1, r + 2, generator)[0, :, :r], haar(1, r + 5, generator)[0, :, :r]
    X = torch.randn(r + 2, r + 2, dtype=torch.float64, generator=generator)
    c = Q.T @ X @ X.T @ Q
    c -= c.trace() / r * torch.eye(r)
    blocks = [slice(0, 4), slice(4, r - 2), slice(r - 2, r)]
    sizes = [block.stop - block.start for block in blocks]
    on = sum(float(c[b, b].square().sum()) for b in blocks) / float(c.square().sum())
    chance = sum(2 * b / (r * (r + 2)) + b * (b - 1) / ((r + 2) * (r - 1)) for b in sizes)
    pair = FeaturePair(Q @ torch.diag(values) @ V.T, X @ X.T)
    assert pair.basis == pytest.approx((on - chance) / (1 - chance), abs=1e-10)
