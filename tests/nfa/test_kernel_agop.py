"""Both routes to the AGOP of a kernel predictor against loops over points, centers and outputs."""

import pytest
import torch

from nfa import NfaError
from nfa.machines.kernel_agop import kernel_agop
from tests.nfa import rfm_oracle as oracle

CASES = [(7, 7, 3, 2), (4, 7, 3, 2), (5, 5, 8, 3), (6, 6, 1, 1), (3, 9, 4, 5)]  # points, centers, d, outputs


def problem(m, n, d, c):
    generator = torch.Generator().manual_seed(m * n + d + c)
    centers = torch.randn(n, d, generator=generator, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)[:m]
    coefficients = torch.randn(n, c, generator=generator, dtype=torch.float64)
    return centers[order], centers, coefficients


def laplace_slope(points, centers, L):
    r = (points[:, None] - centers[None]).norm(dim=2)
    return torch.where(r < 1e-10, 0.0, -(-r / L).exp() / (L * r))


@pytest.mark.parametrize("centering", ["none", "output", "pooled"])
@pytest.mark.parametrize("case", CASES)
def test_both_routes_equal_the_loops(case, centering):
    points, centers, a = problem(*case)
    kernel = oracle.Kernel("laplace", 1.3)
    slow = oracle.agop(points, centers, a, kernel, torch.eye(case[2], dtype=torch.float64), centering)
    slope = laplace_slope(points, centers, 1.3)
    for route in ("classes", "dual"):
        fast = kernel_agop(slope, points, centers, a, centering=centering, route=route)
        assert fast.route == route
        assert float((fast.matrix - slow).norm() / slow.norm()) < 1e-12


def test_the_cheaper_route_is_taken():
    def route(m, n, d, c):
        points, centers, a = problem(m, n, d, c)
        return kernel_agop(laplace_slope(points, centers, 1.0), points, centers, a).route

    assert route(60, 60, 40, 30) == "dual"
    assert route(60, 60, 2, 2) == "classes"


@pytest.mark.parametrize("option", [{"centering": "mean"}, {"route": "fast"}])
def test_unknown_options(option):
    points, centers, a = problem(3, 3, 2, 1)
    with pytest.raises(NfaError, match="must be one of"):
        kernel_agop(torch.zeros(3, 3, dtype=torch.float64), points, centers, a, **option)
