"""Audits of networks elsewhere: the numbers of the CPU, whatever the layers, options and batches."""

import copy

import pytest
import torch
from torch import nn

import nfa
from nfa.nets import CNN, MLP, ResNet
from tests.elsewhere.device import NAME

IMAGES = [1, 8, 8]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.last = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        x = x.flatten(2)[:, 0].view(len(x), 8, 8)
        return self.last(self.mix(x, x, x)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.last = nn.GRU(8, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.read(x[:, 0])[0][:, -1])


def grouped():
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3)
    return nn.Sequential(*layers)


NETS = {
    "mlp": lambda: MLP(IMAGES, 4, width=6, depth=2),
    "cnn": lambda: CNN(IMAGES, 4, width=4, depth=2),
    "resnet": lambda: ResNet(IMAGES, 4, width=4),
    "grouped": grouped,
    "attention": Attention,
    "recurrent": Recurrent,
}  # fmt: skip
OPTIONS = {
    "exact": {},
    "probes": {"probes": 2},
    "power one": {"power": 1.0, "chunk": 3},
    "initial": {"initial_state": True},
}


RUNS = [  # one of the largest, which takes longest
    (name, options) for name in NETS for options in OPTIONS if name != "resnet" or options == "power one"
]


def made(name):
    torch.manual_seed(0)
    return NETS[name]().eval(), torch.randn(10, *IMAGES)


@pytest.mark.parametrize(("name", "options"), RUNS)
def test_audits(name, options):
    net, x = made(name)
    given = dict(OPTIONS[options])
    if given.pop("initial_state", False):
        given["initial_state"] = {k: v + 0.1 for k, v in net.state_dict().items()}
    here = nfa.audit(copy.deepcopy(net), [x[:6], x[6:]], nulls=4, **given)
    there = nfa.audit(net.to(NAME), [x[:6], x[6:]], nulls=4, device=NAME, **given)
    assert [row.layer for row in there.rows] == [row.layer for row in here.rows]
    for mine, theirs in zip(there.rows, here.rows, strict=True):
        assert mine.status == theirs.status
        for field in ("cosine", "alignment", "null_mean", "stderr"):
            expected = getattr(theirs, field)
            expected = expected if expected is None else pytest.approx(expected, abs=1e-4, nan_ok=True)
            assert getattr(mine, field) == expected, (mine.layer, field)


def test_input_agop():
    net, x = made("cnn")
    net.to(NAME)
    G = nfa.input_agop(net, [x.to(NAME)])
    assert torch.allclose(G.cpu(), nfa.input_agop(made("cnn")[0], [x]).cpu(), atol=1e-6)
