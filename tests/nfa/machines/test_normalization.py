"""How alike two metrics are, of few coordinates and of many."""

import math

import pytest
import torch

from nfa.machines import normalization
from nfa.machines.normalization import cosine_of_metrics

D = 60


def root(k, seed=0):
    return torch.randn(D, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(M, N):
    return float((M * N).sum() / (M.norm() * N.norm()))


@pytest.fixture(params=["exact", "estimated"])
def tolerance(request, monkeypatch):
    monkeypatch.setattr(normalization, "_EXACT_COSINE", D if request.param == "exact" else 8)
    return 1e-12 if request.param == "exact" else 0.1  # of 128 directions


@pytest.mark.parametrize("F", [None, root(3, 1), root(D, 2)], ids=["identity", "low rank", "full"])
def test_cosine_is_that_of_the_matrices(F, tolerance):
    B = root(5) + (0 if F is None else F[:, :1])
    M = torch.eye(D, dtype=torch.float64) if F is None else F @ F.mT
    assert cosine_of_metrics(F, B) == pytest.approx(cosine(M, B @ B.mT), abs=tolerance)


def test_a_metric_is_like_itself_and_its_multiples(tolerance):
    F = root(5)
    assert cosine_of_metrics(F, 3 * F) == pytest.approx(1.0, rel=1e-12)


def test_the_cosine_with_zero_is_undefined(tolerance):
    assert math.isnan(cosine_of_metrics(root(5), torch.zeros(D, 2, dtype=torch.float64)))
