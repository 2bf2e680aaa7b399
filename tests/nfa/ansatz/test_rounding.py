"""Eigenvalues that are rounding of float32 sums count as zero, and a spectrum that goes on below is told."""

import pytest
import torch
from torch import nn

import nfa
from nfa.ansatz.notes import notes

POWERS = [1.0, 0.5, 0.25, 0.1]


def of_low_rank():
    """A few samples and outputs: C of the wide layers has exact low rank."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 16, 3, groups=2), nn.ReLU(), nn.Conv2d(16, 48, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(192, 96), nn.ReLU(), nn.Linear(96, 200), nn.ReLU(), nn.Linear(200, 2),
    )  # fmt: skip


def that_decays():
    """Singular values that halve every four directions: the spectrum of C passes below any rounding."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 96), nn.Tanh(), nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 96))
    net.extend([nn.Tanh(), nn.Linear(96, 4)])
    with torch.no_grad():
        for layer in (net[2], net[4]):
            U, sigma, V = torch.linalg.svd(layer.weight)
            layer.weight.copy_(U @ torch.diag(2.0 ** (-torch.arange(len(sigma)) / 4)) @ V)
    return net


def both(build, x, power, **options):
    """Audits in float32 and in float64."""
    single = nfa.audit(build(), list(x.split(25)), power=power, nulls=8, **options)
    double = nfa.audit(build().double(), list(x.double().split(25)), power=power, nulls=8, **options)
    return single, double


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize(
    "options", [{}, {"layers": "[68]"}, {"probes": 2}], ids=["exact", "layers", "probes"]
)
def test_a_sensitivity_of_exact_low_rank(power, options):
    single, double = both(of_low_rank, torch.randn(6, 2, 10, 10), power, **options)
    pairs = [(a, b) for a, b in zip(single.rows, double.rows, strict=True) if a.measured]
    assert pairs
    for a, b in pairs:
        for name in ("cosine", "null_mean", "alignment", "pearson", "alpha_fit"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-4), (a.layer, name)
    assert all(p.cut < 1e-3 for p in single.precision.values())


@pytest.mark.parametrize("power", POWERS)
def test_a_spectrum_that_goes_on_below_the_rounding(power):
    single, double = both(that_decays, torch.randn(200, 32), power)
    for a, b in zip(single.rows, double.rows, strict=True):
        if a.measured:
            assert abs(a.cosine - b.cosine) <= 2 * a.stderr + 1e-5, a.layer
    told = [line for line in notes(single, 200, power, 0.02) if line.startswith("Rounding")]
    assert bool(told) == (power == 0.1)
    assert not [line for line in notes(double, 200, power, 0.02) if line.startswith("Rounding")]


def test_the_error_of_the_cut_without_groups_of_samples():
    single, _ = both(that_decays, torch.randn(25, 32), 0.1)
    assert sum(row.stderr > 0 for row in single.rows if row.measured) == 2


def test_a_matrix_in_float32_resolves_less_than_one_in_float64():
    torch.manual_seed(0)
    W, X = torch.randn(40, 60, dtype=torch.float64), torch.randn(40, 5, dtype=torch.float64)
    exact = nfa.FeaturePair(W, X @ X.T)
    noise = torch.randn(40, 40, dtype=torch.float64)
    rounded = nfa.FeaturePair(W, (X @ X.T + 1e-8 * (noise + noise.T)).float())
    assert rounded.cosine(0.1) == pytest.approx(exact.cosine(0.1), abs=1e-4)
    assert rounded.null_cosines(0.1, 4).mean() == pytest.approx(
        float(exact.null_cosines(0.1, 4).mean()), abs=1e-4
    )
    unaware = nfa.FeaturePair(W, (X @ X.T + 1e-8 * (noise + noise.T)).float(), noise=0.0)
    assert abs(unaware.cosine(0.1) - exact.cosine(0.1)) > 0.01
