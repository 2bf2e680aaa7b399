"""Cosines without each group of samples to first order, against those of each that is left out."""

import pytest
import torch

from nfa import FeaturePair
from nfa.ansatz.group_sums import stacked
from nfa.ansatz.left_out import Slopes
from nfa.ansatz.wide_nulls import WIDE

KINDS = ("dense", "factors", "low rank in float32")


def groups_of(kind, size, like, seed=0):
    """A weight and the sums over four groups of samples, of a C whose leading directions differ by group."""
    g = torch.Generator().manual_seed(seed)
    rows = 2 * size if kind == "dense" else size // 8
    W = torch.randn(size, size + 7, generator=g, dtype=torch.float64)
    shape = torch.arange(1, size + 1, dtype=torch.float64)[:, None] ** -0.7
    X = [shape * torch.randn(size, rows, generator=g, dtype=torch.float64) for _ in range(4)]
    X = [(1 - like) * x + like * X[0] for x in X]
    if kind == "dense":
        return W, [(x @ x.mT)[None] for x in X]
    if kind == "factors":
        return W, [x[None] for x in X]
    return W, [(x.float() @ x.float().mT).double()[None] for x in X]


def pair_of(kind, W, sums):
    if kind == "factors":
        return FeaturePair(W, factor=torch.cat(sums, 2)[0])
    return FeaturePair(W, sum(sums)[0], noise=1.2e-7 if "float32" in kind else None)


def ratios_of(pair, parts, power):
    slopes, groups = Slopes.of(pair._frame.sigma2, pair._eigen, power), stacked(parts)
    return slopes.ratios(groups, groups.seen_from(slopes.lead))


@pytest.mark.parametrize("power", [0.5, 0.3, 0.8])
def test_first_order_is_the_derivative(power):
    W, sums = groups_of("dense", 40, like=0.0)
    sums = [sums[0], 1e-4 * sums[1], 1e-4 * sums[2], sums[3]]
    pair = pair_of("dense", W, sums)
    parts = pair._frame.parts(sums, False, like=pair._inside)
    ratios = ratios_of(pair, parts, power)
    for j in (1, 2):
        left = pair_of("dense", W, [s for i, s in enumerate(sums) if i != j])
        change = left.cosine(power) / pair.cosine(power) - 1
        assert float(ratios[j]) - 1 == pytest.approx(change, rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_that_are_alike_change_nothing(kind):
    W, sums = groups_of(kind, 40, like=1.0)
    pair = pair_of(kind, W, sums)
    parts = pair._frame.parts(sums, kind == "factors", like=pair._inside)
    assert ratios_of(pair, parts, 0.5).tolist() == pytest.approx([1.0] * 4, abs=1e-6)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_wide_layers_are_those_of_the_jackknife(kind, groups, monkeypatch):
    W, sums = groups_of(kind, WIDE + 8, like=0.0)
    counts, sums = [3] * groups, sums[:groups]
    options = {"factors": kind == "factors", "halves": True}
    pair = pair_of(kind, W, sums)
    fast = pair.precision(sums, counts, 0.5, **options)
    monkeypatch.setattr("nfa.ansatz.pair.WIDE", 10**6)
    exact = pair.precision(sums, counts, 0.5, **options)
    assert fast.cosine == pytest.approx(exact.cosine, rel=0.2)
    assert fast.cosine_bias == pytest.approx(exact.cosine_bias, rel=0.2)
    assert fast.drift == pytest.approx(exact.drift, rel=0.05)
    assert fast.alignment == exact.alignment


@pytest.mark.parametrize("power", [0.5, 0.25])
def test_what_hangs_on_a_cut_is_of_the_size_that_the_cut_makes(power, monkeypatch):
    size = WIDE + 4
    g = torch.Generator().manual_seed(0)
    W = torch.randn(size, size, generator=g, dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64))[0]
    C = (Q * torch.logspace(0, -8, size, dtype=torch.float64)) @ Q.T  # no gap where it is cut
    fast = FeaturePair(W, C, noise=1.2e-7).precision([], [], power).cut
    monkeypatch.setattr("nfa.ansatz.pair.WIDE", 10**6)
    exact = FeaturePair(W, C, noise=1.2e-7).precision([], [], power).cut
    assert 0 < exact < 2 * fast < 6 * exact
