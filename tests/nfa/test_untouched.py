"""An audit leaves the model and the random states as they were, also when the model raises."""

import random

import numpy
import pytest
import torch
from torch import nn

import nfa


class Explosive(nn.Module):
    def __init__(self):
        super().__init__()
        self.fuse = False

    def forward(self, x):
        torch.rand(3), random.random(), numpy.random.rand()  # a model that draws random numbers
        if self.fuse:
            raise RuntimeError("bang")
        return x


def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(36, 8)), Explosive(), nn.Linear(8, 3),
    )  # fmt: skip
    net.train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[7].weight.grad = torch.ones_like(net[7].weight)
    return net


def snapshot(net):
    return {
        "state": {k: v.clone() for k, v in net.state_dict().items()},
        "modes": [m.training for m in net.modules()],
        "flags": [p.requires_grad for p in net.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
        "identity": [id(p) for p in (*net.parameters(), *net.buffers())],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": numpy.random.get_state()[1].tolist(),
        "switches": (torch.backends.mha.get_fastpath_enabled(), torch.get_float32_matmul_precision()),
        "grad mode": torch.is_grad_enabled(),
    }


def equal(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("options", [{}, {"probes": 2}, {"initial_state": None}, {"device": "cpu"}])
def test_nothing_changes(options):
    net, x = network(), torch.randn(6, 1, 5, 5)
    before = snapshot(net)
    nfa.audit(net, [x], **options)
    nfa.agop(net, [x])
    assert equal(snapshot(net), before)


def test_nothing_changes_when_the_model_raises():
    net, x = network(), torch.randn(6, 1, 5, 5)
    net[6].fuse = True
    before = snapshot(net)
    with pytest.raises(RuntimeError, match="bang"):
        nfa.audit(net, [x])
    assert equal(snapshot(net), before)


def test_training_mode_and_caller_contexts_do_not_matter():
    net, x = network(), torch.randn(6, 1, 5, 5)
    expected = nfa.agop(net.eval(), [x])
    net.train()
    with torch.no_grad():
        quiet = nfa.agop(net, [x])
    with torch.inference_mode():
        inference = nfa.agop(net, [x * 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nfa.agop(net, [x])
    for name in expected:
        for other in (quiet, inference, mixed):
            assert torch.allclose(other[name], expected[name], rtol=1e-5, atol=1e-9)


def test_module_that_counts_its_calls_in_a_buffer_is_put_back():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x

    net = nn.Sequential(Counter(), nn.Linear(3, 2))
    nfa.agop(net, torch.ones(2, 3))
    assert float(net[0].calls) == 0
