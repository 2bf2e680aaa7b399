"""What is told while an audit runs: the time left counts the statistics, and further passes are reported."""

import io

import pytest
import torch
from torch import nn

import nfa
from nfa import status
from nfa.ansatz import duration
from nfa.ansatz.duration import Statistics
from nfa.command import console
from nfa.command.console import ConsoleObserver
from nfa.sweep.footprint import Footprint
from nfa.sweep.observer import Observer

FOOTPRINT = Footprint(1000, 1000, 1000, outputs=40, backwards=40, ranks=((1, 128), (1, 256)))


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, and lines that are never left out."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(status, "_REFRESH", (0.0, 0.0))
    monkeypatch.setattr(duration, "_timed", lambda: (2.0, 0.5))
    return now


def watched(clock, **options):
    stream = io.StringIO()
    watch = ConsoleObserver(20, 4, stream=stream, **options)
    watch.begin(FOOTPRINT, 8, None)

    def last():
        return stream.getvalue().splitlines()[-1]

    return watch, last


def test_time_left_counts_the_statistics_of_the_layers_to_come(clock):
    watch, last = watched(clock, nulls=2)
    clock[0] += 10
    watch.progress(10, 40)
    assert Statistics(FOOTPRINT.ranks, 2).seconds == pytest.approx((2.0 + 2 * 0.5) * (1 + 2**2.3))
    assert last() == "10/20 samples, 40 backwards each, 0:10 gone, at most 0:28 left"
    clock[0] += 10
    watch.progress(20, 40)
    assert last() == "20/20 samples, 40 backwards each, 0:20 gone, at most 0:18 left"


def test_time_left_is_of_the_pass_where_others_may_follow(clock):
    watch, last = watched(clock, adaptive=True)
    clock[0] += 10
    watch.progress(20, 4)
    assert last() == "20/20 samples, 4 backwards each, 0:10 gone, at most 0:12 left without further passes"
    watch.further(2, 1, 4)
    clock[0] += 4
    watch.further(2, 4, 4)
    assert (
        last()
        == "pass 2: 4/20 samples, 4 new probes each, 0:14 gone, at most 0:28 left without further passes"
    )
    watch.progress(1, 40)  # the exact mode begins anew: what went before tells nothing of its speed
    clock[0] += 10
    watch.progress(10, 40)
    assert last() == "10/20 samples, 40 backwards each, 0:24 gone, at most 0:22 left"


def test_time_left_of_the_statistics_themselves(clock):
    watch, last = watched(clock)
    watch.begin(Footprint(1, 1, 1, 1, 1, ranks=((1, 1), (1, 10), (1, 10), (2, 10))), 8, None)
    watch.rows(1, 4)
    clock[0] += 10
    watch.rows(2, 4)
    assert last() == "statistics of layer 2/4, about 0:30 left"
    watch.rows(2, 5)  # one is skipped: layers count alike
    assert last() == "statistics of layer 2/5, about 0:30 left"


def test_a_layer_is_timed_in_fact():
    seconds = Statistics([(1, 128)], 4).seconds
    assert seconds > 0
    assert Statistics([(2, 10), (1, 20)], 0).shares == pytest.approx([2 * 10**2.3, 20**2.3])


class Seen(Observer):
    def __init__(self):
        self.passes = []

    def further(self, number, samples, probes):
        self.passes.append((number, samples, probes))


def test_further_passes_of_probes_report():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 60), nn.Tanh()
    )
    batches, watch = [torch.randn(4, 12) for _ in range(8)], Seen()
    nfa.audit(net, batches, tolerance=0.001, nulls=0, watch=watch)
    assert watch.passes
    assert {number for number, _, _ in watch.passes} == set(range(2, max(watch.passes)[0] + 1))
    for number in {n for n, _, _ in watch.passes}:
        samples = [s for n, s, _ in watch.passes if n == number]
        assert samples == sorted(samples)
        assert samples[-1] == 32
