"""Networks whose residual branches start at zero: said, not covered, and another start offered."""

import json
import sys

import pytest
import torch
from torch import nn

import nfa
from nfa.ansatz.gather_rows import NO_GRADIENT
from nfa.ansatz.notes import notes
from nfa.command.cli import main
from nfa.layers.coverage import covered_share
from nfa.layers.zero_starts import SCALE, fill_zero_starts, zero_starts


class Block(nn.Module):
    """A residual branch that ends in a scale of zero."""

    def __init__(self, width=6):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(width, 9), nn.Linear(9, width), nn.LayerNorm(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        return x + self.norm(self.second(torch.tanh(self.first(x))))


class Net(nn.Module):
    def __init__(self, last_weight=False):
        super().__init__()
        self.inp, self.blocks = nn.Linear(8, 6), nn.Sequential(Block(), Block())
        self.token, self.head = nn.Parameter(torch.zeros(6)), nn.Linear(6, 3)
        if last_weight:
            nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return torch.tanh(self.head(torch.tanh(self.blocks(self.inp(x) + self.token))))


def seeded(last_weight=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(last_weight).eval()


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


BRANCHES = [f"blocks.{i}.{part}" for i in (0, 1) for part in ("first", "second")]


@pytest.mark.parametrize("options", [{}, {"probes": 2}, {"tolerance": 0.05}])
def test_no_gradient_is_said_and_not_covered(options):
    net = seeded()
    report = nfa.audit(net, list(normal(24, 8).split(3)), **options)
    for name in BRANCHES:
        assert report.row(name).status == f"skipped: {NO_GRADIENT}"
    assert report.row("inp").measured
    assert report.row("head").measured
    wide = sum(p.numel() for p in net.parameters() if p.dim() > 1)
    assert report.meta["covered"] == pytest.approx((8 * 6 + 6 * 3) / wide, abs=1e-6)
    assert any("No gradient reaches 4 layers" in note for note in notes(report, 24, 0.5, 0.01))
    assert covered_share(net, []) == 0


def test_a_weight_of_zero_is_said_and_stops_the_gradients_before_it():
    report = nfa.audit(seeded(last_weight=True), normal(24, 8))
    assert report.row("head").status == "skipped: its weight is zero"
    assert report.row("inp").status == f"skipped: {NO_GRADIENT}"


def test_a_trained_network_keeps_its_numbers_beside_such_a_start():
    net, start = seeded(), seeded().state_dict()
    fill_zero_starts(net, 0)
    report = nfa.audit(net, normal(24, 8), initial_state=start)
    for name in BRANCHES:
        assert report.row(name).measured
        assert report.row(name).init_cosine != report.row(name).init_cosine
        assert report.row(name).cosine == pytest.approx(nfa.audit(net, normal(24, 8)).row(name).cosine)


def test_what_is_filled():
    net = seeded(last_weight=True)
    names = ["blocks.0.norm.weight", "blocks.1.norm.weight", "head.weight"]
    assert list(zero_starts(net)) == names
    before = {name: p.clone() for name, p in net.named_parameters()}
    assert fill_zero_starts(net, 3) == names
    changed = [name for name, p in net.named_parameters() if not torch.equal(p, before[name])]
    assert changed == names
    assert float(net.head.weight.detach().std()) == pytest.approx(SCALE, rel=0.5)
    other = seeded(last_weight=True)
    fill_zero_starts(other, 3)
    assert torch.equal(net.head.weight, other.head.weight)
    assert fill_zero_starts(net, 3) == []
    report = nfa.audit(net, normal(24, 8))
    assert all(row.measured for row in report.rows)


NETS = """
import torch
from tests.nfa.layers.test_zero_starts import Net
"""


def test_the_command_offers_random_scales(tmp_path, monkeypatch, capsys):
    import numpy

    monkeypatch.chdir(tmp_path)
    (tmp_path / "zero_nets.py").write_text(NETS)
    numpy.savez("x.npz", x=normal(24, 8).numpy())
    net = seeded()
    fill_zero_starts(net, 1)
    torch.save(net.state_dict(), "net.pth")
    arguments = [
        "audit",
        "zero_nets:Net",
        "--weights",
        "net.pth",
        "--data",
        "x.npz",
        "--exact",
        "--pictures",
        "0",
    ]
    try:
        for option, known in (([], False), (["--random-scales"], True)):
            assert main([*arguments, "--init", "--out", "out", *option]) == 0
            rows = {
                row["layer"]: row for row in json.loads((tmp_path / "out/audit.json").read_text())["rows"]
            }
            assert all((rows[name]["init_cosine"] is not None) == known for name in BRANCHES)
        assert "Random scales: 2 weights that start at zero" in capsys.readouterr().out
        with pytest.raises(SystemExit):
            main([*arguments, "--out", "out", "--random-scales"])
        assert "give it with @none or --init" in capsys.readouterr().err
    finally:
        sys.modules.pop("zero_nets", None)
