"""What products with a kernel matrix are asked for, and the identity as a metric."""

import pytest
import torch

from nfa import NfaError
from nfa.kernels import KernelOperator, Laplace, Metric, kernel_product

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(6,), (5, 2), (6, 2, 1)])
def test_shapes_of_products(shape):
    V = torch.ones(shape)
    with pytest.raises(NfaError, match=r"the operator multiplies \(6, c\) matrices, got shape"):
        KernelOperator(Laplace(1.0), X)(V)
    with pytest.raises(NfaError, match=r"6 points need coefficients \(6, c\), got shape"):
        kernel_product(Laplace(1.0), X[:2], X, V)


def test_products_are_those_of_the_matrix():
    V = torch.ones(6, 2)
    K = Laplace(1.0).value(torch.cdist(X, X))
    assert torch.allclose(KernelOperator(Laplace(1.0), X)(V), K @ V, rtol=1e-5)
    assert torch.allclose(kernel_product(Laplace(1.0), X[:2], X, V), (K @ V)[:2], rtol=1e-5)


def test_the_identity_is_of_any_dimension():
    assert torch.equal(Metric.identity().dense(3), torch.eye(3))
    with pytest.raises(NfaError, match="fits any dimension"):
        Metric.identity().dense()
