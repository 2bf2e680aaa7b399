"""Tensors that a network holds under several names: a file need hold them once, and not two of them."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

from nfa import NfaError
from nfa.zoo.weights import load_weights


class Symmetric(nn.Module):
    def forward(self, x):
        return x + x.mT


def tied_weight():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))
    net[2].weight = net[0].weight
    return net


def tied_module():
    layer = nn.Linear(4, 4)
    return nn.ModuleDict({"a": layer, "b": nn.Sequential(layer), "c": nn.Linear(4, 2)})


def tied_parametrised():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    net[1].weight = net[0].weight
    for layer in net:
        register_parametrization(layer, "weight", Symmetric())
    net[1].parametrizations.weight.original = net[0].parametrizations.weight.original
    return net


def tied_normalised():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net = nn.Sequential(*map(parametrizations.weight_norm, net))
    net[1].parametrizations.weight.original1 = net[0].parametrizations.weight.original1
    return net


def tied_buffer():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[1].running_mean = net[0].running_mean
    return net


def parameter_as_buffer():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    net.register_buffer("shown", net[0].weight.detach())
    return net


def part_as_buffer():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    net.register_buffer("rows", net[0].weight.detach()[1:3])
    return net


TIES = [
    tied_weight,
    tied_module,
    tied_parametrised,
    tied_normalised,
    tied_buffer,
    parameter_as_buffer,
    part_as_buffer,
]


def varied(build):
    """A network with values that its initialisation does not give, and its state without repeated names."""
    torch.manual_seed(1)
    net = build()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_()
    state = net.state_dict(keep_vars=True)
    once, seen = {}, []
    for name, t in sorted(state.items(), key=lambda item: -item[1].numel()):
        if t.untyped_storage().data_ptr() not in seen:
            once[name] = t.detach().clone()
        seen.append(t.untyped_storage().data_ptr())
    assert len(once) < len(state)
    return net, once


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("build", TIES)
def test_a_tensor_held_once_fills_all_its_names(tmp_path, build, kind):
    net, once = varied(build)
    path = tmp_path / f"w.{kind}"
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(once, path)
    else:
        torch.save(once, path)
    torch.manual_seed(2)
    other = build()
    load_weights(other, path)
    for name, t in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], t), name


@pytest.mark.parametrize("build", [tied_weight, tied_module, tied_parametrised])
def test_save_model_of_safetensors(tmp_path, build):
    from safetensors.torch import save_model

    net, _ = varied(build)
    save_model(net, str(tmp_path / "w.safetensors"))
    other = build()
    load_weights(other, tmp_path / "w.safetensors")
    for name, t in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], t), name


def untied():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))


def other_rows():
    """Holds a part of a matrix as a parameter: filling that part does not fill the matrix."""
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    net.register_buffer("rows", net[0].weight.detach()[1:3])
    return net


def refused(tmp_path, net, state, words):
    torch.save(state, tmp_path / "w.pth")
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(NfaError, match=words):
        load_weights(net, tmp_path / "w.pth")
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_equal_shapes_are_no_tie(tmp_path):
    _, once = varied(tied_weight)
    refused(tmp_path, untied(), once, "2.weight is missing in the file")


def test_the_tied_tensor_must_be_in_the_file_under_one_name(tmp_path):
    _, once = varied(tied_weight)
    refused(tmp_path, tied_weight(), {"0.bias": once["0.bias"]}, "0.weight is missing in the file; 2.weight")


def test_a_part_does_not_fill_the_whole(tmp_path):
    net = other_rows()
    state = {name: t.clone() for name, t in net.state_dict().items() if name != "0.weight"}
    refused(tmp_path, net, state, "0.weight is missing in the file")


@pytest.mark.parametrize("build", [tied_weight, tied_module, tied_buffer])
def test_two_tensors_do_not_fit_into_one(tmp_path, build):
    net, _ = varied(build)
    state = {name: t.clone() for name, t in net.state_dict().items()}
    name = next(n for n in state if n in ("2.weight", "b.0.weight", "1.running_mean"))
    state[name] += 1
    refused(tmp_path, build(), state, "one tensor in the network, and have different values in the file")
