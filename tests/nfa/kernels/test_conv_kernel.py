"""The convolutional kernel against loops, the printed values of neural-tangents, and finite networks."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nfa.errors import NfaError
from nfa.kernels import conv, conv_recursion
from nfa.kernels.conv import ConvKernel, CostWarning
from nfa.kernels.conv_workers import cores, run_tasks
from nfa.kernels.spans import even_spans, spans
from nfa.reference import conv_kernel_by_autograd as ref

f32, f64 = torch.float32, torch.float64

CASES = {  # options, shape of an image
    "depth 1": ({"depth": 1}, (3, 5, 6)),
    "depth 2": ({"depth": 2}, (1, 6, 5)),
    "depth 3": ({"depth": 3}, (2, 7, 8)),
    "one pixel": ({"depth": 2, "patch_size": 1}, (2, 3, 4)),
    "even": ({"depth": 3, "patch_size": 2}, (2, 5, 4)),
    "even, padded": ({"depth": 2, "patch_size": 4, "padding": "zero"}, (1, 5, 6)),
    "padded": ({"depth": 3, "padding": "zero"}, (2, 5, 6)),
    "stride": ({"depth": 2, "stride": 2}, (2, 8, 10)),
    "stride 3, padded": ({"depth": 2, "stride": 3, "patch_size": 2, "padding": "zero"}, (3, 7, 5)),
    "wide windows": ({"depth": 2, "patch_size": 5}, (1, 9, 10)),
    "nngp": ({"depth": 3, "kind": "nngp", "patch_size": 2}, (2, 6, 5)),
    "pool": ({"depth": 2, "head": "pool", "patch_size": 2}, (2, 4, 5)),
    "pool, depth 3": ({"depth": 3, "head": "pool", "patch_size": 2}, (1, 4, 5)),
    "pool, nngp": ({"depth": 1, "head": "pool", "kind": "nngp"}, (2, 4, 5)),
}


def randn(*shape, seed=0, dtype=f64):
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative(A, B):
    return float((A.double() - B.double()).norm() / B.double().norm())


def problem(case, n=3, m=4):
    """Kernel, its reference, images, others, and a transform that is no symmetric matrix."""
    options, image = CASES[case]
    kernel = ConvKernel(**options)
    T = randn(5, image[0] * kernel.patch_size**2, seed=3)
    return kernel, ref.Net(**options), randn(n, *image), randn(m, *image, seed=1), T


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class TestValues:
    @pytest.mark.parametrize("transformed", [False, True])
    @pytest.mark.parametrize("case", CASES)
    def test_equals_the_loops(self, case, transformed):
        kernel, net, X, Z, T = problem(case, 2, 3)
        T = T if transformed else None
        assert relative(kernel.matrix(X, Z, T), ref.matrix(X, Z, net, T)) < 1e-12

    @pytest.mark.parametrize("case", ["depth 3", "pool", "nngp", "even, padded"])
    def test_of_images_with_themselves(self, case):
        kernel, net, X, _, T = problem(case, 4)
        K = kernel.matrix(X, None, T)
        assert torch.equal(K, K.T)
        assert torch.equal(K, kernel.matrix(X, X, T))
        assert relative(K, ref.matrix(X, X, net, T)) < 1e-10
        assert float(torch.linalg.eigvalsh(K).min()) > 0

    def test_equals_neural_tangents(self):
        """Numbers printed by neural-tangents 0.6.5 (jax 0.4.25) for the same images, channels last."""
        X = torch.sin(1.0 + torch.arange(120, dtype=f64).view(2, 2, 6, 5) ** 1.5)
        printed = {  # patch_size, depth: NTK and NNGP off the diagonal, NNGP on it
            (3, 1): (1.040961053757282, 1.171144874847543, 3.876833729097824),
            (2, 3): (30.46475082123405, 18.02424125199954, 27.183114749233628),
            (3, 2): (22.962815570338794, 17.85828582612038, 34.90968922117764),
        }
        for (ps, depth), (ntk, nngp, own) in printed.items():
            assert float(ConvKernel(ps, depth).matrix(X)[0, 1]) == pytest.approx(ntk, rel=1e-12)
            N = ConvKernel(ps, depth, kind="nngp").matrix(X)
            assert N[0].tolist() == pytest.approx([own, nngp], rel=1e-12)

    def test_one_pixel_is_a_network_of_two_layers(self):
        x, z = randn(3), randn(3, seed=1)
        rho = float(x @ z / (x.norm() * z.norm()))
        angle = math.pi - math.acos(rho)
        k1 = float(x.norm() * z.norm()) / 3 * (math.sqrt(1 - rho**2) + angle * rho) / math.pi
        k = ConvKernel(patch_size=1, depth=1).matrix(x.view(1, 3, 1, 1), z.view(1, 3, 1, 1))
        assert float(k) == pytest.approx(k1 + float(x @ z) / 3 * angle / math.pi, rel=1e-12)

    def test_agrees_with_finite_networks(self):
        kernel, X = ConvKernel(depth=2), randn(2, 2, 6, 6, dtype=f32)
        ntk, nngp = torch.zeros(2, 2), torch.zeros(2, 2)
        for seed in range(60):
            A, B = _tangents(X, 192, seed)
            ntk, nngp = ntk + A / 60, nngp + B / 60
        assert relative(ntk, kernel.matrix(X)) < 0.05
        assert relative(nngp, ConvKernel(depth=2, kind="nngp").matrix(X)) < 0.05

    def test_pooling_one_position_is_flattening_it(self):
        X = randn(4, 2, 5, 5)
        assert relative(ConvKernel(3, 2, head="pool").matrix(X), ConvKernel(3, 2).matrix(X)) < 1e-14

    def test_patches_are_those_of_unfold(self):
        X = randn(3, 2, 6, 7)
        for kernel in (ConvKernel(2, 1), ConvKernel(3, 1, stride=2), ConvKernel(4, 1, padding="zero")):
            border = kernel.patch_size // 2 * (kernel.padding == "zero")
            expected = nn.functional.unfold(X, kernel.patch_size, padding=border, stride=kernel.stride).mT
            P = kernel.patches(X)
            assert P.is_contiguous()
            assert torch.equal(P.flatten(1, 2), expected)
            assert P.shape[1:3] == kernel.shape(X).maps[0]


def _tangents(X, width, seed):
    """Inner products of the gradients of one network by all its weights, and by those of its last layer."""
    torch.manual_seed(seed)
    W = [torch.randn(width, 2, 3, 3), torch.randn(width, width, 3, 3), torch.randn(width * 4)]
    grads = []
    for x in X:
        leaves = [w.requires_grad_() for w in W]
        h = x[None]
        for w in leaves[:2]:
            h = nn.functional.conv2d(h, w / w.shape[1] ** 0.5).relu() * 2**0.5
        f = h.flatten() @ leaves[2] / leaves[2].numel() ** 0.5
        grads.append(torch.autograd.grad(f, leaves))
    A = [torch.tensor([[float((a[k] * b[k]).sum()) for a in grads] for b in grads]) for k in range(3)]
    return sum(A), A[2]


class TestInvariances:
    @settings(max_examples=12, deadline=None)
    @given(
        n=st.integers(1, 9),
        m=st.integers(1, 9),
        block=st.integers(1, 3000),
        side=st.integers(1, 9),
        part=st.integers(1, 9),
        case=st.sampled_from(["depth 3", "wide windows", "pool", "stride 3, padded"]),
    )
    def test_blocks_change_nothing(self, n, m, block, side, part, case):
        kernel, _, X, Z, T = problem(case, n, m)
        whole, symmetric = kernel.matrix(X, Z, T), kernel.matrix(X, None, T)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conv, "_BLOCK", {"cpu": block})
            patch.setattr(conv, "_SIDE", side)
            patch.setattr(ConvKernel, "_part", lambda *_: part)
            assert relative(kernel.matrix(X, Z, T), whole) < 1e-13
            K = kernel.matrix(X, None, T)
        assert torch.equal(K, K.T)
        assert relative(K, symmetric) < 1e-13

    @settings(max_examples=10, deadline=None)
    @given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.sampled_from(["depth 3", "pool"]))
    def test_homogeneous_in_both_images_and_in_the_transform(self, s, t, case):
        kernel, _, X, Z, T = problem(case, 2, 2)
        assert relative(kernel.matrix(s * X, t * Z, T), s * t * kernel.matrix(X, Z, T)) < 1e-12
        assert relative(kernel.matrix(X, Z, s * T), s * s * kernel.matrix(X, Z, T)) < 1e-12

    def test_only_the_gram_matrix_of_the_transform_matters(self):
        kernel, _, X, Z, T = problem("depth 3")
        K, R = kernel.matrix(X, Z, T), torch.linalg.qr(T).R
        assert relative(kernel.matrix(X, Z, R), K) < 1e-12
        assert relative(kernel.matrix(X, Z, torch.linalg.qr(randn(7, 5)).Q @ T), K) < 1e-12
        eye = torch.eye(T.shape[1], dtype=f64)
        assert relative(kernel.matrix(X, Z, eye), kernel.matrix(X, Z)) < 1e-12

    @pytest.mark.parametrize("size", range(1, 14))
    def test_window_sums(self, size):
        X = randn(14, 15, 3)
        slow = torch.stack([X[r : r + size].sum(0) for r in range(15 - size)])
        slow = torch.stack([slow[:, c : c + size].sum(1) for c in range(16 - size)], 1)
        assert relative(conv_recursion.window_sums(X, size), slow) < 1e-14

    @pytest.mark.parametrize("ranges", [spans, even_spans])
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 50), st.integers(1, 60))
    def test_spans_cover(self, ranges, length, step):
        covered = [k for part in ranges(length, step) for k in range(part.start, part.stop)]
        assert covered == list(range(length))
        assert all(part.stop - part.start <= step for part in ranges(length, step))


class TestAwkwardImages:
    def test_patches_that_vanish(self):
        kernel, net, X, Z, T = problem("depth 3")
        X[0, :, :, :5], Z[1, :, 3:], Z[2] = 0, 0, 0
        for transform in (None, T):
            K = kernel.matrix(X, Z, transform)
            assert relative(K, ref.matrix(X, Z, net, transform)) < 1e-12
            assert bool((K[:, 2] == 0).all())
        assert bool((kernel.matrix(Z)[2] == 0).all())

    def test_a_transform_that_sends_patches_to_zero(self):
        kernel, net, X, Z, T = problem("even")
        T[:, 1:] = 0  # sees one pixel of every patch
        X[:, 0, :3] = 0
        assert relative(kernel.matrix(X, Z, T), ref.matrix(X, Z, net, T)) < 1e-8  # acos near ±1 in the loops
        assert bool((kernel.matrix(X, Z, 0 * T) == 0).all())

    def test_opposite_images_are_orthogonal(self):
        X, kernel = randn(2, 2, 6, 6), ConvKernel(depth=1)
        assert float(kernel.matrix(X, -X).diagonal().abs().max()) < 1e-12 * float(kernel.matrix(X).max())

    @pytest.mark.parametrize("dtype", [f32, f64])
    def test_constant_images(self, dtype):
        X = torch.tensor([0.3, 0.7, 1.1], dtype=dtype).view(3, 1, 1, 1).expand(3, 2, 7, 7)
        K = ConvKernel(depth=2).matrix(X, X.clone())
        assert relative(K, ConvKernel(depth=2).matrix(X)) < (1e-6 if dtype == f32 else 1e-14)
        assert torch.linalg.matrix_rank(K, rtol=1e-5) == 1

    def test_equal_patches_in_float32(self):
        """A flat background: rounding of ρ = 1 would leave four digits of κ₀."""
        X = torch.full((6, 3, 12, 12), 0.7)
        X[:, :, 2:7, 3:8] = randn(6, 3, 5, 5, dtype=f32)
        assert relative(ConvKernel().matrix(X), ConvKernel().matrix(X.double())) < 1e-5
        assert relative(ConvKernel().matrix(X, X.clone()), ConvKernel().matrix(X.double())) < 1e-5

    @pytest.mark.parametrize("case", CASES)
    def test_float32(self, case):
        kernel, _, X, Z, T = problem(case)
        assert relative(kernel.matrix(X.float(), Z.float(), T.float()), kernel.matrix(X, Z, T)) < 1e-5

    @pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
    def test_deep_and_of_any_scale(self, scale):
        kernel, X = ConvKernel(2, 12), randn(3, 1, 14, 14)
        exact = kernel.matrix(X)
        assert relative(kernel.matrix((scale * X).float()) / scale / scale, exact) < 1e-5

    def test_pixels_of_very_different_images(self):
        X = randn(2, 1, 6, 6)
        X[1] *= 1e-10
        K = ConvKernel(depth=2).matrix(X.float()).double()
        assert float(((K - ConvKernel(depth=2).matrix(X)) / K).abs().max()) < 1e-5


class TestCalls:
    def test_written_where_asked(self):
        kernel, _, X, Z, _ = problem("depth 2", 5, 6)
        out = torch.zeros(6, 5, dtype=f64).mT
        assert kernel.matrix(X, Z, out=out) is out
        assert torch.equal(out, kernel.matrix(X, Z))

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("same", [False, True])
    def test_progress_ends_at_the_total(self, count, same, threads, monkeypatch):
        threads(count)
        monkeypatch.setattr(conv, "_SIDE", 2)
        monkeypatch.setattr(ConvKernel, "_part", lambda *_: 4)
        kernel, _, X, Z, _ = problem("depth 2", 7, 5)
        seen = []
        kernel.matrix(X, None if same else Z, progress=lambda done, total: seen.append((done, total)))
        assert seen == sorted(seen)
        assert seen[-1] == ((28, 28) if same else (35, 35))
        assert len(seen) > 2

    def test_threads_change_nothing(self, threads, monkeypatch):
        monkeypatch.setattr(conv, "_SIDE", 2)
        kernel, _, X, Z, _ = problem("depth 3", 9, 7)
        results = []
        for count in (1, 3):
            threads(count)
            monkeypatch.setattr(conv, "_BLOCK", {"cpu": 2000})
            with torch.inference_mode():
                results.append((kernel.matrix(X, Z), kernel.matrix(X)))
            assert torch.get_num_threads() == count
        assert relative(results[0][0], results[1][0]) < 1e-14
        assert relative(results[0][1], results[1][1]) < 1e-14

    @pytest.mark.parametrize("count", [1, 3])
    def test_an_error_in_a_thread_comes_out(self, count, threads):
        threads(count)
        done = []

        def worker(task):
            if task == 7:
                raise IndexError("seven")

        with cores(torch.device("cpu")) as granted:
            assert (granted, torch.get_num_threads()) == (count, 1)
            with pytest.raises(IndexError, match="seven"):
                run_tasks(range(100), lambda: worker, granted, done.append)
        assert torch.get_num_threads() == count
        assert len(done) < 100
        run_tasks([], lambda: worker, count)

    def test_gradients_are_not_tracked(self):
        kernel, _, X, _, T = problem("depth 2")
        assert not kernel.matrix(X.requires_grad_(), None, T.requires_grad_()).requires_grad

    def test_memory(self):
        kernel, X, T = ConvKernel(), torch.zeros(200, 3, 32, 32), torch.zeros(20, 27)
        result, patches = 200 * 200 * 4, 200 * 30 * 30 * 4
        assert result + patches * 27 < kernel.memory(X) < result + patches * 27 + 6e7
        assert kernel.memory(X, None, T) <= kernel.memory(X) - 7 * patches
        assert kernel.memory(X, X[:10]) > kernel.memory(X[:10])
        many = X.expand(100, 200, 3, 32, 32).flatten(0, 1)[:4000]
        assert kernel.memory(many) < 3 * 4000 * 4000 * 4 + 2**29

    def test_pooling_warns_of_its_cost(self, monkeypatch):
        kernel, X = ConvKernel(2, 1, head="pool"), randn(3, 1, 5, 5)
        kernel.matrix(X)
        monkeypatch.setattr(conv, "_LONG", 100)
        with pytest.warns(CostWarning, match="head='flatten'"):
            kernel.matrix(X)


class TestErrors:
    X = randn(3, 2, 6, 6)

    @pytest.mark.parametrize(
        ("option", "match"),
        [
            ({"depth": 0}, "depth must be a whole number of 1 or more, got 0"),
            ({"depth": True}, "depth must be"),
            ({"patch_size": 0}, "patch_size must be"),
            ({"patch_size": 3.0}, "patch_size must be"),
            ({"stride": -1}, "stride must be"),
            ({"padding": "same"}, "padding must be one of none, zero, got 'same'"),
            ({"head": "mean"}, "head must be one of flatten, pool"),
            ({"kind": "NTK"}, "kind must be one of ntk, nngp"),
        ],
    )
    def test_options(self, option, match):
        with pytest.raises(NfaError, match=match):
            ConvKernel(**option)

    @pytest.mark.parametrize(
        ("X", "match"),
        [
            (X.flatten(1), r"\(n, channels, height, width\).*\(3, 72\): reshape flat vectors"),
            (X[0], "must be images"),
            (X[:0], "must be images"),
            (X.long(), "got torch.int64"),
            (X.half(), "float32 or float64, got torch.float16"),
            (X * math.nan, "not finite: remove or repair"),
            (X + math.inf, "not finite"),
            (X.float() * 1e30, "too large to be multiplied: rescale"),
        ],
    )
    def test_images(self, X, match):
        for call in (ConvKernel(depth=1).matrix, ConvKernel(depth=1).patches):
            with pytest.raises(NfaError, match=match):
                call(X)
        with pytest.raises(NfaError, match=match):
            ConvKernel(depth=1).matrix(self.X, X)

    @pytest.mark.parametrize("Z", [X[:, :1], X[..., :5], X.float()])
    def test_images_that_differ(self, Z):
        with pytest.raises(NfaError, match="one size, dtype and device"):
            ConvKernel(depth=1).matrix(self.X, Z)

    @pytest.mark.parametrize(
        ("options", "least"),
        [({}, 7), ({"depth": 4}, 9), ({"patch_size": 4, "depth": 2, "stride": 2}, 10)],
    )
    def test_images_smaller_than_what_the_network_sees(self, options, least):
        kernel = ConvKernel(**options)
        with pytest.raises(NfaError, match=re.escape(f"at least {least} × {least}, got 6 × 6")):
            kernel.matrix(self.X)
        kernel.matrix(randn(1, 1, least, least))
        with pytest.raises(NfaError, match="at least"):
            kernel.matrix(randn(1, 1, least, least - 1))

    @pytest.mark.parametrize(
        ("T", "match"),
        [
            (randn(18), r"shape \(k, 18\)"),
            (randn(18, 9), "3 × 3, must be real"),
            (randn(0, 18), r"shape \(k, 18\)"),
            (torch.eye(18).long(), "must be real"),
            (torch.eye(18) * math.nan, "check the AGOP"),
        ],
    )
    def test_transform(self, T, match):
        with pytest.raises(NfaError, match=match):
            ConvKernel(depth=1).matrix(self.X, None, T)

    @pytest.mark.parametrize("out", [torch.zeros(3, 2, dtype=f64), torch.zeros(3, 3)])
    def test_out(self, out):
        with pytest.raises(NfaError, match=r"out must be torch\.float64"):
            ConvKernel(depth=1).matrix(self.X, out=out)

    def test_depth_beyond_the_range_of_the_dtype(self):
        kernel, X = ConvKernel(2, 24), randn(1, 1, 25, 25)
        with pytest.raises(NfaError, match="float64"):
            kernel.matrix(X.float())
        assert bool(kernel.matrix(X).isfinite().all())


@pytest.mark.parametrize("options", [{}, {"kind": "nngp"}, {"depth": 3, "patch_size": 2, "head": "pool"}])
def test_rows_that_wait_for_their_window_are_moved_to_the_front(options, monkeypatch):
    """Images of more rows than fit beside the ones under way: the same values from a row at a time."""
    kernel, X, Z = ConvKernel(**{"depth": 2, **options}), randn(3, 1, 15, 6), randn(2, 1, 15, 6, seed=1)
    moved, plain = [], conv_recursion._Rows.push

    def push(self, Y):
        moved.append(self.stop + Y.shape[1] > self.ring.shape[1])
        return plain(self, Y)

    expected = ref.Net(**{"depth": 2, **options})
    monkeypatch.setitem(conv._BLOCK, "cpu", 6)
    monkeypatch.setattr(conv_recursion._Rows, "push", push)
    found = kernel.matrix(X, Z)
    assert any(moved)
    assert relative(found, ref.matrix(X, Z, expected)) < 1e-12
