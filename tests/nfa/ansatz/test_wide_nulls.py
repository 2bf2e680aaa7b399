"""Nulls from two spectra alone against rotations, for flat, spiked and heavy spectra."""

import math

import pytest
import torch

from nfa import FeaturePair
from nfa.ansatz.forms import Dense, Frame
from nfa.ansatz.nulls import null_draw, roots
from nfa.ansatz.wide_nulls import WIDE, expected_cosine, wide_mean, wide_null

R = 128


def ranks() -> torch.Tensor:
    return torch.arange(1, R + 1, dtype=torch.float64)


SPECTRA = {
    "bulk": 1 + 3 * (R - ranks()) / R,
    "spiked": torch.where(ranks() <= 4, 60 / ranks(), 1 + (R - ranks()) / R),
    "heavy": ranks() ** -1.0,
    "very heavy": ranks() ** -2.0,
    "low rank": torch.where(ranks() <= 20, 1 / ranks(), 0.0),
}


def rotations(sigma2, values, power, draws):
    frame = Frame(sigma2[None], torch.eye(R, dtype=torch.float64)[None], torch.ones(1, R, dtype=torch.bool))
    root = roots(Dense(torch.diag(values)[None]))
    root = root[:, : int((root > 0).sum())]
    generator = torch.Generator().manual_seed(1)
    return torch.tensor([null_draw(frame, root, power, generator) for _ in range(draws)])


@pytest.mark.parametrize("power", [0.5, 0.3])
@pytest.mark.parametrize("C", ["bulk", "heavy", "low rank"])
@pytest.mark.parametrize("W", ["bulk", "spiked", "very heavy"])
def test_mean_and_spread_are_those_of_rotations(W, C, power):
    drawn = rotations(SPECTRA[W], SPECTRA[C], power, 60)
    wide = wide_null(SPECTRA[W], SPECTRA[C], power, 60, torch.Generator().manual_seed(0))
    error = float(torch.hypot(drawn.std(), wide.std())) / math.sqrt(60)
    assert float(wide.mean()) == pytest.approx(float(drawn.mean()), abs=4 * error)
    assert 0.4 < float(wide.std() / drawn.std()) < 2.5


@pytest.mark.parametrize("power", [0.5, 0.2])
def test_a_flat_c_has_the_isotropic_null(power):
    a = SPECTRA["spiked"]
    exact = float((a * a**power).sum() / (a.norm() * (a**power).norm()))
    assert expected_cosine(a, torch.ones(R, dtype=torch.float64), power) == pytest.approx(exact, abs=1e-6)


def test_scales_have_no_influence_and_zeros_need_not_be_given():
    a, b = SPECTRA["spiked"], SPECTRA["low rank"]
    assert wide_mean(3 * a, 5 * b[:20], 0.5) == pytest.approx(wide_mean(a, b, 0.5), rel=1e-12)


def test_wide_layers_take_it_and_others_are_rotated():
    g = torch.Generator().manual_seed(0)
    W, X = torch.randn(WIDE + 4, WIDE + 40, generator=g), torch.randn(WIDE + 4, 30, generator=g)
    pair = FeaturePair(W, factor=X)
    assert pair.has_wide_null(0.5)
    assert not pair.has_wide_null(1.0)
    null = pair.null_cosines(0.5, 16)
    assert len(null) == 16
    assert torch.equal(null, pair.null_cosines(0.5, 16))
    drawn = torch.tensor([null_draw(pair._frame, pair._root_spectrum, 0.5, g) for _ in range(4)])
    assert float(null.mean()) == pytest.approx(float(drawn.mean()), abs=4 * float(null.std()))
    assert len(pair.null_cosines(0.5, 0)) == 0
    small = FeaturePair(W[:20], factor=X[:20])
    assert not small.has_wide_null(0.5)
