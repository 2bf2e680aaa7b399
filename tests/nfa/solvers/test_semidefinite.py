"""Products with a root of a semi-definite matrix: by eigenvectors, and beyond some size by a factor."""

import pytest
import torch

from nfa import NfaError
from nfa.solvers import semidefinite
from nfa.solvers.semidefinite import root, times_root

N = 40


@pytest.fixture(params=["eigenvectors", "factor", "factor in blocks"])
def way(request, monkeypatch):
    monkeypatch.setattr(semidefinite, "_SPECTRAL", N if request.param == "eigenvectors" else 8)
    monkeypatch.setattr("nfa.solvers.blocked._BLOCK", 16 if "blocks" in request.param else 256)


def matrix(rank, dtype):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, rank, generator=generator, dtype=dtype), torch.randn(
        3, N, generator=generator, dtype=dtype
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [N + 5, 7])
def test_root_and_products_with_it(way, rank, dtype):
    F, A = matrix(rank, dtype)
    P = F @ F.mT
    # of a factor, the largest shift: a thousand roundings, on A Aᵀ
    atol = 1e3 * torch.finfo(dtype).eps * float(P.diagonal().max())
    found = times_root(A, P.clone())
    assert found.dtype == dtype
    assert torch.allclose(found @ found.mT, A @ P @ A.mT, rtol=0, atol=2 * atol * float(A.square().sum()))
    R = root(P.clone())
    assert torch.allclose(R @ R.mT, P, rtol=0, atol=2 * atol)


def test_nothing_is_the_root_of_nothing(way):
    assert not times_root(torch.ones(2, N), torch.zeros(N, N)).any()


def test_what_is_not_semidefinite_is_refused(way):
    F, A = matrix(N, torch.float64)
    P = F @ F.mT - 60 * torch.eye(N)
    assert P.diagonal().max() > 0
    with pytest.raises(NfaError, match="must be positive semi-definite up to rounding"):
        times_root(A, P)
