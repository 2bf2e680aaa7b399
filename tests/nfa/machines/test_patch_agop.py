"""Patch gradients and their AGOP against loops with autograd, central differences, and printed rules."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa.errors import NfaError
from nfa.kernels import conv_gradient
from nfa.kernels.conv import ConvKernel
from nfa.kernels.conv_gradient import patch_gradients
from nfa.machines.patch_agop import patch_agop
from nfa.reference import conv_kernel_by_autograd as ref
from tests.nfa.kernels.test_conv_kernel import CASES, problem, randn, relative

f32, f64 = torch.float32, torch.float64
SAME = torch.tensor([1, -1, 0])  # of the points of `machine`


def machine(case, classes=2):
    """Kernel, reference, points of which two are centers, centers with shared and empty parts, a, T."""
    kernel, net, X, Z, T = problem(case)
    half = Z.shape[3] // 2
    Z[1, :, :, half:] = 0
    Z[2, :, :, :half] = Z[0, :, :, :half]
    return kernel, net, torch.stack([Z[1], X[0], Z[0]]), Z, randn(len(Z), classes, seed=2), T


def looped(points, centers, a, net, T):
    """The reference's gradients as (m, h, w, classes, D)."""
    found = []
    for r in ref.gradients(points, centers, a, net, T):
        h, w = (1 + max(p[axis] for _, p in r) for axis in (0, 1))
        rows = [[[r[c, (i, j)] for c in range(a.shape[1])] for j in range(w)] for i in range(h)]
        found.append(torch.stack([torch.stack([torch.stack(vectors) for vectors in row]) for row in rows]))
    return torch.stack(found)


class TestGradients:
    @pytest.mark.parametrize("transformed", [False, True])
    @pytest.mark.parametrize("case", CASES)
    def test_equal_the_loops(self, case, transformed):
        kernel, net, points, centers, a, T = machine(case)
        T = T if transformed else None
        fast = patch_gradients(kernel, points, centers, a, T, same=SAME)
        slow = looped(points, centers, a, net, T)
        assert fast.shape == slow.shape
        for i in range(3):
            assert relative(fast[i], slow[i]) < 1e-10
        total = patch_agop(kernel, points, centers, a, T, same=SAME)
        rows = slow.flatten(0, 3)
        assert relative(total, rows.mT @ rows / 3) < 1e-10

    def test_the_agop_is_that_of_the_loops(self):
        kernel, net, points, centers, a, T = machine("even")
        assert (
            relative(
                patch_agop(kernel, points, centers, a, T, same=SAME), ref.agop(points, centers, a, net, T)
            )
            < 1e-10
        )

    @pytest.mark.parametrize("options", [{}, {"depth": 2, "head": "pool"}, {"kind": "nngp"}])
    def test_central_differences(self, options):
        """Patches side by side are pixels of their own: the kernel itself can be differentiated."""
        kernel = ConvKernel(patch_size=2, stride=2, **options)
        x, centers, a, T = randn(1, 2, 8, 10), randn(4, 2, 8, 10, seed=1), randn(4, 2, seed=2), randn(8, 8)
        gradients = patch_gradients(kernel, x, centers, a, T)[0]  # (h, w, classes, D)
        for seed in range(3):
            d = randn(1, 2, 8, 10, seed=seed)
            up, down = (kernel.matrix(x + e * d, centers, T) @ a for e in (1e-5, -1e-5))
            slope = torch.einsum("hwcd,hwd->c", gradients, kernel.patches(d)[0])
            assert relative(slope, (up - down)[0] / 2e-5) < 1e-7

    @pytest.mark.parametrize("options", [{}, {"depth": 1}, {"depth": 2, "head": "pool"}, {"kind": "nngp"}])
    def test_an_image_that_is_its_own_center_contributes_half_the_gradient_of_its_norm(self, options):
        kernel = ConvKernel(patch_size=2, stride=2, **options)
        x, T = randn(1, 2, 8, 8), randn(5, 8)
        gradients = patch_gradients(kernel, x, x, torch.ones(1, 1, dtype=f64), T)[0, :, :, 0]
        assert float(gradients.norm()) > 1
        for seed in range(3):
            d = randn(1, 2, 8, 8, seed=seed)
            up, down = (kernel.matrix(x + e * d, None, T) for e in (1e-5, -1e-5))
            slope = (gradients * kernel.patches(d)[0]).sum()
            assert float(slope) == pytest.approx(float(up - down) / 4e-5, rel=1e-7)

    def test_an_unnamed_copy_of_a_center_follows_the_same_rule(self):
        kernel, _, points, centers, a, T = machine("depth 3")
        named = patch_gradients(kernel, points, centers, a, T, same=SAME)
        for scale in (1.0, 3.7):  # another rounding of ρ
            found = patch_gradients(kernel, scale * points, centers, a, T)
            assert relative(found, named) < 1e-10
        single = patch_gradients(kernel, points.float(), centers.float(), a, T, dtype=f32)
        assert relative(single, named) < 1e-4

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_patches_that_vanish(self, depth):
        kernel, net = ConvKernel(2, depth), ref.Net(2, depth)
        centers, a = randn(2, 1, 6, 7, seed=1), torch.ones(2, 1, dtype=f64)
        centers[1] = 0
        x = torch.zeros(1, 1, 6, 7, dtype=f64)
        found = patch_gradients(kernel, x, centers, a)
        assert relative(found, looped(x, centers, a, net, None)) < 1e-12
        if depth == 1:
            expected = kernel.patches(centers[:1])[0] / 30  # v_p / (c · positions)
            assert relative(found[0, :, :, 0], expected) < 1e-14
        nothing = patch_gradients(kernel, randn(1, 1, 6, 7), centers[1:], a[1:])
        assert bool((nothing == 0).all())

    def test_a_transform_that_sends_patches_to_zero(self):
        kernel, net, points, centers, a, T = machine("even")
        T[1:] = 0
        T[0, 3:] = 0
        found = patch_gradients(kernel, points, centers, a, T, same=SAME)
        assert relative(found, looped(points, centers, a, net, T)) < 1e-8  # acos near ±1 in the loops
        assert bool((patch_gradients(kernel, points, centers, a, 0 * T) == 0).all())


class TestAgop:
    @settings(max_examples=8, deadline=None)
    @given(
        block=st.integers(50, 4000),
        gradients=st.integers(1, 20000),
        patches=st.integers(1, 20000),
        points=st.integers(1, 3),
        weights=st.integers(1, 3000),
        case=st.sampled_from(["depth 3", "stride", "pool"]),
    )
    def test_blocks_change_nothing(self, block, gradients, patches, points, weights, case):
        kernel, _, x, centers, a, T = machine(case, classes=5)
        centers, a = torch.cat([centers, randn(4, *centers.shape[1:], seed=5)]), randn(8, 5, seed=6)
        whole = patch_agop(kernel, x, centers, a, T, same=SAME)
        by_position = patch_gradients(kernel, x, centers, a, T, same=SAME)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conv_gradient, "_BLOCK", {"cpu": block})
            patch.setattr(conv_gradient, "_GRADIENTS", {"cpu": gradients})
            patch.setattr(conv_gradient, "_PATCHES", {"cpu": patches})
            patch.setattr(conv_gradient, "_POINTS", points)
            patch.setattr(conv_gradient, "_WEIGHTS", {"cpu": weights})
            assert relative(patch_agop(kernel, x, centers, a, T, same=SAME), whole) < 1e-12
            assert relative(patch_gradients(kernel, x, centers, a, T, same=SAME), by_position) < 1e-12

    @pytest.mark.parametrize("case", ["depth 3", "pool", "nngp"])
    def test_symmetric_and_positive(self, case):
        kernel, _, points, centers, a, T = machine(case)
        G = patch_agop(kernel, points, centers, a, T, same=SAME)
        assert torch.equal(G, G.mT)
        assert G.shape == (T.shape[1], T.shape[1])
        assert float(torch.linalg.eigvalsh(G).min()) > -1e-12 * float(G.trace())
        assert torch.linalg.matrix_rank(G) == len(T)

    @settings(max_examples=10, deadline=None)
    @given(st.floats(1e-3, 1e3), st.permutations(range(4)), st.permutations(range(3)))
    def test_order_and_scale(self, scale, centers_order, points_order):
        kernel, _, points, centers, a, _ = machine("depth 2", classes=3)
        G = patch_agop(kernel, points, centers, a, same=SAME)
        place = [centers_order.index(c) if c >= 0 else -1 for c in SAME[points_order].tolist()]
        permuted = patch_agop(
            kernel,
            points[points_order],
            centers[centers_order],
            scale * a[centers_order],
            same=torch.tensor(place),
        )
        assert relative(permuted, scale**2 * G) < 1e-11

    @pytest.mark.parametrize("classes", [3, 4, 11])
    def test_only_the_gram_matrix_of_the_coefficients_matters(self, classes):
        kernel, _, points, centers, a, T = machine("depth 2", classes=3)
        mixed = a @ torch.linalg.qr(randn(classes, 3, seed=9)).Q.mT
        G = patch_agop(kernel, points, centers, a, T, same=SAME)
        assert relative(patch_agop(kernel, points, centers, mixed, T, same=SAME), G) < 1e-11

    @pytest.mark.parametrize("case", ["depth 1", "depth 3", "padded", "pool"])
    def test_float32(self, case):
        kernel, _, points, centers, a, T = machine(case)
        G = patch_agop(kernel, points, centers, a, T, same=SAME)
        single = [points.float(), centers.float(), a.float(), T.float()]
        assert relative(patch_agop(kernel, *single, same=SAME), G) < 1e-5
        short = patch_agop(kernel, *single, same=SAME, dtype=f32)
        assert short.dtype == f32
        assert relative(short, G) < 1e-4

    def test_points_that_are_the_centers(self):
        kernel, _, _, centers, a, T = machine("depth 3")
        G = patch_agop(kernel, centers, centers, a, T)
        assert relative(patch_agop(kernel, centers.clone(), centers, a, T, same=torch.arange(4)), G) < 1e-14

    def test_the_same_to_the_last_bit(self, monkeypatch):
        kernel, _, _, centers, a, T = machine("depth 2", classes=5)
        monkeypatch.setattr(conv_gradient, "_POINTS", 1)
        monkeypatch.setattr(conv_gradient, "_GRADIENTS", {"cpu": 600})  # some classes at a time
        points = torch.cat([centers, centers + 1, centers * 2])
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            results = [patch_agop(kernel, points, centers, a, T) for _ in range(5)]
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(G, results[0]) for G in results)

    def test_without_coefficients(self):
        kernel, _, points, centers, a, _ = machine("depth 2")
        assert bool((patch_agop(kernel, points, centers, 0 * a, same=SAME) == 0).all())

    def test_threads_change_nothing_and_progress_ends_at_the_total(self, monkeypatch):
        kernel, _, points, centers, a, T = machine("depth 3")
        monkeypatch.setattr(conv_gradient, "_PATCHES", {"cpu": 1})
        monkeypatch.setattr(conv_gradient, "_POINTS", 1)
        centers, a = torch.cat([centers, centers + 1, centers - 1]), randn(12, 2)
        before, results = torch.get_num_threads(), []
        try:
            for count in (1, 3):
                torch.set_num_threads(count)
                seen = []
                with torch.inference_mode():
                    results.append(
                        patch_agop(
                            kernel,
                            points,
                            centers,
                            a,
                            T,
                            same=SAME,
                            progress=lambda *p, seen=seen: seen.append(p),
                        )
                    )
                assert seen == sorted(seen)
                assert seen[-1] == (36, 36)
                assert len(seen) > 3
        finally:
            torch.set_num_threads(before)
        assert relative(*results) < 1e-13


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"points": randn(3, 36)}, "reshape flat vectors"),
            ({"points": randn(3, 2, 6, 6, dtype=f32)}, "one size, dtype and device"),
            ({"points": randn(3, 2, 2, 2), "centers": randn(4, 2, 2, 2)}, "at least 5 × 5, got 2 × 2"),
            ({"centers": randn(4, 1, 6, 6)}, "one size, dtype and device"),
            ({"coefficients": randn(3, 2)}, r"4 centers need real coefficients \(4, classes\)"),
            ({"coefficients": randn(4)}, r"got torch.float64 of shape \(4,\)"),
            ({"coefficients": randn(4, 0)}, "need real coefficients"),
            ({"coefficients": torch.ones(4, 2).long()}, "need real coefficients"),
            ({"coefficients": randn(4, 2) * math.nan}, "not finite: check the fit"),
            ({"coefficients": randn(4, 9) * math.inf}, "not finite: check the fit"),
            ({"transform": randn(4, 9)}, r"shape \(k, 18\)"),
            ({"same": torch.tensor([0, 1])}, "for each of 3 points"),
            ({"same": torch.tensor([0.0, 1.0, 2.0])}, "got torch.float32"),
            ({"same": torch.tensor([0, 1, 4])}, "must be in -1 … 3, got 0 … 4"),
            ({"same": torch.tensor([-2, 1, 2])}, "got -2 … 2"),
            ({"dtype": torch.float16}, "runs in float32 or float64"),
        ],
    )
    def test_arguments(self, change, match):
        given_ = {"points": randn(3, 2, 6, 6), "centers": randn(4, 2, 6, 6), "coefficients": randn(4, 2)}
        given_ |= {"transform": None} | change
        for call in (patch_agop, patch_gradients):
            with pytest.raises(NfaError, match=match):
                call(ConvKernel(depth=2), **given_)
