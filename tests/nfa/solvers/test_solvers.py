"""Solvers of (K + ridge I) A = Y against torch.linalg.solve in float64."""

import dataclasses
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from nfa.errors import NfaError
from nfa.kernels import Gaussian, KernelOperator, Laplace, kernel_product
from nfa.solvers import (
    IllConditionedWarning,
    MatrixOperator,
    NotConvergedWarning,
    blocked,
    cholesky,
    cholesky_bytes,
    conjugate_gradients,
    direct,
    nystrom,
    ridge_path,
    solve,
)

f32, f64 = torch.float32, torch.float64


def randn(*shape, seed=0, dtype=f64):
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative(A, B):
    return float((A.double() - B.double()).norm() / B.double().norm())


def system(n=80, d=5, c=3, dtype=f64, bandwidth=3.0):
    X = randn(n, d, dtype=dtype)
    return Laplace(bandwidth).matrix(X), randn(n, c, seed=1, dtype=dtype), X


def oracle(K, Y, ridge):
    return torch.linalg.solve(K.double() + ridge * torch.eye(len(K), dtype=f64), Y.double())


def residual(K, A, Y, ridge):
    R = K.double() @ A.double() + ridge * A.double() - Y.double()
    return float((R.norm(dim=0) / Y.double().norm(dim=0)).max())


def duplicated(dtype=f64, n=40):
    """A kernel matrix of n points, ten of them twice, with targets that agree."""
    _, Y, X = system(n - 10, dtype=dtype)
    X, Y = torch.cat([X, X[:10]]), torch.cat([Y, Y[:10]])
    return Laplace(3.0).matrix(X), Y, X


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocked, "_BLOCK", 16)
    monkeypatch.setattr(direct, "FEW", 0)


# ---- Cholesky --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 70),
    c=st.integers(1, 4),
    block=st.sampled_from([None, 1, 7, 16, 512]),
    dtype=st.sampled_from([f32, f64]),
    overwrite=st.booleans(),
    ridge=st.sampled_from([1e-4, 1e-2, 10.0]),
    seed=st.integers(0, 10**6),
)
def test_cholesky_solves(n, c, block, dtype, overwrite, ridge, seed):
    K, Y = Laplace(3.0).matrix(randn(n, 4, seed=seed, dtype=dtype)), randn(n, c, seed=seed + 1, dtype=dtype)
    before, A = K.clone(), oracle(K, Y, ridge)
    with pytest.MonkeyPatch.context() as patch:
        if block is not None:  # else in one call
            patch.setattr(blocked, "_BLOCK", block)
            patch.setattr(direct, "FEW", 0)
        found = cholesky(K, Y, ridge, overwrite=overwrite)
    assert relative(found.coefficients, A) < (1e-5 if dtype == f32 else 1e-10)
    assert (found.coefficients.dtype, found.coefficients.shape) == (dtype, Y.shape)
    assert (found.method, found.ridge, found.jitter, found.rank) == ("cholesky", ridge, 0.0, 0)
    assert found.residual == pytest.approx(
        residual(before, found.coefficients, Y, ridge), rel=1e-2, abs=1e-12
    )
    assert torch.equal(K.triu(), before.triu())
    assert overwrite or torch.equal(K, before)


def test_factor_is_the_cholesky_factor(small_blocks):
    K, _, _ = system(50)
    factor = blocked.BlockFactor(K, f64, overwrite=False)
    assert factor.decompose(0.1)
    L = torch.linalg.cholesky(K + 0.1 * torch.eye(50, dtype=f64))
    for k, (block, panel) in enumerate(zip(factor._diagonal, factor._panels, strict=True)):
        s = slice(16 * k, min(16 * k + 16, 50))
        assert torch.allclose(block, L[s, s], rtol=1e-12, atol=1e-14)
        assert torch.allclose(panel, L[s.stop :, s], rtol=1e-12, atol=1e-14)


def test_targets_may_be_a_vector_or_whole_numbers():
    K, Y, _ = system()
    assert torch.equal(cholesky(K, Y[:, 0], 0.1).coefficients, cholesky(K, Y[:, :1], 0.1).coefficients[:, 0])
    labels = torch.arange(80) % 3
    assert relative(cholesky(K, labels, 0.1).coefficients, oracle(K, labels[:, None], 0.1)[:, 0]) < 1e-11
    zero = cholesky(K, torch.zeros(80, 2, dtype=f64), 0.1)
    assert not zero.coefficients.any()
    assert zero.residual == 0


def test_refinement_gives_float32_its_digits(small_blocks):
    X = randn(200, 3, dtype=f32)
    K, Y = Gaussian(1.0).matrix(X), randn(200, 2, seed=1, dtype=f32)
    found = cholesky(K, Y, 1e-3)
    assert found.precision == "float32"
    assert found.iterations >= 1
    assert relative(found.coefficients, oracle(K, Y, 1e-3)) < 1e-6


def test_float64_factor_where_float32_fails(small_blocks):
    X = randn(200, 2, dtype=f32)
    K, Y = Gaussian(3.0).matrix(X), X.sin()
    found = cholesky(K, Y, 2e-6)
    assert found.precision == "float64"
    assert found.jitter == 0
    assert relative(found.coefficients, oracle(K, Y, 2e-6)) < 1e-4
    with pytest.warns(IllConditionedWarning, match=r"no Cholesky factor in float32.* jitter of"):
        less = cholesky(K, Y, 2e-6, memory=1000.0)
    assert less.precision == "float32"
    assert less.jitter > 0
    with pytest.warns(IllConditionedWarning, match="coefficients are so large that in float32"):
        wild = cholesky(K, randn(200, 2, seed=1, dtype=f32), 2e-6)
    assert wild.precision == "float64"


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("overwrite", [False, True])
def test_duplicates_at_ridge_zero_are_named(dtype, overwrite, small_blocks):
    K, Y, _ = duplicated(dtype)
    with pytest.warns(
        IllConditionedWarning, match="10 of the 40 rows are duplicates of another up to rounding"
    ):
        found = cholesky(K.clone(), Y, 0.0, overwrite=overwrite)
    assert 0 < found.jitter < 1e-4
    assert found.residual < (1e-3 if dtype == f32 else 1e-6)
    assert relative(found.coefficients[:10], found.coefficients[30:]) < 1e-2
    assert f"jitter {found.jitter:.2g}" in str(found)


def test_duplicates_with_a_ridge_share_their_coefficients():
    K, Y, _ = duplicated()
    found = cholesky(K, Y, 1e-3)
    assert found.jitter == 0
    assert relative(found.coefficients[:10], found.coefficients[30:]) < 1e-10


def test_jitter_grows(small_blocks):
    K, Y, _ = system(40)
    values, Q = torch.linalg.eigh(K)
    values[0] = -1e-7
    broken = Q * values @ Q.T
    with pytest.warns(IllConditionedWarning, match="larger ridge"):
        found = cholesky(broken, Y, 0.0)
    assert 1e-7 < found.jitter < 2e-6
    assert math.isfinite(found.residual)
    with pytest.raises(NfaError, match="must be positive semi-definite"):
        cholesky(K - 2 * torch.eye(40, dtype=f64), Y, 0.0)


def test_kernel_of_a_zero_metric():
    ones, Y = torch.ones(30, 30, dtype=f64), randn(30, 2)
    found = cholesky(ones, Y, 1e-2)
    assert relative(found.coefficients, oracle(ones, Y, 1e-2)) < 1e-9
    with pytest.warns(IllConditionedWarning, match="29 of the 30 rows are duplicates"):
        cholesky(ones, Y)


def test_cholesky_refuses():
    K, Y, _ = system(6)
    nan = K.clone()
    nan[1, 2] = math.nan
    for arguments, message in [
        ((K[:, :5], Y, 0.1), "must be square"),
        ((K.half(), Y, 0.1), "float32 or float64"),
        ((nan, Y, 0.1), "matrix has entries that are not finite"),
        ((K, Y[:5], 0.1), r"targets \(6,\) or \(6, c\), got \(5, 3\)"),
        ((K, Y / 0, 0.1), "targets have values that are not finite"),
        ((K, Y, -0.1), "ridge must be a finite number >= 0, got -0.1"),
        ((K, Y, math.nan), "ridge must be"),
    ]:
        with pytest.raises(NfaError, match=message):
            cholesky(*arguments)
    with pytest.raises(NfaError, match="memory must be a positive number"):
        solve(K, Y, 0.1, memory=-1)


# ---- conjugate gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("rank", [0, 20])
def test_conjugate_gradients_solve(dtype, rank):
    K, Y, X = system(200, dtype=dtype)
    operator = KernelOperator(Laplace(3.0), X, 4096)
    preconditioner = nystrom(operator, 1e-3, rank) if rank else None
    tol = 1e-5 if dtype == f32 else 1e-10
    found = conjugate_gradients(operator, Y, 1e-3, preconditioner, tol=tol)
    assert found.residual <= tol
    assert found.residual == pytest.approx(residual(K, found.coefficients, Y, 1e-3), rel=0.1)
    assert relative(found.coefficients, oracle(K, Y, 1e-3)) < 1e3 * tol
    assert (found.method, found.rank, found.coefficients.dtype) == ("cg", rank, dtype)
    assert f"preconditioner of rank {rank}" in str(found)


def test_exact_after_as_many_steps_as_eigenvalues():
    Q = torch.linalg.qr(randn(30, 30)).Q
    K = Q * torch.tensor([1.0, 2.0, 5.0], dtype=f64).repeat(10) @ Q.T
    found = conjugate_gradients(MatrixOperator(K), randn(30, 2, seed=1), tol=1e-10)
    assert found.iterations == 3


def test_any_function_is_an_operator():
    K, Y, _ = system()
    found = conjugate_gradients(lambda V: K @ V, Y[:, 0], 0.1, tol=1e-9)
    assert relative(found.coefficients, oracle(K, Y[:, :1], 0.1)[:, 0]) < 1e-8


def test_columns_of_any_scale_and_of_zeros():
    K, Y, _ = system()
    Y = Y * torch.tensor([1e-12, 0.0, 1e12], dtype=f64)
    found = conjugate_gradients(MatrixOperator(K), Y, 0.1, tol=1e-8)
    A = oracle(K, Y, 0.1)
    for column in (0, 2):
        assert relative(found.coefficients[:, column], A[:, column]) < 1e-6
    assert not found.coefficients[:, 1].any()
    nothing = conjugate_gradients(MatrixOperator(K), 0 * Y, 0.1)
    assert nothing.iterations == 0
    assert nothing.residual == 0


def test_preconditioner_saves_iterations():
    X = randn(400, 3)
    operator, Y = MatrixOperator(Gaussian(1.0).matrix(X)), randn(400, 2, seed=1)
    plain = conjugate_gradients(operator, Y, 1e-2, tol=1e-8)
    helped = conjugate_gradients(operator, Y, 1e-2, nystrom(operator, 1e-2, 150), tol=1e-8)
    assert helped.iterations < plain.iterations / 5
    assert relative(helped.coefficients, plain.coefficients) < 1e-3


def test_preconditioner_of_full_rank_is_the_inverse():
    K, Y, X = system(60)
    P = nystrom(KernelOperator(Laplace(3.0), X), 0.1, 60)
    assert P.rank == 60
    assert relative(P(Y), oracle(K, Y, 0.1)) < 1e-6
    assert torch.allclose(P.U.T @ P.U, torch.eye(60, dtype=f64), atol=1e-9)


def test_preconditioner_is_symmetric_positive_definite_for_duplicates():
    _, _, X = duplicated(n=60)
    P = nystrom(KernelOperator(Laplace(3.0), X), 1e-6, 40)
    inverse = P(torch.eye(60, dtype=f64))
    assert torch.allclose(inverse, inverse.T, rtol=1e-8, atol=1e-8)
    assert torch.linalg.eigvalsh(inverse)[0] > 0
    ones = nystrom(MatrixOperator(torch.ones(50, 50)), 0.0, 10)
    assert ones.rank == 1
    assert math.isfinite(float(ones(torch.ones(50, 1)).sum()))
    with pytest.raises(NfaError, match="between 1 and the 50 points"):
        nystrom(MatrixOperator(torch.ones(50, 50)), 0.0, 51)


def test_preconditioner_of_nothing_and_of_what_is_no_kernel_matrix():
    K, Y = torch.zeros(40, 40, dtype=f64), randn(40, 2)
    for ridge, delta in ((0.5, 0.5), (0.0, 1.0)):
        P = nystrom(MatrixOperator(K), ridge, 10)
        assert P.rank == 0
        assert torch.allclose(P(Y), Y / delta)
    assert torch.allclose(solve(K, Y, 0.5, method="cg").coefficients, Y / 0.5)
    K[20:, 20:] = torch.eye(20, dtype=f64)  # the columns chosen may all be zero, and others not
    assert torch.allclose(solve(K, Y, 0.5, method="cg", rank=2).coefficients, oracle(K, Y, 0.5))
    for bad in (-torch.eye(40, dtype=f64), torch.ones(40, 40, dtype=f64).fill_diagonal_(0)):
        with pytest.raises(NfaError, match="must be positive semi-definite, got a diagonal with the sum"):
            nystrom(MatrixOperator(bad), 0.1, 10)


def test_warm_start_and_progress():
    K, Y, _ = system(200)
    operator, seen = MatrixOperator(K), []
    cold = conjugate_gradients(operator, Y, 1e-2, tol=1e-8, progress=lambda i, r: seen.append((i, r)))
    assert [i for i, _ in seen] == list(range(1, cold.iterations + 1))
    assert seen[-1][1] == pytest.approx(cold.residual, rel=0.1)
    warm = conjugate_gradients(operator, Y, 1.01e-2, tol=1e-8, start=cold.coefficients)
    assert 0 < warm.iterations < cold.iterations
    again = conjugate_gradients(operator, Y, 1e-2, tol=1e-8, start=cold.coefficients)
    assert again.iterations == 0
    assert torch.equal(again.coefficients, cold.coefficients)


def test_not_converged_is_a_warning():
    K, Y, X = system(200)
    with pytest.warns(NotConvergedWarning, match="instead of 1.0e-08 after 3 iterations"):
        found = conjugate_gradients(MatrixOperator(K), Y, 1e-4, tol=1e-8, max_iterations=3)
    assert found.iterations == 3
    assert found.residual == pytest.approx(residual(K, found.coefficients, Y, 1e-4), rel=1e-6)
    operator = KernelOperator(Laplace(3.0), X.float())
    with pytest.warns(NotConvergedWarning, match="use float64"):  # below what float32 coefficients can say
        stuck = conjugate_gradients(operator, Y.float(), 1e-4, tol=1e-12)
    assert stuck.iterations < 500
    assert stuck.residual < 1e-4


def test_conjugate_gradients_refuse():
    K, Y, _ = system(6)
    operator = MatrixOperator(K)
    for change, message in [
        ({"tol": 0.0}, "0 < tol < 1"),
        ({"max_iterations": 0}, "max_iterations >= 1"),
        ({"ridge": -1.0}, "ridge must be"),
        ({"start": Y[:5]}, r"shape of the targets \(6, 3\), got \(5, 3\)"),
        ({"start": Y / 0}, "not finite"),
    ]:
        with pytest.raises(NfaError, match=message):
            conjugate_gradients(operator, Y, **change)


# ---- the choice ------------------------------------------------------------------------------------------


def test_auto_chooses_by_memory():
    K, Y, X = system(300)
    operator, need = KernelOperator(Laplace(3.0), X, 8 * 900), cholesky_bytes(300, 3, f64)
    A = oracle(K, Y, 1e-3)
    for memory, method in ((None, "cholesky"), (1.01 * need, "cholesky"), (0.99 * need, "cg")):
        found = solve(operator, Y, 1e-3, memory=memory, tol=1e-8)
        assert found.method == method
        assert relative(found.coefficients, A) < 1e-5
    assert solve(operator, Y, 1e-3, method="cg", rank=0).rank == 0
    assert solve(operator, Y, 1e-3, method="cg", rank=7).rank == 7
    with pytest.raises(
        NfaError, match=r"Cholesky of 300 points takes about .* GiB, more than the .* GiB allowed"
    ):
        solve(operator, Y, 1e-3, method="cholesky", memory=0.5 * need)
    with pytest.raises(NfaError, match="CG for 300 points and 3 outputs takes about"):
        solve(operator, Y, 1e-3, memory=1000.0)
    with pytest.raises(NfaError, match="auto, cholesky, cg, got 'lu'"):
        solve(operator, Y, method="lu")


def test_little_memory_gives_a_small_preconditioner():
    _, Y, X = system(300)
    operator = KernelOperator(Laplace(3.0), X, 8 * 900)
    ranks = [solve(operator, Y, 1e-3, method="cg", memory=memory).rank for memory in (1e6, 4e6, 3e7, 1e9)]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0
    assert ranks[-1] == int(8 * 300**0.5)


def test_a_matrix_is_left_as_it_is():
    K, Y, _ = system(90)
    before = K.clone()
    for method in ("auto", "cholesky", "cg"):
        found = solve(K, Y, 1e-2, method=method, tol=1e-9)
        assert relative(found.coefficients, oracle(before, Y, 1e-2)) < 1e-6
        assert torch.equal(K, before)


def test_unknown_free_memory_is_no_limit(monkeypatch):
    monkeypatch.setattr("nfa.solvers.common.free_memory", lambda device: None)
    K, Y, X = system(50)
    assert solve(K, Y, 1e-2).method == "cholesky"
    assert solve(KernelOperator(Laplace(3.0), X), Y, 1e-2, method="cg").residual < 1e-4


def test_cg_predicts_as_cholesky():
    X, Z = randn(900, 10, dtype=f32), randn(50, 10, seed=3, dtype=f32)
    Y = torch.stack([X[:, 0] * X[:, 1], X[:, 2].sign()], 1)
    operator = KernelOperator(Laplace(5.0), X)
    one, other = (solve(operator, Y, 1e-3, method=method) for method in ("cholesky", "cg"))
    predictions = [kernel_product(Laplace(5.0), Z, X, found.coefficients) for found in (one, other)]
    assert relative(predictions[1], predictions[0]) < 1e-3


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made anew."""

    def __init__(self, given):
        super().__init__()
        self.given, self.nbytes = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() != self.given:
                self.nbytes = max(self.nbytes, made.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("dtype", [f32, f64])
def test_overwriting_makes_nothing_of_the_size_of_the_matrix(dtype, monkeypatch):
    monkeypatch.setattr(blocked, "_BLOCK", 32)
    monkeypatch.setattr(direct, "FEW", 32)
    K, Y, _ = system(600, dtype=dtype)
    with Largest(K) as made:
        cholesky(K, Y, 1e-2, overwrite=True)
    assert 0 < made.nbytes <= 600 * 32 * 8


# ---- many ridges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [f32, f64])
def test_ridge_path(dtype):
    K, Y, _ = system(40, dtype=dtype)
    ridges = [1e-3, 1e-1, 10.0]
    path = ridge_path(K, Y, ridges)
    assert path.ridges == tuple(ridges)
    assert path.coefficients.shape == (3, 40, 3)
    assert path.coefficients.dtype == dtype
    for ridge, A in zip(ridges, path.coefficients, strict=True):
        assert relative(A, oracle(K, Y, ridge)) < (1e-6 if dtype == f32 else 1e-11)
    vector = ridge_path(K, Y[:, 0], ridges)
    assert torch.allclose(vector.coefficients, path.coefficients[..., 0])


def test_leave_one_out_is_fitting_without_the_point():
    K, Y, _ = system(15)
    path = ridge_path(K, Y, [1e-2, 1.0])
    for ridge, error in zip(path.ridges, path.leave_one_out, strict=True):
        squares = []
        for i in range(15):
            rest = [j for j in range(15) if j != i]
            A = oracle(K[rest][:, rest], Y[rest], ridge)
            squares.append((K[i, rest] @ A - Y[i]).square())
        assert float(error) == pytest.approx(float(torch.stack(squares).mean()), rel=1e-9)


def test_ridge_zero_of_a_singular_matrix_is_the_least_norm():
    K, Y, _ = duplicated()
    with pytest.warns(IllConditionedWarning, match="10 of 40 eigenvalues of K are zero"):
        path = ridge_path(K, Y, [0.0, 0.1])
    assert relative(path.coefficients[0], torch.linalg.pinv(K, hermitian=True) @ Y) < 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ridge_path(K, Y, [0.1])


def test_ridge_path_refuses():
    K, Y, _ = system(6)
    with pytest.raises(NfaError, match="at least one ridge"):
        ridge_path(K, Y, [])
    with pytest.raises(NfaError, match="ridge must be"):
        ridge_path(K, Y, [0.1, -1])
    with pytest.raises(NfaError, match="got an eigenvalue"):
        ridge_path(K - 2 * torch.eye(6, dtype=f64), Y, [0.1])


def test_a_solution_says_what_was_done():
    K, Y, _ = system(20)
    found = cholesky(K, Y, 0.5)
    assert {field.name for field in dataclasses.fields(found)} >= {
        "jitter",
        "iterations",
        "residual",
        "seconds",
    }
    assert str(found).startswith("cholesky in float64: residual ")
    assert direct.cholesky is cholesky
