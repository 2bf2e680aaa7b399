"""Shorter transforms where patches span few dimensions: found, the same numbers, and refused elsewhere."""

import pytest
import torch

from nfa import DeepConvRFM
from nfa.kernels import conv
from nfa.kernels.conv import ConvKernel
from nfa.kernels.conv_gradient import patch_gradients
from nfa.kernels.conv_span import shorter
from nfa.machines import patch_agop as agops
from nfa.machines.patch_agop import patch_agop
from tests.nfa.kernels.test_conv_kernel import randn, relative

f32, f64 = torch.float32, torch.float64
CASES = {
    "depth 2": {"depth": 2},
    "nngp": {"depth": 2, "kind": "nngp"},
    "padded": {"depth": 2, "padding": "zero"},
    "stride": {"depth": 1, "stride": 2, "padding": "zero"},
    "pool": {"depth": 1, "head": "pool"},
}
D, SPAN = 24 * 9, 2 * 9


def mixed(n=24, side=8, seed=0, channels=2):
    """Images (n, 24, side, side) whose channels are mixtures of a few."""
    few = randn(n, channels, side, side, seed=seed)
    return torch.einsum("ac,nchw->nahw", randn(24, channels, seed=9), few)


def transforms():
    """The identity, one that is no symmetric matrix, and one of low rank."""
    return {"none": None, "long": randn(240, D, seed=3), "low": randn(D, 7, seed=4) @ randn(7, D, seed=5)}


def unshortened(monkeypatch):
    for module in (conv, agops):
        monkeypatch.setattr(module, "shorter", lambda T, X, Z, shape: T)


@pytest.mark.parametrize("name", transforms())
@pytest.mark.parametrize("case", CASES)
def test_the_same_kernel_and_agop_from_fewer_coordinates(case, name, monkeypatch):
    kernel, T = ConvKernel(**CASES[case]), transforms()[name]
    X, Z, a = mixed(3, seed=1), mixed(), randn(24, 2, seed=2)
    X[0] = Z[5]
    same = torch.tensor([5, -1, -1])
    P = shorter(T, X, Z, kernel.shape(X))
    assert P.shape == (7 if name == "low" else SPAN, D)
    K, own = kernel.matrix(X[1:], Z, T), kernel.matrix(Z, transform=T)
    single = kernel.matrix(X[1:].float(), Z.float(), T)
    G = patch_agop(kernel, X, Z, a, T, same=same)
    unshortened(monkeypatch)
    assert relative(K, kernel.matrix(X[1:], Z, T)) < 1e-12
    assert relative(own, kernel.matrix(Z, transform=T)) < 1e-12
    assert torch.equal(own, own.mT)
    assert relative(single, K) < 1e-5
    rows = patch_gradients(kernel, X, Z, a, T, same=same).flatten(0, 3)
    assert relative(G, rows.mT @ rows / 3) < 1e-11


@pytest.mark.parametrize("dtype", [f32, f64])
def test_gradients_of_either_dtype(dtype, monkeypatch):
    kernel, X, a = ConvKernel(depth=2), mixed().to(dtype), randn(24, 2, seed=2).to(dtype)
    assert shorter(None, X, X, kernel.shape(X)).shape == (SPAN, D)
    G = patch_agop(kernel, X, X, a)
    unshortened(monkeypatch)
    assert relative(G, patch_agop(kernel, X, X, a)) < (1e-5 if dtype == f32 else 1e-12)


@pytest.mark.parametrize("change", [1e-10, 1e-6, 1.0])
@pytest.mark.parametrize("which", ["point", "center"])
def test_one_image_that_leaves_the_span_keeps_all_coordinates(which, change):
    kernel, X, Z, T = ConvKernel(depth=1), mixed(3, seed=1), mixed(64), randn(D, D, seed=3)
    (X if which == "point" else Z)[1, 3, 4, 4] += change
    assert shorter(T, X, Z, kernel.shape(X)) is T


def test_a_faint_direction_is_not_lost():
    kernel, X = ConvKernel(depth=1), mixed()
    shape = kernel.shape(X)
    X[:, 3] += 1e-10 * randn(24, 8, 8, seed=7)
    T = torch.eye(D, dtype=f64)
    T[3 * 9 : 4 * 9] *= 1e10
    P = shorter(T, X, X, shape)
    p, t = (kernel.patches(X) @ A.mT for A in (P, T))
    assert relative(p @ p.mT, t @ t.mT) < 1e-12


@pytest.mark.parametrize("scale", [1e-37, 1e15])
def test_any_scale(scale):
    kernel, X = ConvKernel(depth=1), mixed().float()
    assert shorter(None, X * scale, X * scale, kernel.shape(X)).shape == (SPAN, D)
    T = scale * torch.eye(D)
    assert shorter(T, X, X, kernel.shape(X)).norm() == pytest.approx(scale * SPAN**0.5)


def test_nothing_to_gain():
    kernel, X = ConvKernel(depth=1), randn(24, 24, 8, 8)
    shape = kernel.shape(X)
    assert shorter(None, X, X, shape) is None  # patches span all dimensions
    assert shorter(None, 0 * X, 0 * X, shape) is None
    few = mixed(2)
    assert shorter(None, few, few, shape) is None  # too few patches to tell
    zero = torch.zeros(D, D, dtype=f64)
    assert shorter(zero, mixed(), mixed(), shape) is zero


def test_a_deep_machine_learns_the_same(monkeypatch):
    X = randn(24, 2, 10, 10)
    y = X[:, 0, 2:5, 2:5].sum((1, 2))
    options = {"depth": 2, "width": 16, "rounds": 2, "agop_images": 8}
    fast = DeepConvRFM(**options).fit(X, y)
    assert fast.layers[1].M.shape == (144, 144)
    unshortened(monkeypatch)
    slow = DeepConvRFM(**options).fit(X, y)
    assert relative(fast.layers[1].M, slow.layers[1].M) < 1e-10
    assert relative(fast.predict(X), slow.predict(X)) < 1e-10


def test_it_is_found_on_one_thread(monkeypatch):
    """Decompositions of this size are many small steps, in which threads would wait for one another."""
    threads, before = [], torch.get_num_threads()
    for module in (conv, agops):
        plain = module.shorter

        def counted(*arguments, plain=plain):
            threads.append(torch.get_num_threads())
            return plain(*arguments)

        monkeypatch.setattr(module, "shorter", counted)
    kernel, X = ConvKernel(depth=1), mixed(4)
    torch.set_num_threads(2)
    try:
        kernel.matrix(X)
        patch_agop(kernel, X, X, randn(4, 1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1]
