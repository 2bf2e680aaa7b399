"""All routes to the AGOP of a kernel predictor against loops over points, centers and outputs."""

import pytest
import torch

from nfa import NfaError
from nfa.kernels import Laplace
from nfa.machines.kernel_agop import blockwise_agop, kernel_agop
from nfa.reference import rfm as oracle

CASES = [(7, 7, 3, 2), (4, 7, 3, 2), (5, 5, 8, 3), (6, 6, 1, 1), (3, 9, 4, 5)]  # points, centers, d, outputs


def problem(m, n, d, c):
    generator = torch.Generator().manual_seed(m * n + d + c)
    centers = torch.randn(n, d, generator=generator, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)[:m]
    coefficients = torch.randn(n, c, generator=generator, dtype=torch.float64)
    return order, centers, coefficients


def laplace_slope(points, centers, L):
    r = (points[:, None] - centers[None]).norm(dim=2)
    return torch.where(r < 1e-10, 0.0, -(-r / L).exp() / (L * r))


@pytest.mark.parametrize("centering", ["none", "output", "pooled"])
@pytest.mark.parametrize("case", CASES)
def test_all_routes_equal_the_loops(case, centering):
    points, centers, a = problem(*case)
    kernel = oracle.Kernel("laplace", 1.3)
    eye = torch.eye(case[2], dtype=torch.float64)
    slow = oracle.agop(centers[points], centers, a, kernel, eye, centering)
    slope = laplace_slope(centers[points], centers, 1.3)
    for route in ("classes", "dual", "factored"):
        fast = kernel_agop(slope, centers, a, points=points, centering=centering, route=route)
        assert fast.route == route
        assert float((fast.dense() - slow).norm() / slow.norm()) < 1e-12
        root = fast.root()
        assert float((root @ root.mT - slow).norm() / slow.norm()) < 1e-12


@pytest.mark.parametrize("centering", ["none", "output", "pooled"])
def test_all_routes_agree_where_blocks_and_factors_are_large(centering):
    _, centers, a = problem(900, 900, 1000, 3)
    slope = Laplace(20.0).slope_matrix(centers)
    found = [
        kernel_agop(slope, centers, a, centering=centering, route=route)
        for route in ("classes", "dual", "factored")
    ]
    expected = found[0].dense()
    for agop in found:
        root = agop.root()
        assert float((agop.dense() - expected).norm() / expected.norm()) < 1e-10
        assert float((root @ root.mT - expected).norm() / expected.norm()) < 1e-10


def test_the_cheaper_route_is_taken():
    def route(m, n, d, c):
        points, centers, a = problem(m, n, d, c)
        return kernel_agop(laplace_slope(centers[points], centers, 1.0), centers, a, points=points).route

    assert route(60, 60, 40, 30) == "dual"
    assert route(60, 60, 2, 2) == "classes"
    assert route(40, 40, 300, 3) == "factored"


@pytest.mark.parametrize("option", [{"centering": "mean"}, {"route": "fast"}])
def test_unknown_options(option):
    points, centers, a = problem(3, 3, 2, 1)
    with pytest.raises(NfaError, match="must be one of"):
        kernel_agop(torch.zeros(3, 3, dtype=torch.float64), centers, a, points=points, **option)


@pytest.mark.parametrize("centering", ["none", "output", "pooled"])
@pytest.mark.parametrize("all_points", [True, False])
def test_blocks_of_points_change_nothing(all_points, centering):
    points, centers, a = problem(12, 20, 4, 3)
    points = None if all_points else points
    slope = Laplace(1.3).slope_matrix(centers if all_points else centers[points], centers)
    whole = kernel_agop(slope, centers, a, points=points, centering=centering).dense()
    for rows in (1, 5, 100):
        found = blockwise_agop(Laplace(1.3), centers, a, points=points, centering=centering, rows=rows)
        assert float((found.dense() - whole).norm() / whole.norm()) < 1e-12


def test_near_duplicates_in_float32_do_not_spoil_the_agop():
    _, centers, a = problem(400, 400, 30, 12)
    centers[1] = centers[0] + 1e-4
    slope = laplace_slope(centers, centers, 5.0)
    exact = kernel_agop(slope, centers, a, route="dual").dense()
    found = kernel_agop(slope.float(), centers.float(), a.float())
    assert kernel_agop(slope, centers, a).route == "dual"
    assert found.route == "classes"
    assert float((found.dense() - exact).norm() / exact.norm()) < 1e-4
