"""Work in blocks goes on in halves where the memory runs out, with the same numbers."""

import sys

import pytest
import torch
from torch import distributed

import nfa
from nfa import processes
from nfa.errors import NfaError
from nfa.kernels import KernelOperator, distances, kernel_product, make_kernel, sharded
from nfa.kernels.conv import ConvKernel
from nfa.kernels.conv_recursion import PairSums, PatchMaps
from nfa.kernels.conv_slopes import Slopes
from nfa.kernels.distances import Pairs
from nfa.kernels.halving import Halving, needs
from nfa.kernels.operator import ScaledOperator
from nfa.kernels.sharded import ShardedOperator
from nfa.machines.inner import InnerProduct
from nfa.machines.inner_functions import Quadratic
from nfa.machines.kernel_agop import blockwise_agop
from nfa.machines.patch_agop import patch_agop
from nfa.solvers import solve

CPU = torch.device("cpu")
LAPLACE = make_kernel("laplace", 3.0)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small_memory(monkeypatch):
    """``small_memory(owner, name, size, most)``: calls of a larger size fail; returns these sizes."""

    def limit(owner, name, size, most):
        plain, failed = getattr(owner, name), []

        def limited(*args, **options):
            if size(*args) > most:
                failed.append(size(*args))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return plain(*args, **options)

        monkeypatch.setattr(owner, name, limited)
        return failed

    return limit


def entries(pairs, rows, columns, out):
    return (rows.stop - rows.start) * (columns.stop - columns.start)


# ---- blocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 7, 100])
@pytest.mark.parametrize("upper", [False, True])
def test_each_entry_is_done_once(most, upper):
    seen, failed = torch.zeros(13, 13, dtype=torch.int64), []

    def work(rows, columns):
        if (rows.stop - rows.start) * (columns.stop - columns.start) > most:
            failed.append(rows)
            raise torch.OutOfMemoryError
        seen[rows, columns] += 1

    halving = Halving(CPU)
    halving.blocks(work, [(slice(a, a + 5), slice(b, b + 5)) for a in (0, 5) for b in (0, 5)], upper)
    halving.rows(lambda rows: work(rows, slice(10, 11)), 10, 10)
    square = seen[:10, :10]
    assert (square[torch.ones(10, 10).triu().bool()] == 1).all()
    assert square.max() == 1
    assert upper or (square == 1).all()
    assert (seen[:10, 10] == 1).all()
    assert halving.share == 0.5 ** len(failed)
    assert len(failed) <= 4  # later blocks begin with what was found


def test_what_cannot_be_halved_is_one_sentence():
    def work(rows):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    with pytest.raises(NfaError, match=r"out of memory with one row at a time on cpu, .* are free: give"):
        Halving(CPU).rows(work, 4, 4)
    said = r"on cpu: a matrix takes about 3\.0 GB, .* are free: give fewer points"
    with pytest.raises(NfaError, match=said), needs(3e9, "a matrix", "give fewer points", CPU):
        raise torch.OutOfMemoryError


def test_other_errors_are_not_taken_for_memory():
    def work(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Halving(CPU).rows(work, 4, 4)
    with pytest.raises(RuntimeError, match="shapes"), needs(1, "a matrix", "give fewer points", CPU):
        work(None)


# ---- kernels of points -------------------------------------------------------------------------------------


def test_tiles_of_distances(small_memory):
    X, Z = normal(400, 20), normal(50, 20, seed=1)
    X[7] = X[250]
    whole, other = distances(X), distances(X, Z)
    failed = small_memory(Pairs, "distances", entries, 3000)
    found = distances(X)
    assert failed
    torch.testing.assert_close(found, whole, rtol=1e-13, atol=1e-13)
    assert torch.equal(found, found.mT)
    assert found[7, 250] == 0
    torch.testing.assert_close(distances(X, Z), other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("cache_bytes", [0.0, 1e9])
def test_products_with_a_kernel_matrix(small_memory, cache_bytes):
    X, V = normal(300, 20), normal(300, 2, seed=1)
    operator = KernelOperator(LAPLACE, X, cache_bytes=cache_bytes)
    whole, outputs = operator(V), kernel_product(LAPLACE, X[:200], X, V)
    failed = small_memory(Pairs, "distances", entries, 3000)
    operator = KernelOperator(LAPLACE, X, cache_bytes=cache_bytes)
    torch.testing.assert_close(operator(V), whole, rtol=1e-12, atol=1e-12)
    before = len(failed)
    assert before
    torch.testing.assert_close(operator(V), whole, rtol=1e-12, atol=1e-12)
    assert len(failed) == before  # it is known by now
    torch.testing.assert_close(kernel_product(LAPLACE, X[:200], X, V), outputs, rtol=1e-12, atol=1e-12)


def test_agop_of_points_by_blocks(small_memory):
    X, a = normal(120, 10), normal(120, 3, seed=1)
    points = torch.arange(3, 90)
    whole = blockwise_agop(LAPLACE, X, a, points=points, centering="output", rows=87).dense()
    failed = small_memory(sys.modules["nfa.machines.kernel_agop"], "_by_classes", lambda p: len(p.slope), 10)
    found = blockwise_agop(LAPLACE, X, a, points=points, centering="output", rows=87).dense()
    assert failed
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-14)


def fitted(**options):
    X = normal(150, 12)
    machine = nfa.RFM(rounds=2, bandwidth=3.0, **options).fit(X, X[:, 0] * X[:, 1])
    return machine.M, machine.predict(normal(40, 12, seed=2))


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_a_machine_goes_on(small_memory, solver):
    whole = fitted(solver=solver)
    failed = small_memory(Pairs, "distances", entries, 2500)
    module = sys.modules["nfa.machines.radial"]
    agop = small_memory(module, "kernel_agop", lambda slope, *rest: len(slope), 0)
    rows = small_memory(sys.modules["nfa.machines.kernel_agop"], "_by_classes", lambda p: len(p.slope), 10)
    for found, expected in zip(fitted(solver=solver), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert failed
    assert agop
    assert rows


def test_a_kernel_matrix_that_does_not_fit_is_told_with_its_bytes(small_memory):
    small_memory(sys.modules["nfa.machines.radial"], "distances", len, 100)
    small_memory(KernelOperator, "matrix", lambda operator: operator.size, 100)
    with pytest.raises(
        NfaError, match=r"the kernel matrix of 150 points.* takes about .*solver='cg' needs none"
    ):
        fitted()
    X = normal(150, 12)
    with pytest.raises(NfaError, match=r"a factor of 150 points takes about .* 'cg' takes less"):
        solve(KernelOperator(LAPLACE, X), X[:, 0], 1e-3, method="cholesky")


@pytest.mark.parametrize("most", [30, 7])  # a preconditioner of a lower rank, and none
def test_a_preconditioner_of_a_lower_rank(small_memory, most):
    X = normal(150, 12)

    def solution():
        return solve(KernelOperator(LAPLACE, X), X[:, 0], 1e-3, method="cg", tol=1e-10)

    whole = solution()
    failed = small_memory(KernelOperator, "columns", lambda operator, index: len(index), most)
    found = solution()
    torch.testing.assert_close(found.coefficients, whole.coefficients, rtol=1e-7, atol=1e-9)
    assert failed[0] == whole.rank > most
    assert found.rank == {30: whole.rank // 4, 7: 0}[most]


def test_vectors_that_do_not_fit_are_told_with_their_bytes(small_memory):
    """A rank that is asked for is not another one."""
    small_memory(KernelOperator, "columns", lambda operator, index: len(index), 10)
    X = normal(150, 12)
    with pytest.raises(NfaError, match=r"CG for 150 points and 1 outputs takes about .* a smaller rank"):
        solve(KernelOperator(LAPLACE, X), X[:, 0], 1e-3, method="cg", rank=50)


@pytest.fixture
def group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), world_size=1, rank=0)
    yield
    distributed.destroy_process_group()


def test_processes_that_share_an_operator_keep_their_rank(small_memory, group):
    """One that goes on alone would wait for the others for ever."""
    X, told = normal(150, 12), r"CG for 150 points and 1 outputs takes about .* a smaller rank"
    small_memory(ShardedOperator, "columns", lambda operator, index: len(index), 10)
    for operator in (ShardedOperator(LAPLACE, X), ScaledOperator(ShardedOperator(LAPLACE, X), X[:, 0].abs())):
        with pytest.raises(NfaError, match=told):
            solve(operator, X[:, 0], 1e-3, method="cg")


# ---- kernels of inner products -----------------------------------------------------------------------------


def quadratic():
    X = normal(60, 5)
    machine = nfa.RFM("quadratic", rounds=1).fit(X, X[:, 0] * X[:, 1])
    return machine.M, machine.predict(normal(40, 5, seed=2))


def test_inner_products_go_on_by_rows(small_memory):
    whole = quadratic()
    failed = small_memory(InnerProduct, "matrix", lambda kernel, U, Z: len(U), 9)
    for found, expected in zip(quadratic(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert failed


@pytest.mark.parametrize("what", ["agop", "matrix"])
def test_sums_of_inner_products_that_do_not_fit_are_told_with_their_bytes(small_memory, what):
    if what == "agop":
        small_memory(Quadratic, "agop", lambda function, Z, *rest: len(Z), 10)
        said = r"the AGOP of 60 points × 5 in float64 takes about .*: give fewer"
    else:
        small_memory(InnerProduct, "_whole", lambda kernel, U: len(U), 10)
        said = r"the kernel matrix of 60 points takes about .*: give fewer"
    with pytest.warns(UserWarning, match=said) if what == "agop" else pytest.raises(NfaError, match=said):
        quadratic()


# ---- kernels of images -------------------------------------------------------------------------------------


def images(pairs, x, i, z, j, *rest):
    return (i.stop - i.start) * (j.stop - j.start)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("limited", ["patches", "tiles"])
@pytest.mark.parametrize("shape", [(9, 9), (9, 5)])
def test_tiles_of_a_convolutional_kernel(small_memory, one_thread, shape, limited):
    kernel = ConvKernel(depth=2)
    X = normal(shape[0], 2, 6, 6)
    Z = None if shape[0] == shape[1] else normal(shape[1], 2, 6, 6, seed=1)
    whole, told = kernel.matrix(X, Z), []
    if limited == "patches":
        failed = small_memory(PatchMaps, "of", lambda X, *rest: len(X), 6)
    else:
        failed = small_memory(PairSums, "__call__", images, 6)
    found = kernel.matrix(X, Z, progress=lambda done, total: told.append((done, total)))
    assert failed
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-14)
    assert Z is not None or torch.equal(found, found.mT)
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("limited", ["patches", "sweeps"])
def test_patch_agop(small_memory, one_thread, limited):
    kernel = ConvKernel(depth=2)
    X, a = normal(12, 2, 6, 6), normal(12, 3, seed=1)
    whole, told = patch_agop(kernel, X[:7], X, a, same=torch.arange(7)), []
    if limited == "patches":
        failed = small_memory(PatchMaps, "of", lambda X, *rest: len(X), 9)
    else:
        failed = small_memory(Slopes, "__call__", lambda slopes, tile, *rest: images(slopes, *tile), 8)
    found = patch_agop(
        kernel, X[:7], X, a, same=torch.arange(7), progress=lambda done, total: told.append((done, total))
    )
    assert failed
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-14)
    assert told[-1] == (84, 84)


def test_machines_on_images_go_on(small_memory, one_thread):
    X = normal(30, 1, 6, 6)
    machine = nfa.ConvRFM(depth=2, rounds=1).fit(X, X[:, 0, 2, 2])
    whole = machine.M, machine.predict(X[:9] + 0.1)
    tiles = small_memory(PairSums, "__call__", images, 12)
    machine = nfa.ConvRFM(depth=2, rounds=1).fit(X, X[:, 0, 2, 2])
    for found, expected in zip((machine.M, machine.predict(X[:9] + 0.1)), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert tiles
    small_memory(ConvKernel, "matrix", lambda *rest: 1, 0)
    with pytest.raises(NfaError, match=r"the kernel matrix of 30 images takes about .*: give fewer"):
        nfa.ConvRFM(depth=2, rounds=1).fit(X, X[:, 0, 2, 2])


class TestShared:
    """A kernel matrix of which each process has some rows, as a process that has all of them sees it."""

    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch):
        monkeypatch.setattr(processes, "own_span", lambda n: slice(0, n))
        monkeypatch.setattr(processes, "gathered", lambda own, n: own)
        monkeypatch.setattr(sharded, "tile_entries", lambda device: 40)  # strips of 8 rows

    @pytest.mark.parametrize(("room", "kept"), [(0.0, 0), (40 * 40 * 8.0, 5), (15 * 40 * 8.0, 1)])
    def test_strips_of_half_as_many_rows(self, small_memory, room, kept):
        X, V = normal(40, 5), normal(40, 2, seed=1)
        K = LAPLACE.matrix(X)
        operator = sharded.ShardedOperator(LAPLACE, X, cache_bytes=room)
        failed = small_memory(sharded, "fill", lambda x, *_: len(x), 3)
        for _ in range(2):  # the second from the rows that are kept
            assert torch.allclose(operator(V), K @ V, rtol=1e-12, atol=1e-12)
        assert failed == [8, 4]
        assert len(operator._kept) == kept  # strips of two rows in a quarter of the room
        operator.forget()
        assert torch.allclose(operator(V), K @ V, rtol=1e-12, atol=1e-12)
        assert not operator._kept
        assert torch.equal(operator.columns(torch.tensor([3, 1])), K[:, [3, 1]])

    def test_one_row_that_does_not_fit(self, small_memory):
        operator = sharded.ShardedOperator(LAPLACE, normal(40, 5))
        failed = small_memory(sharded, "fill", lambda x, *_: len(x), 0)
        with pytest.raises(torch.OutOfMemoryError):
            operator(normal(40, 2))
        assert failed == [8, 4, 2, 1]

    def test_other_errors_and_shapes(self, monkeypatch):
        operator = sharded.ShardedOperator(LAPLACE, normal(40, 5))
        for bad in (normal(39, 2), normal(40)):
            with pytest.raises(NfaError, match=r"the operator multiplies \(40, c\) matrices, got shape"):
                operator(bad)

        def broken(*arguments, **options):
            raise RuntimeError("something else")

        monkeypatch.setattr(sharded, "fill", broken)
        with pytest.raises(RuntimeError, match="something else"):
            operator(normal(40, 2))
