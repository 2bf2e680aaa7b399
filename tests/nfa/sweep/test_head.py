"""All outputs through the eigenvectors of a linear head: the same sums from fewer backwards."""

import pytest
import torch
from torch import nn

import nfa
from nfa.layers.maps import find_maps
from nfa.sweep.measure import measure_sensitivities


def relative(A, B):
    return float((A - B).norm() / B.norm())


def net_with_head(outputs=20, features=6):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(45, features), nn.Tanh(),
        nn.Linear(features, outputs),
    ).double()  # fmt: skip


class Hidden(nn.Module):
    """The same network, but its output is no longer the very tensor that the last layer returned."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) * 1


X = torch.randn(7, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunk", [1, 4])
def test_fewer_backwards_give_the_same_agop(chunk):
    net = net_with_head()
    maps = find_maps(net)[0]
    sweep = measure_sensitivities(net, X, maps, chunk=chunk)
    assert (sweep.backwards, sweep.outputs) == (6, 20)
    assert sweep.mode == "exact through the head: 6 backwards for 20 outputs"
    slow = nfa.agop(Hidden(net), X, chunk=chunk)
    for name, G in nfa.agop(net, X, chunk=chunk).items():
        assert relative(G, slow[f"net.{name}"]) < 1e-12, name


def test_token_outputs_go_through_the_head_position_by_position():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 9)).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    assert measure_sensitivities(net, x, find_maps(net)[0]).backwards == 8
    slow = nfa.agop(Hidden(net), x)
    for name, G in nfa.agop(net, x).items():
        assert relative(G, slow[f"net.{name}"]) < 1e-12, name


def test_neglected_share_is_reported_and_bounds_the_trace():
    net = net_with_head()
    with torch.no_grad():
        net[-1].weight *= torch.logspace(0, -2, 6, dtype=torch.float64)
    exact, nearly = nfa.audit(net, X), nfa.audit(net, X, neglect=0.01)
    assert nearly.meta["backwards a sample"] < exact.meta["backwards a sample"]
    V = net[-1].weight.detach()
    values = torch.linalg.eigvalsh(V.mT @ V).flip(0)
    kept = nearly.meta["backwards a sample"]
    assert nearly.meta["neglected"] == pytest.approx(float(values[kept:].sum() / values.sum()))
    assert 0 < nearly.meta["neglected"] <= 0.01
    assert "neglected" not in exact.meta
    for row, other in zip(exact.rows, nearly.rows, strict=True):
        assert row.cosine == pytest.approx(other.cosine, abs=0.05)


@pytest.mark.parametrize("output", ["softmax", "log_softmax"])
def test_other_outputs_do_not_take_that_way(output):
    net = net_with_head()
    sweep = measure_sensitivities(net, X, find_maps(net)[0], output=output)
    assert sweep.backwards == 20


class Skip(nn.Module):
    """The output also depends on what comes before the head by another way."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.side = nn.Linear(3, 4), nn.Linear(4, 9), nn.Linear(4, 9)

    def forward(self, x):
        h = self.body(x).tanh()
        return self.head(h) + self.side(h.sin())


class ChangedInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 9)

    def forward(self, x):
        return self.head(self.body(x).tanh()).mul_(torch.arange(9.0).double())


@pytest.mark.parametrize(
    ("make", "statuses"), [(Skip, ["ok", "trivial", "trivial"]), (ChangedInPlace, ["ok", "ok"])]
)
def test_outputs_that_are_not_the_heads_alone(make, statuses):
    torch.manual_seed(0)
    net, x = make().double(), torch.randn(5, 3, dtype=torch.float64)
    report = nfa.audit(net, x)
    assert report.meta["backwards a sample"] == 9
    assert [row.status for row in report.rows] == statuses


def test_last_map_is_trivial_exactly_with_probes_and_with_a_temperature():
    net, x = net_with_head(outputs=4), X
    for options in ({}, {"probes": 3}, {"tolerance": 0.5}):
        report = nfa.audit(net, x, power=1.0, **options)
        row = report.rows[-1]
        assert [row.status for row in report.rows] == ["ok", "ok", "trivial"]
        assert (row.cosine, row.null_mean, row.null_isotropic) == (pytest.approx(1.0),) * 3
    scaled = nn.Sequential(net, nn.Softplus())
    assert nfa.audit(scaled, x).rows[-1].status == "ok"

    class Temperature(nn.Module):
        def forward(self, z):
            return 3.5 * z

    assert nfa.audit(nn.Sequential(net, Temperature()), x).rows[-1].status == "trivial"
