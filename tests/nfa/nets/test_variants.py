"""Expansions of networks in their weights, and the parameterisation of tangent kernels."""

import itertools

import pytest
import torch
from torch import nn

import nfa
from nfa import NfaError
from nfa.nets import CNN, MLP, Expansion, balanced, ntk
from nfa.nets.parameterization import scale_weights
from nfa.nets.registry import build

MLP_NET = {"_target_": "nfa.nets.MLP", "input_shape": [4], "num_outputs": 2, "width": 6, "depth": 1}


def moved(net, size=1.0):
    """The parameters of a network, moved at random in place."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(size * torch.randn_like(p))
    return net


@pytest.mark.parametrize("order", ["linear", "quadratic"])
def test_at_the_start_an_expansion_is_the_network(order):
    net = CNN((1, 6, 6), 3, depth=1, width=4, batch_norm=False, activation="gelu")
    x = torch.randn(5, 1, 6, 6)
    expansion = Expansion(net, order)
    assert torch.allclose(expansion(x), net(x), atol=1e-6)
    assert sum(p.numel() for p in expansion.parameters()) == sum(p.numel() for p in net.parameters())


def test_two_layers_of_relu_keep_the_gates_of_the_start():
    torch.manual_seed(0)
    net, x = MLP((3,), 2, depth=1, width=20, bias=False).double(), torch.randn(7, 3).double()
    gates = (net.hidden1(x) > 0).double()
    u0, v0 = net.hidden1.weight.detach(), net.output.weight.detach()
    quadratic, linear = moved(Expansion(net)), Expansion(net, "linear")
    linear.load_state_dict(quadratic.state_dict())
    u, v = quadratic.get_parameter("hidden1/weight"), quadratic.get_parameter("output/weight")
    hidden, before = x @ u.T * gates, x @ u0.T * gates
    assert torch.allclose(quadratic(x), hidden @ v.T)
    assert torch.allclose(linear(x), hidden @ v.T - (hidden - before) @ (v - v0).T)


def test_what_is_quadratic_in_its_weights_is_its_own_expansion():
    net, x = MLP((3,), 2, depth=1, width=5, activation="quadratic").double(), torch.randn(4, 3).double()
    net.output.requires_grad_(False)
    expansion = Expansion(net)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p))
                expansion.get_parameter(name.replace(".", "/")).copy_(p)
    assert torch.allclose(expansion(x), net(x))


class Tied(nn.Module):
    """One weight, used twice."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(4, 4), nn.Linear(4, 4)
        self.out.weight = self.into.weight

    def forward(self, x):
        """Outputs under a name."""
        return {"logits": self.out(torch.tanh(self.into(x)))}


class OfWords(nn.Module):
    """An embedding of indices, a recurrence, and a weight that is not trained."""

    def __init__(self):
        super().__init__()
        self.words, self.state, self.out = (
            nn.Embedding(10, 4),
            nn.GRU(4, 3, batch_first=True),
            nn.Linear(3, 2),
        )
        self.out.bias.requires_grad_(False)

    def forward(self, x):
        """Outputs of indices (n, length)."""
        return self.out(self.state(self.words(x))[0][:, -1])


def attention(**options):
    """A block of a transformer without dropout, and a head."""
    block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0, **options)
    return nn.Sequential(block, nn.Flatten(), nn.Linear(12, 2))


KINDS = {
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)), (5, 4)),
    "group norm": (lambda: nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8), nn.Linear(8, 2)), (5, 4)),
    "instance norm": (
        lambda: nn.Sequential(nn.Conv1d(4, 2, 3), nn.InstanceNorm1d(2, affine=True), nn.Flatten()),
        (3, 4, 6),
    ),
    "attention": (lambda: attention(activation="gelu"), (2, 3, 4)),
    "attention, norm first": (lambda: attention(norm_first=True, activation="gelu"), (2, 3, 4)),
    "tied weights": (Tied, (5, 4)),
    "words": (OfWords, None),
    "one sample": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (1, 4)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_it_is_the_expansion_whatever_the_network_is_made_of(name, training):
    """Against differences of the network itself along the way from the start, PyTorch's own forward twice."""
    torch.manual_seed(0)
    make, shape = KINDS[name]
    net = make().double().train(training)
    x = torch.randn(shape).double() if shape else torch.randint(0, 10, (5, 3))
    quadratic, linear = (
        moved(Expansion(net, order), 0.1).train(training) for order in ("quadratic", "linear")
    )
    linear.load_state_dict(quadratic.state_dict())
    named = [(n, n.replace(".", "/")) for n, _ in net.named_parameters()]
    start = {n: quadratic.get_buffer(f"start/{key}") for n, key in named}
    way = {n: quadratic.get_parameter(key).detach() - start[n] for n, key in named}

    def at(t):
        with torch.no_grad():
            outputs = torch.func.functional_call(net, {n: start[n] + t * way[n] for n in start}, (x,))
        return outputs["logits"] if isinstance(outputs, dict) else outputs

    h = 0.02
    slope = (8 * (at(h) - at(-h)) - at(2 * h) + at(-2 * h)) / (12 * h)
    curvature = (16 * (at(h) + at(-h)) - at(2 * h) - at(-2 * h) - 30 * at(0)) / (12 * h**2)
    assert torch.allclose(linear(x), at(0) + slope, atol=1e-5)
    assert torch.allclose(quadratic(x), at(0) + slope + curvature / 2, atol=1e-5)
    quadratic(x).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in quadratic.parameters())


def test_one_pass_drops_the_same_units_in_all_terms():
    net = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 1)).double()
    expansion, x = moved(Expansion(net)), torch.randn(3, 4).double()
    torch.manual_seed(1)
    found = expansion(x)
    first = {name: expansion.get_parameter(f"{name}/weight") for name in "02"}
    torch.manual_seed(1)
    hidden = net[1](x @ first["0"].T + expansion.get_parameter("0/bias"))
    assert torch.allclose(found, hidden @ first["2"].T + expansion.get_parameter("2/bias"))


def test_gradients_of_an_expansion_are_of_its_weights_and_of_its_input():
    net = MLP((3,), 1, depth=1, width=5, activation="tanh").double()
    expansion, x = moved(Expansion(net), 0.3), torch.randn(4, 3).double()
    agop = nfa.input_agop(expansion, [x])
    x.requires_grad_()
    (slope,) = torch.autograd.grad(expansion(x).sum(), x)
    assert torch.allclose(agop, slope.T @ slope / 4)
    expansion(x).sum().backward()
    assert all(p.grad is not None for p in expansion.parameters())


def test_an_expansion_moves_and_is_copied_as_a_whole():
    import copy

    expansion = moved(Expansion(MLP((3,), 2, depth=1, width=5)))
    twin = copy.deepcopy(expansion).double()
    x = torch.randn(4, 3)
    assert torch.allclose(twin(x.double()), expansion(x).double(), atol=1e-5)
    assert all(t.dtype == torch.float64 for t in twin.state_dict().values())


def test_an_expansion_has_no_layers_to_audit():
    expansion = Expansion(MLP((3,), 2, depth=1, width=5))
    with pytest.raises(NfaError, match="an expansion around the initial weights has no layers"):
        nfa.audit(expansion, torch.randn(4, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CNN((1, 6, 6), 2, depth=1, width=4, batch_norm=True),), "statistics of the batch"),
        ((nn.Linear(2, 2), "cubic"), "order"),
        ((nn.ReLU(),), "has no weights"),
        ((nn.Sequential(nn.LazyLinear(3), nn.ReLU()),), "of unknown shape"),
    ],
)
def test_what_cannot_be_expanded_is_refused(arguments, message):
    with pytest.raises(NfaError, match=message):
        Expansion(*arguments)


def test_what_pytorch_cannot_differentiate_is_named_and_switches_stay_as_they_were():
    net = nn.Sequential(nn.Linear(4, 6), nn.GLU())
    was = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(NfaError, match="PyTorch cannot do so for glu_jvp: take a network without"):
        Expansion(net)(torch.randn(2, 4))
    assert torch.backends.mha.get_fastpath_enabled() == was


def test_the_tangent_kernel_does_not_grow_with_the_width():
    def kernel(width):
        torch.manual_seed(0)
        net = ntk(MLP((4,), 1, depth=2, width=width))
        slopes = torch.autograd.grad(net(torch.ones(1, 4)).sum(), list(net.parameters()))
        return sum(s.square().sum() for s in slopes)

    assert 0.6 < kernel(2000) / kernel(200) < 1.6
    weight = ntk(nn.Conv2d(3, 500, 3)).weight
    assert weight.std().item() == pytest.approx(27**-0.5, rel=0.05)


def test_a_network_in_that_parameterisation_is_audited_by_its_weights():
    net, x = ntk(MLP((5,), 3, depth=1, width=8)), torch.randn(20, 5)
    plain = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for module, twin in ((net.hidden1, plain[0]), (net.output, plain[2])):
            twin.weight.copy_(module.weight)
            twin.bias.zero_()
    ours, theirs = nfa.audit(net, x).rows[0], nfa.audit(plain, x).rows[0]
    assert ours.layer == "hidden1"
    assert ours.cosine == pytest.approx(theirs.cosine)
    assert ours.alignment == pytest.approx(theirs.alignment)


def test_weights_are_scaled_however_they_are_kept():
    net = ntk(MLP((5,), 3, depth=1, width=8))
    before = net.hidden1.weight.detach().clone()
    scale_weights(net, 0.5)
    assert torch.allclose(net.hidden1.weight, before / 2)


def test_a_file_may_name_a_network_within_an_expansion():
    inner = {"_target_": "nfa.nets.ntk", "net": MLP_NET}
    found = build({"_target_": "nfa.nets.Expansion", "net": inner, "order": "linear"}, "x.ckpt")
    assert isinstance(found, Expansion)
    assert found(torch.randn(2, 4)).shape == (2, 2)
    with pytest.raises(NfaError, match=r"names os\.system, of which nothing was imported"):
        build({"_target_": "nfa.nets.ntk", "net": {"_target_": "os.system"}}, "x.ckpt")
    with pytest.raises(NfaError, match=r"a file may give layers of torch\.nn"):
        build({"_target_": "torch.nn.Sequential", "_args_": [MLP_NET]}, "x.ckpt")
    with pytest.raises(NfaError, match="cannot be built"):
        build({"_target_": "nfa.nets.ntk", "net": 3}, "x.ckpt")


@pytest.mark.parametrize("depth", [1, 3])
def test_a_balanced_chain_has_its_exponents(depth):
    torch.manual_seed(0)
    net = balanced(MLP((12,), 10, depth=depth, width=14, activation="linear", bias=False).double())
    maps = [module for module in net if isinstance(module, nn.Linear)]
    for first, second in itertools.pairwise(maps):
        assert torch.allclose(second.weight.T @ second.weight, first.weight @ first.weight.T)
    rows = nfa.audit(net, torch.randn(20, 12).double(), nulls=0).rows
    exponents = [1 / (depth + 1 - i) for i in range(depth)]
    assert [row.alpha_fit for row in rows[:-1]] == pytest.approx(exponents, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"activation": "linear"}, {"bias": False}])
def test_only_linear_chains_can_be_balanced(options):
    with pytest.raises(NfaError, match=r"of a chain of linear maps without bias, got"):
        balanced(MLP((4,), 2, **options))


def test_an_expansion_is_the_same_in_inference_mode():
    net = Expansion(MLP([3], 2, depth=1, width=4), "quadratic")
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.3)
    x = torch.randn(5, 3)
    expected = net(x)
    with torch.inference_mode():
        assert torch.equal(net(x.clone()), expected)
