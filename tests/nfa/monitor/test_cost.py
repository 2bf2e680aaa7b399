"""How often to measure for a share of the time, and what is said of it."""

import pytest

from nfa.monitor import cost
from nfa.monitor.cost import Pace, cost_sentence, every_within


@pytest.mark.parametrize("total", [3, 10, 37, 100, 1000])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0, 2.5, 40.0])
def test_a_budget_is_kept_with_beginning_and_end(total, seconds):
    every = every_within(0.2, seconds, 1.0, total)
    times = {0, total, *range(0, total + 1, every)}
    assert len(times) * seconds <= max(0.2 * total, 2 * seconds)  # these two are measured in any case
    if every > 1:  # and not less often than it allows
        more = {0, total, *range(0, total + 1, every - 1)}
        assert len(more) * seconds > 0.2 * total or len(more) == len(times)


def test_a_budget_where_nobody_knows_the_end():
    assert every_within(0.2, 1.0, 0.1) == 50
    assert every_within(0.2, 1e-6, 0.1) == 1


def test_a_pace_leaves_measuring_and_the_first_steps_out(monkeypatch):
    pace = Pace()
    assert not pace.begun
    clock = iter([0.0, 30.0, 31.0, 31.5, 33.0, 33.5])
    monkeypatch.setattr(cost, "now", lambda: next(clock))
    for measuring in (0, 0, 0, 0, 1.0, 1.0):
        pace.tick(measuring)
    assert pace.begun
    assert pace.durations == [30.0, 1.0, 0.5, 0.5, 0.5]
    assert (pace.step, pace.total) == (0.5, 2.5)
    assert not pace.known


def test_the_line():
    said = cost_sentence(0.42, 0.6, 1, name="epoch", option="every_n_epochs", samples=256)
    assert said == (
        "measuring takes 0.42 s, 70 % of an epoch of training; once every epoch it adds 70 %; cheaper: a "
        "greater every_n_epochs, budget=0.2, fewer samples than 256, or probes=4"
    )
    assert cost_sentence(0.42, 0.6, 0, name="epoch", samples=9) == (
        "measuring takes 0.42 s, 70 % of an epoch of training; cheaper: fewer samples than 9, or probes=4"
    )
    assert cost_sentence(0.5, 0.01, 250, name="step", samples=9, budget=0.2) == (
        "measuring takes 0.5 s, as long as 50 steps of training; once every 250 steps keeps it to 20 % of "
        "the time (budget=0.2)"
    )
    assert "250 steps it adds 20 %" in cost_sentence(0.5, 0.01, 250, name="step", samples=9)
