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
    "arguments", [(CNN((1, 6, 6), 2, depth=1, width=4, batch_norm=True),), (nn.Linear(2, 2), "cubic")]
)
def test_what_cannot_be_expanded_is_refused(arguments):
    with pytest.raises(NfaError, match=r"statistics of the batch|order"):
        Expansion(*arguments)


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
