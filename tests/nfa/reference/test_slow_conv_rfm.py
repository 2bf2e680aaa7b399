"""The ConvRFM oracle against closed forms, differences, wide networks and its own invariances.

Conventions, unless a test's name says otherwise: NTK, flatten head, AGOP a mean over images and a sum over
classes and positions, uncentred, of the predictor with K divided by its maximum; targets are raw numbers.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from nfa.errors import NfaError
from nfa.reference import conv_kernel as loops
from nfa.reference import conv_rfm as oracle
from nfa.reference.conv_kernel import ConvKernel

KERNELS = [
    ConvKernel(3, 1),
    ConvKernel(2, 2),
    ConvKernel(2, 3),
    ConvKernel(3, 2, padding=1),
    ConvKernel(2, 2, stride=2, padding=1),
    ConvKernel(2, 2, kind="nngp"),
    ConvKernel(2, 2, head="pool"),
    ConvKernel(3, 1, kind="nngp", head="pool"),
]


def names(kernel):
    extra = [f"pad{kernel.padding}"] * (kernel.padding > 0) + [f"stride{kernel.stride}"] * (kernel.stride > 1)
    return "-".join([kernel.kind, kernel.head, f"ps{kernel.patch_size}", f"depth{kernel.depth}", *extra])


every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=names)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def eye(d):
    return torch.eye(d, dtype=torch.float64)


def one_hot(*labels):
    return functional.one_hot(torch.tensor(labels)).double()


def far(a, b):
    """Relative Frobenius distance."""
    return (torch.linalg.norm(a - b) / torch.linalg.norm(b)).item()


def transform(kernel, channels=2, seed=9):
    """A symmetric T that no permutation of patch entries leaves as it is."""
    B = normal(channels * kernel.patch_size**2, channels * kernel.patch_size**2, seed=seed)
    return (B + B.T) / len(B)


def cut(x, kernel):
    return loops.patches(x, kernel.patch_size, kernel.padding, kernel.stride)


@pytest.fixture
def X():
    return normal(4, 2, 5, 4, seed=0)


@pytest.fixture
def Y():
    return one_hot(0, 1, 1, 0)


@pytest.fixture
def new():
    return normal(2, 2, 5, 4, seed=1)


# --- patches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ps", "padding", "stride"), [(1, 0, 1), (3, 0, 1), (2, 1, 2), (4, 2, 3), (3, 1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_come_in_the_order_of_unfold_channel_row_column(ps, padding, stride, channels):
    image = normal(channels, 7, 5, seed=2)
    mine = loops.patches(image, ps, padding, stride)
    theirs = functional.unfold(image[None], ps, padding=padding, stride=stride)[0].T
    assert torch.equal(mine.flatten(0, 1), theirs)
    assert mine.shape[0] == (7 + 2 * padding - ps) // stride + 1


@pytest.mark.parametrize(("padding", "stride"), [(0, 1), (1, 2)])
def test_convolution_takes_filters_with_flattened_weights(padding, stride):
    image, weight = normal(2, 5, 6, seed=3), normal(4, 2, 3, 3, seed=4)
    expected = functional.conv2d(image[None], weight, padding=padding, stride=stride)[0]
    assert torch.allclose(loops.convolve(image, weight.flatten(1), 3, padding, stride), expected, atol=1e-13)


# --- values: closed forms and wide networks --------------------------------------------------------------


def arc_cosine(k, kxx, kzz):
    """kappa0 and kappa1 from the angle between two vectors."""
    angle = math.acos(k / math.sqrt(kxx * kzz))
    return 1 - angle / math.pi, (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi


def test_one_pixel_is_the_fully_connected_ntk_of_two_layers():
    u, v = normal(5, 1, 1, seed=5), normal(5, 1, 1, seed=6)
    k, kxx, kzz = ((a * b).sum().item() / 5 for a, b in ((u, v), (u, u), (v, v)))
    kappa0, kappa1 = arc_cosine(k, kxx, kzz)
    expected = k * kappa0 + math.sqrt(kxx * kzz) * kappa1
    assert loops.kernel_value(u, v, ConvKernel(1)) == pytest.approx(expected, rel=1e-14)
    nngp = loops.kernel_value(u, v, ConvKernel(1, kind="nngp"))
    assert nngp == pytest.approx(math.sqrt(kxx * kzz) * kappa1, rel=1e-14)


def test_one_pixel_is_the_fully_connected_ntk_of_three_layers():
    u, v = normal(5, 1, 1, seed=5), normal(5, 1, 1, seed=6)
    k, kxx, kzz = ((a * b).sum().item() / 5 for a, b in ((u, v), (u, u), (v, v)))
    first0, first1 = arc_cosine(k, kxx, kzz)
    second = math.sqrt(kxx * kzz) * first1
    second0, second1 = arc_cosine(second, kxx, kzz)
    expected = (k * first0 + second) * second0 + math.sqrt(kxx * kzz) * second1
    assert loops.kernel_value(u, v, ConvKernel(1, 2)) == pytest.approx(expected, rel=1e-14)


def test_angle_of_sixty_degrees_by_hand():
    u, v = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)[..., None, None]
    expected = (0.5 * 2 / 3 + (math.sin(math.pi / 3) + math.pi / 3) / math.pi) / 2  # two channels
    assert loops.kernel_value(u, v, ConvKernel(1)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_image_with_itself_counts_its_layers(depth, X):
    """All rho are 1: nothing but window sums is left, once for the covariance and once for each layer."""
    windows = cut(X[0], ConvKernel(2)).square().sum(2)[None, None] / 2
    for _ in range(depth - 1):
        windows = functional.conv2d(windows, torch.ones(1, 1, 2, 2).double())
    expected = windows.mean().item()
    ntk, nngp = (loops.kernel_value(X[0], X[0], ConvKernel(2, depth, kind=kind)) for kind in loops.KINDS)
    assert nngp == pytest.approx(expected, rel=1e-14)
    assert ntk == pytest.approx((depth + 1) * expected, rel=1e-14)


def tangent_kernel(images, kernel, width, seed):
    """``sum over weights of df(x) df(z)``, and ``f``, of one random network in NTK parameterisation."""
    rng, ps = seeded(seed), kernel.patch_size
    sizes = [images.shape[1], *[width] * kernel.depth]
    weights = [
        torch.randn(b, a, ps, ps, dtype=torch.float64, generator=rng, requires_grad=True)
        for a, b in pairwise(sizes)
    ]
    h = images
    for layer, weight in enumerate(weights):
        first = {"padding": kernel.padding, "stride": kernel.stride} if layer == 0 else {}
        h = math.sqrt(2) * torch.relu(functional.conv2d(h, weight, **first) / math.sqrt(weight.shape[1]))
    h = h.flatten(1) if kernel.head == "flatten" else h.mean((2, 3))
    head = torch.randn(h.shape[1], dtype=torch.float64, generator=rng, requires_grad=True)
    f = h @ head / math.sqrt(len(head))
    grads = [torch.autograd.grad(out, [*weights, head], retain_graph=True) for out in f]
    flat = torch.stack([torch.cat([g.flatten() for g in of_image]) for of_image in grads])
    return flat @ flat.T, h.detach() @ h.detach().T / len(head)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.kind == "ntk"], ids=names)
def test_wide_networks_agree_within_five_percent(kernel):
    images = normal(3, 2, 5, 4, seed=7)
    draws = [tangent_kernel(images, kernel, 96, seed) for seed in range(48)]
    ntk, nngp = (torch.stack(parts).mean(0) for parts in zip(*draws, strict=True))
    assert far(loops.kernel_matrix(images, images, kernel), ntk) < 0.05
    as_nngp = replace(kernel, kind="nngp")
    assert far(loops.kernel_matrix(images, images, as_nngp), nngp) < 0.05


@every_kernel
def test_kernel_matrix_is_symmetric_and_positive(kernel, X):
    K = loops.kernel_matrix(X, X, kernel, transform(kernel))
    assert torch.allclose(K, K.T, rtol=1e-14)
    assert torch.linalg.eigvalsh(K).min() > -1e-13


@every_kernel
def test_kernel_of_scaled_images_scales_with_both(kernel, X):
    K = loops.kernel_matrix(3 * X, 0.5 * X, kernel)
    assert far(K, 1.5 * loops.kernel_matrix(X, X, kernel)) < 1e-13


@pytest.mark.parametrize("head", loops.HEADS)
def test_transform_acts_on_patches(head, X):
    """With stride = patch size patches do not overlap, so transformed patches are an image again."""
    kernel = ConvKernel(2, 1, stride=2, head=head)
    T = transform(kernel) @ torch.diag(torch.arange(1.0, 9.0).double())  # not symmetric: T u, not u T

    def transformed(x):
        moved = (cut(x, kernel) @ T.T).flatten(0, 1).T[None]
        return functional.fold(moved, (4, 4), 2, stride=2)[0]

    x, z = X[0, :, :4], X[1, :, :4]
    expected = loops.kernel_value(transformed(x), transformed(z), kernel)
    assert loops.kernel_value(x, z, kernel, T) == pytest.approx(expected, rel=1e-12)


def test_transform_in_another_order_of_entries_is_another_kernel(X):
    kernel = ConvKernel(3, 1)
    T, order = transform(kernel), torch.arange(18).reshape(2, 3, 3).transpose(1, 2).flatten()
    swapped = T[order][:, order]
    assert far(loops.kernel_matrix(X, X, kernel, swapped), loops.kernel_matrix(X, X, kernel, T)) > 1e-3
    across = loops.kernel_matrix(X.transpose(2, 3), X.transpose(2, 3), kernel, swapped)
    assert far(across, loops.kernel_matrix(X, X, kernel, T)) < 1e-13  # rows for columns in both


# --- slopes ----------------------------------------------------------------------------------------------


def difference(U, V, kernel, T, direction, step=1e-6, *, together=False):
    """Central difference of ``k`` along a direction of the patches U (of both arguments, ``together``)."""
    up, down = (
        loops.patch_kernel(U + h * direction, U + h * direction if together else V, 2, kernel, T).value
        for h in (step, -step)
    )
    return (up - down) / (2 * step)


@every_kernel
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "T"])
def test_slope_is_the_central_difference_by_patches(kernel, plain, X):
    T = None if plain else transform(kernel)
    U, V = cut(X[0], kernel), cut(X[1], kernel)
    slope = loops.kernel_gradient(X[0], X[1], kernel, T)
    assert slope.shape == U.shape
    for seed in range(3):
        direction = normal(*U.shape, seed=seed)
        expected = difference(U, V, kernel, T, direction)
        assert (slope * direction).sum().item() == pytest.approx(expected, rel=1e-7, abs=1e-8)


@every_kernel
def test_slope_of_a_self_pair_is_half_that_of_k_of_x_with_x(kernel, X):
    T = transform(kernel)
    U = cut(X[0], kernel)
    slope = loops.kernel_gradient(X[0], X[0], kernel, T)
    for seed in range(3):
        direction = normal(*U.shape, seed=seed)
        both = difference(U, U, kernel, T, direction, together=True)
        assert (slope * direction).sum().item() == pytest.approx(both / 2, rel=1e-7)
    assert torch.linalg.norm(slope) > 0


@pytest.mark.parametrize("depth", [1, 2])
def test_slope_of_a_self_pair_is_the_mean_of_the_one_sided_slopes(depth, X):
    kernel = ConvKernel(2, depth)
    U, step = cut(X[0], kernel), 1e-5
    slope, direction = loops.kernel_gradient(X[0], X[0], kernel), normal(*U.shape, seed=1)
    at = [loops.patch_kernel(U + h * direction, U, 2, kernel).value for h in (-step, 0.0, step)]
    left, right = (at[1] - at[0]) / step, (at[2] - at[1]) / step
    assert left - right > 0.1  # a kink
    assert (slope * direction).sum().item() == pytest.approx((left + right) / 2, rel=1e-4)


# --- zero, shared and opposite patches -------------------------------------------------------------------


def test_zero_patch_has_value_zero_and_the_slope_of_half_and_half():
    x, z, kernel = normal(2, 4, 3, seed=10), normal(2, 4, 3, seed=11), ConvKernel(2)
    x[:, :2, :2] = 0
    slope, V = loops.kernel_gradient(x, z, kernel), cut(z, kernel)
    assert far(slope[0, 0], V[0, 0] / (2 * 6)) < 1e-15  # two channels, six positions
    without = loops.patch_kernel(cut(x, kernel)[1:], V[1:], 2, kernel).value * 4 / 6
    right = loops.patch_kernel(cut(x, kernel)[:1, 1:], V[:1, 1:], 2, kernel).value * 1 / 6
    assert loops.kernel_value(x, z, kernel) == pytest.approx(without + right, rel=1e-13)


def test_patches_zero_in_both_images_contribute_nothing():
    x, z, kernel = normal(1, 4, 4, seed=10), normal(1, 4, 4, seed=11), ConvKernel(2)
    x[:, :2, :2] = z[:, :2, :2] = 0
    assert not loops.kernel_gradient(x, z, kernel)[0, 0].any()


@pytest.mark.parametrize("head", loops.HEADS)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("case", ["zero", "flat", "black corner"])
def test_images_without_contrast_stay_finite(case, depth, head):
    x, z, kernel = normal(1, 5, 4, seed=12), normal(1, 5, 4, seed=13), ConvKernel(2, depth, head=head)
    if case == "black corner":
        x[:, :4, :3] = z[:, :4, :3] = 0
    else:
        x[:] = 0.0 if case == "zero" else 1.7
    for a, b in ((x, z), (z, x), (x, x)):
        assert math.isfinite(loops.kernel_value(a, b, kernel))
        assert loops.kernel_gradient(a, b, kernel).isfinite().all()
    if case == "zero":
        assert loops.kernel_value(x, z, kernel) == 0


def test_patch_that_two_images_share_has_the_self_pair_slope_at_its_position():
    x, z, kernel = normal(1, 4, 4, seed=14), normal(1, 4, 4, seed=15), ConvKernel(2)
    z[:, :2, :2] = x[:, :2, :2]
    u = cut(x, kernel)[0, 0]
    expected = 2 * u / 9  # half the gradient of 2 <u, u> over 9 positions
    assert far(loops.kernel_gradient(x, z, kernel)[0, 0], expected) < 1e-14


def test_opposite_patches_have_value_and_slope_zero():
    x, kernel = normal(1, 2, 2, seed=16), ConvKernel(2)
    assert loops.kernel_value(x, -x, kernel) == pytest.approx(0, abs=1e-15)
    assert loops.kernel_gradient(x, -x, kernel).abs().max() < 1e-15


@pytest.mark.parametrize("factor", [1.0, 3.0, 1 / 3, 0.1, 7e-5])
def test_parallel_patches_are_not_spoilt_by_rounding(factor, X):
    kernel = ConvKernel(2, 2)
    expected = factor * loops.kernel_value(X[0], X[0], kernel)
    assert loops.kernel_value(X[0], factor * X[0], kernel) == pytest.approx(expected, rel=1e-14)
    slope = loops.kernel_gradient(X[0], factor * X[0], kernel)
    assert far(slope, factor * loops.kernel_gradient(X[0], X[0], kernel)) < 1e-13


# --- the predictor and its AGOP --------------------------------------------------------------------------


def test_ridge_counts_in_units_of_the_largest_kernel_value(X, Y, new):
    kernel = ConvKernel(2, 2)
    K, K_new = loops.kernel_matrix(X, X, kernel), loops.kernel_matrix(new, X, kernel)
    alpha, scale = oracle.fit(K, Y, 1e-2)
    assert scale == K.max()
    expected = K_new @ torch.linalg.solve(K + 1e-2 * K.max() * eye(4), Y)
    assert far(oracle.predict(K_new, alpha, scale), expected) < 1e-12


def test_slope_of_the_predictor_on_a_new_image_is_the_central_difference(X, Y, new):
    kernel = ConvKernel(2, 2)
    T, U = transform(kernel), cut(new[0], kernel)
    alpha, scale = oracle.fit(loops.kernel_matrix(X, X, kernel, T), Y, 1e-3)
    slope, direction = oracle.predictor_gradient(new[0], X, alpha, scale, kernel, T), normal(*U.shape, seed=1)
    assert slope.shape == (2, *U.shape)
    kernels = [difference(U, cut(x, kernel), kernel, T, direction) for x in X]
    expected = torch.tensor(kernels).double() @ alpha / scale
    assert torch.allclose((slope * direction).sum((1, 2, 3)), expected, rtol=1e-7)


def test_agop_is_the_mean_over_images_and_the_sum_over_classes_and_positions(X, Y, new):
    kernel = ConvKernel(2, 2)
    alpha, scale = oracle.fit(loops.kernel_matrix(X, X, kernel), Y, 1e-3)
    images = torch.cat([X[:2], new])
    rows = torch.cat([oracle.predictor_gradient(x, X, alpha, scale, kernel).reshape(-1, 8) for x in images])
    G = oracle.agop(images, X, alpha, scale, kernel)
    assert far(G, rows.T @ rows / 4) < 1e-13
    by_class = sum(oracle.agop(images, X, alpha[:, c : c + 1], scale, kernel) for c in range(2))
    assert far(G, by_class) < 1e-13
    by_image = sum(oracle.agop(x[None], X, alpha, scale, kernel) for x in images) / 4
    assert far(G, by_image) < 1e-13


def test_two_positions_and_one_center_by_hand():
    """One image, its own center: the slope at position p is ``2 u_p / (2 s) alpha``, s = <u, u> summed."""
    x = torch.tensor([[[3.0, 4.0]]]).double()
    alpha, scale = oracle.fit(loops.kernel_matrix(x[None], x[None], ConvKernel(1)), eye(1), 0.0)
    assert (scale, alpha.item()) == (25.0, 1.0)  # (2 * 9 + 2 * 16) / 2 positions
    G = oracle.agop(x[None], x[None], alpha, scale, ConvKernel(1))
    assert G.item() == pytest.approx((3 / 25) ** 2 + (4 / 25) ** 2)


@pytest.mark.parametrize("update", oracle.UPDATES)
def test_next_transform_is_of_norm_one(update):
    B = normal(5, 3, seed=20)
    G = B @ B.T
    T = oracle.next_transform(G, update)
    assert torch.linalg.norm(T).item() == pytest.approx(1)
    expected = G if update == "plain" else T @ T * torch.trace(G)  # |G^(1/2)|_F^2 = tr G
    assert far(T * torch.linalg.norm(G) if update == "plain" else expected, G) < 1e-12
    assert not oracle.next_transform(0 * G, update).any()


# --- rounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", oracle.UPDATES)
def test_rounds_follow_the_recursion(update, X, Y, new):
    kernel = ConvKernel(2, 2)
    out = oracle.run_conv_rfm(X, Y, new, kernel, 1e-3, 2, images=3, update=update)
    assert [len(v) for v in (out.T, out.K, out.alpha, out.agop, out.prediction)] == [3, 3, 3, 2, 3]
    assert torch.equal(out.T[0], eye(8))
    assert torch.equal(out.K[0], loops.kernel_matrix(X, X, kernel))
    for t in range(2):
        assert torch.equal(out.agop[t], oracle.agop(X[:3], X, out.alpha[t], out.scale[t], kernel, out.T[t]))
        assert torch.equal(out.T[t + 1], oracle.next_transform(out.agop[t], update))
    K_new = loops.kernel_matrix(new, X, kernel, out.T[2])
    assert far(out.prediction[2], K_new @ out.alpha[2] / out.K[2].max()) < 1e-13
    assert (out.ridge, out.val_score) == ([1e-3] * 3, [])


def test_scale_of_targets_and_images_changes_no_transform(X, Y, new):
    kernel = ConvKernel(2, 2)
    plain = oracle.run_conv_rfm(X, Y, new, kernel, 1e-2, 2)
    louder = oracle.run_conv_rfm(3 * X, 7 * Y, 3 * new, kernel, 1e-2, 2)
    for t in range(3):
        assert far(louder.T[t], plain.T[t]) < 1e-9
        assert far(louder.prediction[t], 7 * plain.prediction[t]) < 1e-9


def test_order_of_centers_and_classes_changes_no_round(X, Y, new):
    kernel, order = ConvKernel(2, 2), torch.tensor([2, 0, 3, 1])
    plain = oracle.run_conv_rfm(X, Y, new, kernel, 1e-2, 2)
    mixed = oracle.run_conv_rfm(X[order], Y[order].flip(1), new, kernel, 1e-2, 2)
    for t in range(3):
        assert far(mixed.T[t], plain.T[t]) < 1e-9
        assert far(mixed.prediction[t], plain.prediction[t].flip(1)) < 1e-9


def test_channels_change_places_in_every_round(X, Y, new):
    kernel, order = ConvKernel(2, 2), torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    plain = oracle.run_conv_rfm(X, Y, new, kernel, 1e-2, 2)
    swapped = oracle.run_conv_rfm(X.flip(1), Y, new.flip(1), kernel, 1e-2, 2)
    for t in range(3):
        assert far(swapped.T[t], plain.T[t][order][:, order]) < 1e-9
        assert far(swapped.prediction[t], plain.prediction[t]) < 1e-9


def test_channel_that_is_always_zero_is_never_looked_at(X, Y, new):
    """An empty channel only divides the kernel by 3 instead of 2, which its maximum takes back."""
    kernel = ConvKernel(2, 2)

    def wider(Z):
        return torch.cat([Z, torch.zeros_like(Z[:, :1])], 1)

    plain = oracle.run_conv_rfm(X, Y, new, kernel, 1e-2, 2)
    wide = oracle.run_conv_rfm(wider(X), Y, wider(new), kernel, 1e-2, 2)
    for t in (1, 2):
        assert wide.T[t][8:].abs().max() < 1e-12
        assert far(wide.T[t][:8, :8], plain.T[t]) < 1e-9
        assert far(wide.prediction[t], plain.prediction[t]) < 1e-9


def test_images_all_zero_predict_zero_in_every_round(new, Y):
    out = oracle.run_conv_rfm(torch.zeros(4, 2, 5, 4).double(), Y, new, ConvKernel(2, 2), 1e-2, 1)
    assert not out.T[1].any()
    assert all(not p.any() for p in out.prediction)


def test_images_with_zero_patches_go_through_all_rounds(Y):
    X = normal(4, 1, 6, 5, seed=21)
    X[:, :, :3], X[3] = 0, 0
    out = oracle.run_conv_rfm(X, Y, X, ConvKernel(2, 2), 1e-2, 2)
    assert all(v.isfinite().all() for v in [*out.T, *out.prediction])


def test_ridge_is_the_first_of_the_best_on_validation(X, Y, new):
    kernel, ridges, Y_new = ConvKernel(2), [10.0, 1e-1, 1e-3], one_hot(1, 0)
    out = oracle.run_conv_rfm(X, Y, X[:1], kernel, ridges, 1, X_val=new, Y_val=Y_new, select="mse", images=4)
    single = [oracle.run_conv_rfm(X, Y, new, kernel, r, 0).prediction[0] for r in ridges]
    errors = [(p - Y_new).square().mean().item() for p in single]
    assert out.val_score[0] == pytest.approx([-e for e in errors])
    chosen = min(range(3), key=errors.__getitem__)
    assert out.ridge[0] == ridges[chosen]
    assert torch.equal(out.val_prediction[0], single[chosen])
    assert out.best == max(range(2), key=lambda t: max(out.val_score[t]))
    tied = oracle.run_conv_rfm(X, Y, X[:1], kernel, [3.0, 3.0 + 1e-9], 0, X_val=new, Y_val=Y_new)
    assert tied.ridge == [3.0]


def test_agop_of_the_last_ridge_as_published(X, Y, new):
    kernel, ridges = ConvKernel(2), [1e-3, 10.0]
    options = {"X_val": X, "Y_val": Y, "select": "mse"}  # on its own images the small ridge wins
    chosen, last = (
        oracle.run_conv_rfm(X, Y, new, kernel, ridges, 1, agop_ridge=which, **options)
        for which in ("chosen", "last")
    )
    assert chosen.ridge[0] == last.ridge[0] == 1e-3
    assert far(chosen.agop[0], oracle.run_conv_rfm(X, Y, new, kernel, 1e-3, 1).agop[0]) < 1e-13
    assert far(last.agop[0], oracle.run_conv_rfm(X, Y, new, kernel, 10.0, 1).agop[0]) < 1e-13


@pytest.mark.parametrize("kernel", [ConvKernel(2), ConvKernel(4, 1, padding=2), ConvKernel(1, 3)], ids=names)
def test_one_channel_even_patches_and_sides_that_differ(kernel):
    X, new = normal(3, 1, 4, 7, seed=22), normal(2, 1, 4, 7, seed=23)
    out = oracle.run_conv_rfm(X, one_hot(0, 1, 2), new, kernel, 1e-2, 1)
    assert out.T[1].shape == (kernel.patch_size**2, kernel.patch_size**2)
    assert out.prediction[1].shape == (2, 3)


# --- Deep ConvRFM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonlinearity", [None, "relu"])
@pytest.mark.parametrize("padding", [0, 1])
def test_deep_layers_are_rounds_filters_of_the_best_transform_and_a_convolution(nonlinearity, padding):
    X, new, held = (normal(n, 1, 5, 5, seed=30 + n) for n in (4, 2, 3))
    Y, Y_held = one_hot(0, 1, 1, 0), one_hot(1, 0, 1)
    kernel, ridges, draws = ConvKernel(3, 2, padding=padding), [1e-3, 1e-1], [normal(3, 9, seed=34)]
    layers = oracle.deep_conv_rfm(
        X, Y, held, Y_held, new, kernel, ridges, 1, draws, nonlinearity=nonlinearity, select="mse"
    )
    assert len(layers) == 2
    first, second = layers
    alone = oracle.run_conv_rfm(X, Y, new, kernel, ridges, 1, X_val=held, Y_val=Y_held, select="mse")
    assert torch.equal(first.rounds.prediction[1], alone.prediction[1])
    assert first.best == alone.best
    weight = (draws[0] @ alone.T[alone.best]).reshape(3, 1, 3, 3)
    for before, after in ((X, second.X), (held, second.X_val), (new, second.X_test)):
        z = functional.conv2d(before, weight, padding=padding)
        assert torch.allclose(after, torch.relu(z) if nonlinearity else z, atol=1e-13)
    assert second.X.shape == (4, 3, 3 + 2 * padding, 3 + 2 * padding)
    shallower = oracle.run_conv_rfm(
        second.X, Y, second.X_test, ConvKernel(3, 1, padding=padding), ridges, 1,
        X_val=second.X_val, Y_val=Y_held, select="mse",
    )  # fmt: skip
    assert torch.equal(second.rounds.prediction[1], shallower.prediction[1])
    assert second.filters is None


def test_scale_of_the_filters_changes_no_prediction_even_behind_relu():
    X, new, held = (normal(n, 1, 4, 4, seed=30 + n) for n in (4, 2, 3))
    Y, Y_held, draws = one_hot(0, 1, 1, 0), one_hot(1, 0, 1), [normal(3, 4, seed=35)]
    plain, louder = (
        oracle.deep_conv_rfm(X, Y, held, Y_held, new, ConvKernel(2, 2), 1e-2, 1, d, nonlinearity="relu")
        for d in (draws, [5 * draws[0]])
    )
    for t in range(2):
        assert far(louder[1].rounds.prediction[t], plain[1].rounds.prediction[t]) < 1e-9


# --- mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ConvKernel(3, 0), "depth and stride of at least 1"),
        (lambda: ConvKernel(0), "patch_size"),
        (lambda: ConvKernel(3, padding=-1), "padding of at least 0"),
        (lambda: ConvKernel(3, kind="cntk"), "ntk, nngp"),
        (lambda: ConvKernel(3, head="mean"), "flatten, pool"),
        (lambda: loops.patches(torch.zeros(1, 2, 5).double(), 3), "at least 3 pixels"),
        (lambda: loops.patches(torch.zeros(1, 5, 5), 3), "float64"),
        (
            lambda: loops.kernel_value(*normal(2, 1, 6, 6, seed=0), ConvKernel(3, 3)),
            "leave something of",
        ),
        (lambda: oracle.fit(eye(2), torch.zeros(2, 1), 0.1), "float64"),
        (lambda: oracle.next_transform(eye(2), "power"), "root, plain"),
        (lambda: oracle.score(eye(2), eye(2), "loss"), "accuracy, mse"),
        (
            lambda: oracle.run_conv_rfm(eye(2), eye(2), eye(2), ConvKernel(2), [1, 2], 1),
            "2 ridges",
        ),
        (
            lambda: oracle.deep_conv_rfm(*normal(5, 2, 1, 3, 3, seed=0), ConvKernel(2), 1e-2, 1, [eye(4)]),
            "fewer draws",
        ),
    ],
)
def test_mistakes_are_named(call, match):
    with pytest.raises(NfaError, match=match):
        call()


def test_score_is_a_share_or_minus_a_mean_square():
    P = torch.tensor([[0.9, 0.2], [0.3, 0.1], [0.0, 0.5]]).double()
    assert oracle.score(P, one_hot(0, 1, 1)) == pytest.approx(2 / 3)
    assert oracle.score(P, one_hot(0, 1, 1), "mse") == pytest.approx(
        -(0.01 + 0.04 + 0.09 + 0.81 + 0 + 0.25) / 6
    )
