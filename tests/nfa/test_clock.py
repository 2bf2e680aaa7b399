"""Seconds are told when a card has done its work, not when it was asked for."""

import pytest
import torch

import nfa
from nfa.clock import now


@pytest.fixture
def waited(monkeypatch):
    """As where a card is in use; how often it was waited for."""
    times = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: times.append(1))
    return times


def test_a_card_is_waited_for(waited):
    assert now() <= now()
    assert len(waited) == 2


def test_an_audit_tells_its_sweep_from_its_statistics(waited):
    meta = nfa.audit(torch.nn.Linear(3, 2), torch.randn(4, 3), nulls=0).meta
    assert len(waited) >= 3  # before, between and behind
    assert meta["sweep_seconds"] >= 0


def test_a_machine_tells_its_phases_apart(waited):
    nfa.RFM(rounds=1, bandwidth=1.0).fit(torch.randn(9, 2), torch.randn(9))
    assert len(waited) >= 2 * 3 + 1  # kernel, solution and outputs of two rounds, and an AGOP


def test_no_card_is_asked_for_where_none_is_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("none is in use"))
    assert now() > 0
