"""What the tests of the audit command share: networks, data, and how an audit is called and refused."""

import json
import sys
from pathlib import Path

import numpy
import pytest

from nfa.command.cli import main

ROOT = Path(__file__).parents[2]

NETS = '''
import os, signal
from collections import namedtuple
import torch
from torch import nn

def plain(outputs=3):
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, outputs))

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = plain(6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x):
        h = self.body(x).relu()
        return self.give(self.a(h), self.b(h))

class Pair(Several):
    def give(self, a, b):
        return a, b

class Single(Several):
    def give(self, a, b):
        return [a, None, a.argmax(1)]

class Named(Several):
    def give(self, a, b):
        return namedtuple("Out", "policy value")(a, b)

class Keys(Several):
    def give(self, a, b):
        return {"policy": a, "more": {"value": b}}

class Logits(Several):
    def give(self, a, b):
        return {"hidden": b, "logits": a}

class Text(Several):
    def give(self, a, b):
        return "cat"

class Squeezing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain(1)

    def forward(self, x):
        return self.net(x).squeeze()

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, x):
        return self.net(x.view(16, 8))

class Pairs(Fixed):
    def forward(self, x):
        return self.net(x) if len(x) > 1 else self.net(x.view(2, 8))

class Mixed(Fixed):
    def forward(self, x):
        return self.net(x).sum(0, keepdim=True)

class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), plain()

    def forward(self, x):
        return self.head(self.embed(x).mean(1))

def image():
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *pooled, nn.Linear(4, 2))

def loads_a_part():
    net = plain()
    net[0].load_state_dict(torch.load("w.pth"))
    nn.init.eye_(net[4].weight)
    return net

def loads_its_own():
    torch.manual_seed(0)
    return plain()

class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = plain()

    def forward(self, x):
        return self.layer1(x)

calls = 0

class Stopping(nn.Module):
    """Sends a signal to the process while it is measured."""

    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, x):
        global calls
        calls += 1
        if calls == 9:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        return self.net(x)

class Failing(Stopping):
    """Raises an error of its own while it is measured."""

    def forward(self, x):
        global calls
        calls += 1
        if calls >= 9:
            raise self.error("a table\\nof two lines")
        return self.net(x)

class FailingLookup(Failing):
    error = LookupError

class FailingRuntime(Failing):
    error = RuntimeError

def scripted():
    return torch.jit.script(plain())

def traced():
    return torch.jit.trace(plain(), torch.zeros(2, 8))

def exported():
    return torch.export.export(plain(), (torch.zeros(2, 8),)).module()

def meta():
    return plain().to("meta")

def bfloat():
    return plain().bfloat16()

def quantised():
    return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})

def sparse():
    net = plain()
    net[0].weight = nn.Parameter(net[0].weight.detach().to_sparse())
    return net

def complex_valued():
    return plain().to(torch.complex64)

def without_derivative():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = plain(4), plain(2)
            self.last[0] = nn.Linear(4, 6)

        def forward(self, x):
            return self.last(Own.apply(self.first(x)))
    return Net()
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "command_nets.py").write_text(NETS)
    x = numpy.random.default_rng(0).normal(size=(24, 8)).astype("float32")
    numpy.savez(tmp_path / "x.npz", inputs=x)
    numpy.savez(tmp_path / "wide.npz", inputs=x.reshape(12, 16))
    numpy.savez(tmp_path / "square.npz", inputs=x.reshape(24, 2, 4))
    numpy.savez(tmp_path / "whole.npz", inputs=(10 * x).astype("int64"))
    numpy.savez(tmp_path / "grey.npz", inputs=x.reshape(12, 1, 4, 4))
    numpy.savez(tmp_path / "last.npz", inputs=numpy.zeros((12, 6, 6, 3)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("command_nets", None)


def audit(net, *arguments, data="x.npz", out="out"):
    return main(["audit", f"command_nets:{net}", "--data", data, "--out", out, *arguments])


def refused(capsys, net, *arguments, data="x.npz"):
    """The one line on standard error."""
    with pytest.raises(SystemExit) as status:
        audit(net, *arguments, data=data)
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not Path("out").exists()
    return error


def notes():
    return json.loads(Path("out/audit.json").read_text())["meta"]["notes"]
