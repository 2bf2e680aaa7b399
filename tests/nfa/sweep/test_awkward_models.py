"""Models and inputs that once gave a wrong number, left a trace, or ended in an unclear error."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import nfa
from nfa import reference

D = torch.float64


def relative(A, B):
    return float((A - B).norm() / B.norm())


def check(net, x, layers, **options):
    fast = nfa.agop(net, x, **options)
    slow = reference.centered_layer_agop if options.get("centered") else reference.layer_agop
    for name in layers:
        assert relative(fast[name], slow(net, x, name)[0]) < 1e-9, name


class Checkpointed(nn.Module):
    def __init__(self, on):
        super().__init__()
        self.on = on
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x):
        h = checkpoint(self.body, x, use_reentrant=False) if self.on else self.body(x)
        return torch.tanh(self.c(h))

    def body(self, x):
        return torch.tanh(self.b(torch.tanh(self.a(x))))


@pytest.mark.parametrize("options", [{}, {"centered": True}, {"probes": 2}])
def test_activation_checkpointing(options):
    torch.manual_seed(0)
    net, x = Checkpointed(on=True).to(D), torch.randn(6, 5, dtype=D)
    plain = Checkpointed(on=False).to(D)
    plain.load_state_dict(net.state_dict())
    fast, expected = nfa.agop(net, x, **options), nfa.agop(plain, x, **options)
    assert all(relative(fast[name], expected[name]) < 1e-12 for name in "abc")


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.t, self.c = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        with torch.no_grad():
            t = self.t(x)
        return torch.tanh(self.c(torch.tanh(self.a(x)) + t))


def test_layer_under_no_grad_is_skipped():
    torch.manual_seed(0)
    net, x = Teacher().to(D), torch.randn(6, 5, dtype=D)
    check(net, x, "ac")
    assert nfa.audit(net, x).row("t").status.startswith("skipped: not called in the forward pass")


class InnerDerivative(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(5, 6), nn.Linear(6, 1)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        g = torch.autograd.grad(self.c(h).sum(), h, create_graph=True)[0]
        return torch.tanh(g * h)


def test_derivative_inside_the_forward():
    torch.manual_seed(0)
    net, x = InnerDerivative().to(D), torch.randn(6, 5, dtype=D)
    check(net, x, "a")


class Force(nn.Module):
    """Minus the gradient of an energy: asks for the gradient of its own input."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(5, 6), nn.Linear(6, 1)

    def forward(self, x):
        x = x.requires_grad_()
        return -torch.autograd.grad(self.c(torch.tanh(self.a(x))).sum(), x, create_graph=True)[0]


def test_model_that_asks_for_gradients_of_its_input():
    torch.manual_seed(0)
    net, x = Force().to(D), torch.randn(6, 5, dtype=D)
    z = net.a(x).detach()
    # f = -Wᵀ(v ∘ (1 - tanh²z)), so that df/dz = 2 Wᵀ diag(v tanh z (1 - tanh²z))
    scale = 2 * net.c.weight.detach()[0] * torch.tanh(z) * (1 - torch.tanh(z) ** 2)
    W = net.a.weight.detach()
    C = sum(torch.diag(s) @ W @ W.T @ torch.diag(s) for s in scale) / len(x)
    assert relative(nfa.agop(net, x)["a"], W.T @ C @ W) < 1e-12


def test_hook_of_the_user_that_replaces_the_output():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).to(D), torch.randn(6, 5, dtype=D)
    expected = nfa.agop(nn.Sequential(net[0], nn.Tanh(), net[1]), x)["0"]
    net[0].register_forward_hook(lambda module, inputs, out: torch.tanh(out))
    assert relative(nfa.agop(net, x)["0"], expected) < 1e-12


def test_compiled_model():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(6, 5)
    expected = nfa.agop(net, x)["0"]
    net.compile(backend="eager")
    assert relative(nfa.agop(net, x)["0"], expected) < 1e-6


class Shared(nn.Module):
    """The second argument is shared by all samples; the third is a list with an entry a sample."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x, shared, scales):
        factor = torch.tensor(scales, dtype=D)[:, None]
        return self.c(torch.tanh(self.a(x)) * factor * shared.sum())


def test_arguments_without_a_sample_dimension_stay_whole():
    torch.manual_seed(0)
    net, x, shared = Shared().to(D), torch.randn(40, 5, dtype=D), torch.randn(30, dtype=D)
    scales = [1.0 + i for i in range(40)]
    whole = nfa.agop(net, [((x, shared, scales), None)])
    parts = nfa.agop(net, [((x[i : i + 8], shared, scales[i : i + 8]), None) for i in range(0, 40, 8)])
    assert relative(whole["a"], parts["a"]) < 1e-12


def test_input_agop_reads_every_batch_of_a_generator():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).to(D), torch.randn(12, 5, dtype=D)
    assert relative(nfa.input_agop(net, iter(x.split(4))), nfa.input_agop(net, x)) < 1e-12
    with pytest.raises(nfa.NfaError, match="one floating tensor"):
        nfa.input_agop(net, torch.ones(3, 5, dtype=torch.long))


def test_in_place_operation_on_the_input_does_not_reach_the_data():
    net, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)), torch.randn(6, 5)
    before = x.clone()
    nfa.audit(net, x)
    assert torch.equal(x, before)


def test_loader_is_read_no_further_than_needed_and_leaves_the_generator_alone():
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    data = [(torch.randn(5), 0) for _ in range(20)]
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    state, read = torch.get_rng_state(), []

    def reading():
        for batch in loader:
            read.append(batch)
            yield batch

    nfa.audit(net, reading(), max_samples=5, initial_state=net.state_dict())
    assert len(read) == 2
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("axis", ["last", "second"])
def test_loss_over_positions(axis):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 7)).to(D), torch.randn(3, 4, 5, dtype=D)
    y = torch.randint(0, 7, (3, 4), dtype=torch.int32)
    net = net if axis == "last" else nn.Sequential(net[0], Swap())
    delta = (net[0](x).softmax(-1) - F.one_hot(y.long(), 7)).detach().flatten(0, 1)
    expected = net[0].weight.detach().T @ (delta.T @ delta / 3) @ net[0].weight.detach()
    assert relative(nfa.agop(net, [(x, y)], output="loss")["0"], expected) < 1e-12


class Swap(nn.Module):
    def forward(self, x):
        return x.movedim(-1, 1)


@pytest.mark.parametrize(
    ("message", "batches", "options"),
    [
        (
            "one class index for each position",
            [(torch.ones(4, 5), torch.ones(4, dtype=torch.long))],
            {"output": "loss"},
        ),
        (r"is for \(samples, classes\) outputs", torch.ones(4, 5), {"output": "softmax"}),
        ("pass a list of such pairs", (torch.ones(4, 5), torch.ones(4, dtype=torch.long)), {}),
        ("replicates must be a whole number of 1 or more", torch.ones(4, 5), {"replicates": 0}),
        ("cannot be measured over several", torch.ones(4, 5), {"distributed": True, "centered": True}),
    ],
)
def test_clear_errors(message, batches, options):
    with pytest.raises(nfa.NfaError, match=message):
        nfa.audit(nn.Sequential(nn.Linear(5, 1)), batches, **options)


def test_initial_report_of_another_model():
    x = torch.randn(4, 5)
    first = nfa.audit(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)), x)
    with pytest.raises(nfa.NfaError, match="initial_state is of another model: 0 was"):
        nfa.audit(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)), x, initial_state=first)


def test_centred_linear_network_has_nothing_left():
    net = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).to(D)
    row = nfa.audit(net, torch.randn(40, 5, dtype=D), centered=True).row("0")
    assert math.isnan(row.cosine)
    assert math.isnan(row.alignment)


def test_standard_error_with_batches_of_unequal_size():
    torch.manual_seed(0)
    net, rows = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(D), []
    for seed in range(60):
        x = torch.randn(91, 6, generator=torch.Generator().manual_seed(seed), dtype=D)
        sizes = [15] * 6 + [1]
        rows.append(nfa.audit(net, x.split(sizes), layers="0", nulls=0, power=1.0).rows[0])
    empirical = torch.tensor([row.cosine for row in rows]).std()
    reported = torch.tensor([row.stderr for row in rows]).square().mean().sqrt()
    assert float(reported / empirical) == pytest.approx(1, abs=0.4)


def test_attention_mask_of_infinities_is_an_input_like_any_other():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.c = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x, mask):
            weights = (self.a(x) @ x.mT + mask).softmax(-1)
            return self.c(weights @ x).mean(1)

    mask = torch.zeros(4, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -math.inf)
    assert nfa.audit(Masked(), [((torch.randn(4, 3, 5), mask), None)]).row("a").measured
