"""Roots of powers of ``F Fᵀ``, from the smaller side of F."""

import pytest
import torch

from nfa import NfaError
from nfa.kernels.roots import power_root, root_spectrum, spectrum


def root(d, k):
    return torch.randn(d, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 6)], ids=["tall", "wide", "square"])
def test_spectrum_and_powers_of_a_root(shape):
    F = root(*shape)
    M = F @ F.mT
    values, vectors = root_spectrum(F)
    assert len(values) == min(shape)
    assert torch.equal(values, values.sort(descending=True).values)
    assert torch.allclose((vectors * values) @ vectors.mT, M, rtol=1e-10)
    assert power_root(F, 1) is F
    for power in (0.5, 2.0):
        B = power_root(F.float(), power)
        assert B.dtype == torch.float32
        L, V = torch.linalg.eigh(M)
        expected = (V[:, -min(shape) :] * L[-min(shape) :] ** power) @ V[:, -min(shape) :].mT
        assert torch.allclose((B @ B.mT).double(), expected, rtol=0, atol=1e-5 * float(expected.norm()))


def test_what_is_no_rounding_is_refused():
    with pytest.raises(NfaError, match="positive semi-definite up to rounding, got eigenvalues from -1 to 2"):
        spectrum(torch.tensor([2.0, -1.0]).diag())
    values, _ = spectrum(torch.tensor([2.0, 0.1, -0.1]).diag())
    assert values.tolist() == [2.0]  # what is as small as the rounding is rounding


def test_one_value_is_left_of_nothing():
    values, vectors = spectrum(torch.zeros(3, 3))
    assert values.tolist() == [0.0]
    assert vectors.shape == (3, 1)
