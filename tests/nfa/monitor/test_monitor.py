"""A monitor in a loop: it measures when it is time, and nothing else becomes different by one bit."""

import math
import random
from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import nfa
from nfa.ansatz.row import read_csv

STEPS = 24


class Noisy(Dataset):
    """Samples with noise from generators of its own, of three kinds, and from the global ones."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(60, 6, generator=generator)
        self.y = (self.x[:, 0] * self.x[:, 1] > 0).long()
        self.noises = [numpy.random.default_rng(1)]
        self.settings = {"random": random.Random(2), "torch": torch.Generator().manual_seed(3)}

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        own = self.noises[0].normal() + self.settings["random"].random()
        own += float(torch.rand((), generator=self.settings["torch"]))
        everyone = numpy.random.rand() + random.random() + float(torch.rand(()))
        return self.x[i] + 0.01 * (own + everyone), self.y[i]


class Training:
    """A loop as anyone writes it, and what it leaves: weights, what Adam holds, the next random numbers."""

    def __init__(self, *, accumulate=1, compiled=False, mixed=False, **loader):
        torch.manual_seed(0)
        numpy.random.seed(0)
        random.seed(0)
        generator = torch.Generator().manual_seed(5)
        self.loader = DataLoader(Noisy(), batch_size=10, shuffle=True, generator=generator, **loader)
        self.net = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 8), nn.Tanh(),
            nn.Linear(8, 2),
        )  # fmt: skip
        self.forward = torch.compile(self.net, backend="eager") if compiled else self.net
        self.optimizer = torch.optim.Adam(self.net.parameters(), 0.01)
        self.accumulate, self.mixed = accumulate, mixed

    def run(self, monitor=None, steps=STEPS):
        step = 0
        while step < steps:
            for x, y in self.loader:
                step += 1
                with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
                    nn.functional.cross_entropy(self.forward(x), y).backward()
                if monitor is not None:  # also where gradients have come and are not used yet
                    monitor.step(step)
                if step % self.accumulate == 0:
                    self.optimizer.step()
                    self.optimizer.zero_grad()
        return self

    @property
    def left(self):
        held = [value for state in self.optimizer.state.values() for value in state.values()]
        numbers = [torch.rand(3), torch.tensor(numpy.random.rand(3)), torch.tensor(random.random())]
        return [*self.net.state_dict().values(), *held, *numbers]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def monitor_of(training, every=8, **options):
    options = {"samples": 20, "nulls": 2, "quiet": True, **options}
    return nfa.Monitor(training.net, training.loader, every, **options)


@pytest.mark.parametrize(
    "how",
    [{}, {"accumulate": 3}, {"mixed": True}, {"compiled": True}],
    ids=["plain", "accumulated", "mixed", "compiled"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own
def test_training_is_untouched(how):
    alone = Training(**how).run().left
    watched = Training(**how)
    monitor = monitor_of(watched)
    assert same(watched.run(monitor).left, alone)
    assert sorted({row.epoch for row in monitor.history}) == [0, 8, 16, 24]
    assert [row.layer for row in monitor.report.rows] == ["0", "4", "6"]
    assert monitor.report.row("4").init_alignment == monitor.initial.row("4").alignment


@pytest.mark.long  # starts processes
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_are_untouched(persistent):
    how = {"num_workers": 1, "persistent_workers": persistent}
    alone = Training(**how).run().left
    watched = Training(**how)
    assert same(watched.run(monitor_of(watched)).left, alone)


def test_a_row_is_what_an_audit_says_of_the_network_then():
    training = Training()
    x, y = torch.randn(12, 6), torch.zeros(12).long()
    monitor = nfa.Monitor(training.net, [(x, y)], every=8, nulls=2, quiet=True)
    training.run(monitor)
    report = monitor.measure(STEPS)
    expected = nfa.audit(training.net, [(x, y)], nulls=2, initial_state=monitor.initial)
    assert [repr(row) for row in report.rows] == [repr(row) for row in expected.rows]
    last = [row for row in monitor.history if row.epoch == STEPS]
    assert [repr(replace(row, epoch=math.nan)) for row in last] == [repr(row) for row in expected.rows]


def test_a_budget_chooses_the_cadence_once_and_a_resumed_run_keeps_it(tmp_path):
    training = Training()
    monitor = monitor_of(training, None, budget=0.2)
    assert monitor.every is None
    training.run(monitor)
    chosen = monitor.every
    assert chosen >= 1
    torch.save(monitor.state_dict(), tmp_path / "state.pt")
    again = monitor_of(training, None, budget=1000.0)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(STEPS + 1, 2 * STEPS):
        again.step(step)
    assert again.every == chosen


def test_a_cadence_that_is_given_has_the_last_word():
    training = Training()
    monitor = monitor_of(training, 12, budget=1e-6)
    training.run(monitor)
    assert sorted({row.epoch for row in monitor.history}) == [0, 12, 24]


def test_the_default_cadence():
    assert monitor_of(Training(), None).every == 100


def test_a_resumed_run_has_the_rows_of_one_that_was_not_stopped(tmp_path):
    whole = Training()
    monitor = monitor_of(whole)
    whole.run(monitor)
    stopped = Training()
    first = monitor_of(stopped)
    stopped.run(first, steps=12)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = monitor_of(stopped)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [repr(row) for row in second.history] == [repr(row) for row in first.history]
    with pytest.raises(nfa.NfaError, match="got 3 after 12"):
        second.step(3)
    assert second.step(16)
    kept = {(row.epoch, row.layer): row.init_alignment for row in second.history}
    for row in monitor.history:
        if row.epoch == 16:
            assert repr(kept[16, row.layer]) == repr(row.init_alignment)


def test_nothing_is_written_unless_a_folder_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = Training()
    training.run(monitor_of(training))
    assert not list(tmp_path.iterdir())
    monitor = monitor_of(training, folder="measured")
    training.run(monitor)
    assert sorted(path.name for path in (tmp_path / "measured").iterdir()) == ["ansatz.csv", "ansatz.html"]
    rows = read_csv(tmp_path / "measured" / "ansatz.csv")
    assert [(row.epoch, row.layer) for row in rows] == [(r.epoch, r.layer) for r in monitor.history]


def test_what_measuring_costs_is_said_once(capsys):
    training = Training()
    training.run(monitor_of(training, quiet=False))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("measuring takes ")
    assert "once every 8 steps" in line
    assert "fewer samples than 20" in line
    training.run(monitor_of(training))
    assert capsys.readouterr().out == ""


def test_the_network_within_what_compiles_or_distributes_it():
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    monitor = nfa.Monitor(torch.compile(net), [torch.randn(9, 6)], nulls=2)
    assert monitor.model is net
    assert [row.layer for row in monitor.report.rows] == ["0", "2"]


X = torch.randn(9, 6)


@pytest.mark.parametrize(
    ("batches", "options", "words"),
    [
        ([X], {"every": 0}, "every must be a whole number of 1 or more, got 0"),
        ([X], {"every": "10"}, "every must be a whole number"),
        ([X], {"budget": 0}, "budget must be a share of the training time, such as 0.2, or None, got 0"),
        ([X], {"samples": None}, "samples must be a whole number"),
        ([X], {"probs": 4}, "Monitor has no option 'probs'; did you mean 'probes'"),
        ([X], {"batch_dim": 1}, "Monitor has no option 'batch_dim'"),
        ([X], {"layers": "layer9*"}, "layer9"),
        ("digits", {}, "batches must be .* got 'digits'"),
        ([], {}, "no samples to measure on"),
        ([(X, X, X)], {}, r"a batch has 3 parts .* input_fn=lambda batch: \(batch\[0\], batch\[1\]\)"),
        ([torch.randn(9, 5)], {}, "the network cannot take the inputs"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(batches, options, words):
    with pytest.raises(nfa.NfaError, match=words) as error:
        nfa.Monitor(nn.Linear(6, 2), batches, **options)
    assert "\n" not in str(error.value)


def test_other_mistakes():
    monitor = nfa.Monitor(nn.Linear(6, 2), [X], every=2)
    with pytest.raises(nfa.NfaError, match=r"counted through all epochs: got 0 after 5"):
        [monitor.step(i) for i in (4, 5, 0)]
    with pytest.raises(nfa.NfaError, match=r"no state of a monitor"):
        monitor.load_state_dict({"weights": 1})


def test_batches_of_more_parts():
    batches = [(X, torch.zeros(9), {"weights": torch.ones(9)})]
    monitor = nfa.Monitor(nn.Linear(6, 2), batches, input_fn=lambda batch: (batch[0], batch[1]))
    assert monitor.report.meta["samples"] == 9
