"""FACT from a weight and its gradient alone, against all matrices written out."""

import math

import pytest
import torch
from torch import nn

from nfa.ansatz.fact import fact_numbers
from nfa.layers.maps import find_maps


def written_out(W, gradient, decay):
    """Pearson, cosine and residual from the matrices of all groups."""
    N = torch.cat([(w.T @ w).flatten() for w in W])
    F = torch.cat([-(w.T @ g).flatten() / decay for w, g in zip(W, gradient, strict=True)])
    pearson = torch.corrcoef(torch.stack([N, F]))[0, 1]
    residual = (gradient + decay * W).norm() / (decay * W.norm())
    return float(pearson), float(N @ F / N.norm() / F.norm()), float(residual)


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 8, 3), (4, 2, 5), (4, 5, 2), (1, 5, 5)])
def test_it_is_that_of_the_matrices(shape):
    torch.manual_seed(0)
    W, gradient = torch.randn(shape).double(), torch.randn(shape).double()
    found = fact_numbers(W, gradient, 0.3)
    assert (found.pearson, found.cosine, found.residual) == pytest.approx(written_out(W, gradient, 0.3))


def test_at_a_stationary_point_it_is_the_feature_matrix():
    W = torch.randn(1, 4, 6)
    found = fact_numbers(W, -0.01 * W, 0.01)
    assert (found.pearson, found.cosine) == pytest.approx((1, 1))
    assert found.residual == pytest.approx(0, abs=1e-6)


def test_without_a_gradient_it_is_undefined():
    found = fact_numbers(torch.randn(1, 4, 6), torch.zeros(1, 4, 6), 0.01)
    assert math.isnan(found.pearson)
    assert math.isnan(found.cosine)
    assert found.residual == pytest.approx(1)


def test_linear_regression_with_decay_rests_there():
    """``W = −∇L/λ`` of ridge regression, solved."""
    torch.manual_seed(0)
    x, y, decay = torch.randn(30, 4).double(), torch.randn(30, 3).double(), 0.1
    W = torch.linalg.solve(x.T @ x / 30 + decay * torch.eye(4).double(), x.T @ y / 30).T
    gradient = (x @ W.T - y).T @ x / 30
    found = fact_numbers(W[None], gradient[None], decay)
    assert found.pearson == pytest.approx(1)
    assert found.residual == pytest.approx(0, abs=1e-9)


def test_gradients_have_the_blocks_of_their_weights():
    convolution, attention = nn.Conv2d(4, 6, 3, groups=2), nn.MultiheadAttention(4, 2)
    (of_convolution,), _ = find_maps(convolution)
    assert of_convolution.trained is convolution.weight
    assert torch.equal(of_convolution.as_blocks(convolution.weight), of_convolution.weight())
    keys = {m.name: m for m in find_maps(attention)[0]}["k"]
    assert keys.trained is attention.in_proj_weight
    gradient = torch.randn(12, 4)
    assert torch.equal(keys.as_blocks(gradient), gradient[None, 4:8])


def test_a_weight_that_is_computed_has_no_gradient_of_its_own():
    (computed,), _ = find_maps(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    assert computed.trained is None
