"""Outputs of length one: told, and what they do to the last map."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nfa
from nfa.ansatz.notes import notes
from nfa.page import write_html
from nfa.sweep.unit_length import of_length_one


class Encoder(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5))
        self.scale = scale

    def forward(self, x):
        return self.scale * F.normalize(self.body(x), dim=-1)


@pytest.fixture
def x():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def encoder(scale=1.0):
    torch.manual_seed(0)
    return Encoder(scale).double()


def test_the_direction_of_the_outputs_is_not_in_the_last_sensitivity(x):
    net = encoder()
    report = nfa.audit(net, list(x.split(10)))
    h = net.body(x).detach()
    unit = F.normalize(h, dim=1)
    C = ((torch.eye(5) - unit[:, :, None] * unit[:, None]) / h.square().sum(1)[:, None, None]).mean(0)
    W = net.body[2].weight.detach()
    torch.testing.assert_close(report.pair("body.2").agop(), W.T @ C @ W)


def test_it_is_told_in_words_notes_and_page(x, tmp_path):
    report = nfa.audit(encoder(), list(x.split(10)))
    assert report.meta["unit length"] is True
    assert "Length one: " in str(report)
    said = list(notes(report, 40, 0.5, 0.01))
    write_html(tmp_path / "audit.html", title="encoder", rows=report.rows, notes=said)
    assert "<b>Length one:</b>" in (tmp_path / "audit.html").read_text()


@pytest.mark.parametrize("options", [{"probes": 4}, {"tolerance": 0.1}, {"output": "softmax"}])
def test_in_every_mode(x, options):
    assert nfa.audit(encoder(), list(x.split(10)), **options).meta["unit length"]


def test_outputs_of_another_length_are_not_told(x):
    for net in (encoder(2.0), encoder().body):
        report = nfa.audit(net, list(x.split(10)))
        assert "unit length" not in report.meta
        assert "Length one" not in str(report)


def test_of_length_one():
    vectors = F.normalize(torch.randn(4, 3, 7), dim=-1)
    assert of_length_one(vectors)
    assert not of_length_one(vectors[..., :1].sign())  # one number is no vector
    assert not of_length_one(vectors.flatten(1))
    assert not of_length_one(torch.full((2, 3), math.nan))
    assert not of_length_one(torch.eye(3, dtype=torch.long))
