"""Memory that runs out, a budget, a request to stop, and measuring until it is precise enough."""

import itertools
import math
from typing import ClassVar

import pytest
import torch
from torch import nn

import nfa
from nfa.layers.maps import find_maps
from nfa.sweep.batches import replayable
from nfa.sweep.footprint import Footprint, survey
from nfa.sweep.measure import measure_sensitivities
from nfa.sweep.observer import Observer


def relative(A, B):
    return float((A - B).norm() / B.norm())


class Greedy(torch.autograd.Function):
    """Runs out of memory with more than ``limit`` samples, forward or backward."""

    error: ClassVar[Exception] = torch.OutOfMemoryError("CUDA out of memory.")

    @staticmethod
    def forward(ctx, x, limit, where):
        if where == "forward" and len(x) > limit:
            raise Greedy.error
        ctx.limit, ctx.where = limit, where
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if ctx.where == "backward" and len(grad) > ctx.limit:
            raise Greedy.error
        return grad, None, None


class Net(nn.Module):
    def __init__(self, limit=10**9, where="forward"):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)
        self.limit, self.where, self.forwards = limit, where, []

    def forward(self, x):
        self.forwards.append(len(x))
        h = self.b(self.a(x).tanh()).tanh()
        h = Greedy.apply(h, self.limit, self.where)
        return self.last(self.c(self.c(h).tanh()).tanh()).tanh()


X = torch.randn(13, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("limit", [1, 3, 6])
def test_pieces_halve_when_memory_runs_out_and_nothing_counts_twice(where, limit):
    whole = nfa.agop(Net().double(), X)
    net = Net(limit, where).double()
    for name, G in nfa.agop(net, X).items():
        assert relative(G, whole[name]) < 1e-12, name
    assert max(net.forwards[-2:]) <= limit


@pytest.mark.parametrize(
    "said",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    ],
)
def test_libraries_of_a_card_run_out_of_memory_by_other_errors(monkeypatch, said):
    monkeypatch.setattr(Greedy, "error", RuntimeError(said))
    net, whole = Net(limit=3).double(), nfa.agop(Net().double(), X)
    for name, G in nfa.agop(net, X).items():
        assert relative(G, whole[name]) < 1e-12, name
    assert max(net.forwards[-2:]) <= 3


def test_later_batches_begin_with_the_size_that_fitted():
    net = Net(limit=4).double()
    nfa.agop(net, [X, X])
    assert max(net.forwards[len(net.forwards) // 2 :]) <= 4


def test_memory_for_no_sample_at_all():
    with pytest.raises(nfa.NfaError, match="out of memory with one sample"):
        nfa.audit(Net(limit=0).double(), X)


def test_other_runtime_errors_are_not_taken_for_memory():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.reason = nn.Linear(3, 3), "bad luck"

        def forward(self, x):
            if self.reason:
                raise RuntimeError(self.reason)
            return self.a(x) @ torch.ones(2, 2, dtype=x.dtype)

    net = Broken().double()
    with pytest.raises(RuntimeError, match="bad luck"):
        nfa.audit(net, X)
    net.reason = None
    with pytest.raises(nfa.NfaError, match="shapes cannot be multiplied"):
        nfa.audit(net, X)


def test_survey_sees_outputs_backwards_and_the_graph():
    net = nn.Sequential(nn.Linear(100, 50), nn.Tanh(), nn.Linear(50, 400))
    maps = find_maps(net)[0]
    batches = replayable(iter([torch.randn(0, 100), torch.randn(6, 100), torch.randn(2, 100)]))
    footprint = survey(net, batches.first, maps, {})
    assert [len(batch) for batch in batches] == [6, 2]
    assert (footprint.outputs, footprint.backwards) == (400, 50)
    assert footprint.sample >= 4 * 50
    assert footprint.sums >= 8 * (50**2 + 400**2)


class Counted(list):
    """Batches that know how often they were begun; a loader with persistent workers starts over each time."""

    begun = 0

    def __iter__(self):
        self.begun += 1
        return super().__iter__()


@pytest.mark.parametrize("options", [{}, {"memory": 1e9}, {"tolerance": 0.9, "nulls": 0}], ids=str)
@pytest.mark.parametrize("lazy", [False, True], ids=["built", "lazy"])
def test_batches_are_begun_once_a_pass(options, lazy):
    net = nn.Sequential(nn.LazyLinear(5) if lazy else nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    counted = Counted(torch.randn(4, 3, 4))
    report = nfa.audit(net, counted, **options)
    assert report.meta["samples"] == 12
    assert counted.begun == 1


def test_a_lazy_network_is_measured_at_initialisation_too():
    net, x = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(12, 4)
    state = {"0.weight": torch.randn(5, 4), "0.bias": torch.zeros(5)} | {
        f"2.{name}": p.detach() for name, p in nn.Linear(5, 2).named_parameters()
    }
    report = nfa.audit(net, [x[:6], x[6:]], initial_state=state)
    assert report.meta["samples"] == 12
    assert math.isfinite(report.row("0").init_cosine)


def test_budget_limits_samples_and_replicates():
    footprint = Footprint(sample=10, sums=100, statistics=5, outputs=3, backwards=3)
    assert footprint.within(None, 8) == (8, None)
    assert footprint.within(10_000, 8) == (8, 920)
    assert footprint.within(480, 8) == (4, 8)
    assert footprint.within(130, 8) == (1, 3)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16 * 900, 10))
    x = torch.randn(64, 3, 32, 32)
    generous = nfa.audit(net, x, memory=2**30)
    assert generous.rows[0].cosine == pytest.approx(nfa.audit(net, x).rows[0].cosine, abs=1e-5)
    with pytest.raises(nfa.NfaError, match="1 kB allowed: raise the memory"):
        nfa.audit(net, x, memory=1000)


class StopAfter(Observer):
    def __init__(self, backwards):
        self.left, self.seen = backwards, []

    def progress(self, samples, backwards):
        self.left -= 1
        self.seen.append(samples)

    def stop(self):
        return self.left <= 0


def test_stopping_finishes_a_quick_piece_and_says_so():
    net, watch = Net().double(), StopAfter(5)
    report = nfa.audit(net, [X[:4], X[4:8], X[8:]], watch=watch)
    assert report.meta["stopped"] is True
    assert report.meta["samples"] == 8
    for name, G in nfa.agop(net, X[:8]).items():
        assert relative(report.pair(name).agop(), G) < 1e-12
    assert watch.seen == sorted(watch.seen)


def test_stopping_in_a_long_piece_drops_the_group_it_belongs_to():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 50), nn.Tanh()).double()
    batches = [X[:4], X[4:8], X[8:]]
    report = nfa.audit(net, batches, watch=StopAfter(2 * 50 + 7))
    assert (report.meta["stopped"], report.meta["samples"]) == (True, 8)
    for name, G in nfa.agop(net, X[:8]).items():
        assert relative(report.pair(name).agop(), G) < 1e-12
    first = nfa.audit(net, batches, watch=StopAfter(7))  # nothing else is complete: this piece is finished
    assert first.meta["samples"] == 4


def wide_outputs(outputs=64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, outputs), nn.Tanh()
    ).double()


def data(n, seed=3):
    return torch.randn(n, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_tolerance_stops_before_the_samples_end():
    net, drawn = wide_outputs(), []

    def batches():
        for x in data(4096).split(16):
            drawn.append(len(x))
            yield x

    report = nfa.audit(net, batches(), layers="[02]", tolerance=0.015)
    assert report.meta["samples"] == sum(drawn) - 0 < 4096
    assert report.meta["mode"] == "4 probes"
    assert all(row.stderr <= 0.015 and row.alignment_stderr <= 0.015 for row in report.rows if row.measured)
    exact = nfa.audit(net, data(4096), layers="[02]")
    for row, truth in zip(report.rows, exact.rows, strict=True):
        assert abs(row.cosine - truth.cosine) < 4 * 0.015
        assert abs(row.alignment - truth.alignment) < 4 * 0.015


def test_tolerance_asks_for_the_alignment_too():
    """C of this layer is nearly the identity: its cosine is known at once, its alignment is not."""
    net, few = wide_outputs(), data(128).split(16)
    options = {"layers": "4", "tolerance": 0.05, "nulls": 0}
    early, late = nfa.audit(net, few, **options), nfa.audit(net, data(4096).split(16), **options)
    assert early.row("4").stderr < 0.01 < 0.05 < early.row("4").alignment_stderr
    assert late.meta["samples"] > 1024
    assert late.row("4").alignment_stderr < early.row("4").alignment_stderr


def test_tolerance_with_few_outputs_is_exact():
    report = nfa.audit(wide_outputs(4), data(64).split(8), tolerance=0.01)
    assert report.meta["mode"] == "exact"


def test_more_probes_on_the_same_samples_when_these_end():
    batches = data(64).split(8)
    report = nfa.audit(wide_outputs(), batches, tolerance=0.006, nulls=0)
    assert report.meta["mode"].startswith("4 to ")
    assert report.meta["samples"] == 64


def test_many_more_probes_than_outputs_turn_into_the_exact_mode():
    report = nfa.audit(wide_outputs(20), data(24).split(3), tolerance=0.0005, nulls=0)
    assert report.meta["mode"] == "exact"
    exact = nfa.audit(wide_outputs(20), data(24).split(3), nulls=0)
    assert report.rows[0].cosine == pytest.approx(exact.rows[0].cosine, abs=1e-12)


class StopsInSecondSweep(Observer):
    """Asks to stop once samples are counted from the beginning again: in the exact mode, after the probes."""

    def __init__(self):
        self.before, self.stopping = 0.0, False

    def progress(self, samples, backwards):
        self.stopping |= samples < self.before
        self.before = samples

    def stop(self):
        return self.stopping


def test_stopped_in_the_exact_mode_the_probes_before_it_are_what_is_told():
    net, batches, options = wide_outputs(20), data(24).split(3), {"tolerance": 0.0005, "nulls": 0}
    watch, exact = StopsInSecondSweep(), nfa.audit(net, batches, **options)
    report = nfa.audit(net, batches, watch=watch, **options)
    assert watch.stopping
    assert exact.meta["mode"] == "exact"
    assert "probes" in report.meta["mode"]
    assert report.meta["stopped"] is True
    assert report.meta["samples"] == 24
    for row in report:
        assert abs(row.cosine - exact[row.layer].cosine) < 0.1
        assert row.cosine != exact[row.layer].cosine


def test_standard_error_over_batches_covers_samples_and_probes():
    """The spread over data sets and seeds is what the standard error says, within its own noise."""
    net = wide_outputs()
    cosines, errors = [], []
    for seed in range(30):
        batches = data(64, seed).split(8)
        report = nfa.audit(net, batches, probes=16, replicates_over="batches", seed=seed, nulls=0)
        cosines.append(report.rows[1].cosine)
        errors.append(report.rows[1].stderr)
    spread = float(torch.tensor(cosines).std())
    typical = float(torch.tensor(errors).square().mean().sqrt())
    assert 0.7 < spread / typical < 1.4


def test_tolerance_is_not_met_while_the_cosine_grows_with_the_samples():
    """A wide layer, few outputs: C has the rank of the samples, and no spread between groups shows it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 2))
    x = torch.randn(400, 300, generator=torch.Generator().manual_seed(2))
    early = nfa.audit(net, x[:16].split(2), layers="0", tolerance=0.01)
    known = early.precision["0"]
    assert known.cosine > known.drift > 0.1  # the bias is in the error, although groups hardly differ
    report = nfa.audit(net, x.split(8), layers="0", tolerance=0.01)
    assert report.meta["samples"] == 400
    assert report.row("0").cosine > early.row("0").cosine + 0.1
    assert early.precision["0"].alignment > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "between 0 and 1"),
        ({"tolerance": 0.1, "probes": 3}, "either probes or a tolerance"),
        ({"tolerance": 0.1, "centered": True}, "neither with distributed"),
        ({"neglect": 1.0}, r"share in \[0, 1\)"),
    ],
)
def test_bad_combinations(options, message):
    with pytest.raises(nfa.NfaError, match=message):
        nfa.audit(wide_outputs(), data(8), **options)


def test_one_shot_batches_are_read_once():
    counted = itertools.count()
    batches = (x for x in data(32).split(4) if next(counted) >= 0)
    report = nfa.audit(wide_outputs(), batches, tolerance=0.001, nulls=0)
    assert report.meta["samples"] == 32
    assert next(counted) == 8


def test_sweep_can_be_looked_at_while_it_runs():
    net, seen = wide_outputs(), []

    class Look(Observer):
        def enough(self, sweep, samples):
            seen.append(sweep().sensitivities["0"].matrix)
            return samples >= 16

    sweep = measure_sensitivities(net, data(64).split(8), find_maps(net)[0], watch=Look())
    assert sweep.samples == 16
    for C, samples in zip(seen, (8, 16), strict=True):
        first = measure_sensitivities(net, data(64)[:samples], find_maps(net)[0])
        assert relative(C, first.sensitivities["0"].matrix) < 1e-12


def test_wide_layers_keep_few_gradients_as_rows():
    """Above a width of 1024, C of low rank is never formed, and says the same."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1300, 1100), nn.Tanh(), nn.Linear(1100, 6), nn.Tanh()).double()
    x = torch.randn(20, 1300, dtype=torch.float64)
    maps = find_maps(net)[0]
    few = measure_sensitivities(net, x.split(5), maps, replicates=4).sensitivities["0"]
    assert few.factored
    assert sum(X.shape[2] for X in few.sums.values()) == 20 * 6
    many = measure_sensitivities(net, torch.cat([x] * 6).split(30), maps, replicates=4).sensitivities["0"]
    assert not many.factored
    assert relative(few.matrix, many.matrix) < 1e-12
    pairs = [sensitivity.pair(net[0].weight.detach()[None]) for sensitivity in (few, many)]
    for name in ("alignment", "z"):
        assert getattr(pairs[0], name) == pytest.approx(getattr(pairs[1], name), rel=1e-9)
    for name in ("cosine", "pearson", "null_isotropic"):
        assert getattr(pairs[0], name)(0.5) == pytest.approx(getattr(pairs[1], name)(0.5), rel=1e-6)
    assert 0 < few.precision(pairs[0], 0.5).cosine < 0.2
    assert nfa.audit(net, x).rows[0].cosine == pytest.approx(pairs[0].cosine(0.5), rel=1e-9)


class StopsAtOnce(Observer):
    def stop(self):
        return True


@pytest.mark.parametrize("options", [{}, {"probes": 3}, {"tolerance": 0.01}, {"centered": True}], ids=str)
@pytest.mark.parametrize("n", [1, 5, 40])
def test_stopped_at_once_the_samples_under_way_are_measured(n, options):
    """Whenever it is asked to stop, there is something to tell: what is first under way is finished."""
    net, x = wide_outputs(40), data(n)
    report = nfa.audit(net, [x], watch=StopsAtOnce(), nulls=0, **options)
    assert report.meta["stopped"] is True
    samples = report.meta["samples"]
    assert 1 <= samples <= n
    if options in ({}, {"centered": True}):
        expected = nfa.audit(net, [x[:samples]], nulls=0, **options)
        for row in report:
            assert row.cosine == pytest.approx(expected[row.layer].cosine, abs=1e-9, nan_ok=True)
