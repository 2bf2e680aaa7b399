"""Files of weights load whole or not at all, and nothing in them runs."""

import argparse
import os
import pickle

import numpy
import pytest
import torch
from torch import nn

from nfa import NfaError
from nfa.zoo.weights import load_weights, other_classes, read_weights


def network(classes=3):
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


class Evil:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def same(model, state):
    return all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def copy(state):
    return {k: v.clone() for k, v in state.items()}


WRAPPERS = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {}}},
    "model": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1), "best": numpy.float64(0.5)},
    "nested": lambda s: {"ema": {"module": s}, "step": 1},
    "one unknown name": lambda s: {"teacher": s, "epoch": 1},
    "DataParallel": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "compiled part": lambda s: {k.replace("0.", "0._orig_mod."): v for k, v in s.items()},
    "Lightning": lambda s: {
        "state_dict": {**{f"model.module.{k}": v for k, v in s.items()}, "loss.weight": torch.ones(3)}
    },
    "half": lambda s: {k: v.bfloat16() if v.is_floating_point() else v for k, v in s.items()},
    "without counts": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_finds_and_loads_the_state_dict(tmp_path, wrapper, zipped):
    state = {
        k: v.bfloat16().float() if v.is_floating_point() else v for k, v in network().state_dict().items()
    }
    path = tmp_path / "weights.pth"
    torch.save(WRAPPERS[wrapper](state), path, _use_new_zipfile_serialization=zipped)
    model = network()
    load_weights(model, path)
    assert same(model, state)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    path.unlink()
    assert same(model, state)  # nothing of the network lives in the file


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = network().state_dict()
    safetensors.save_file(state, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == state.keys()
    model = network()
    load_weights(model, tmp_path / "w.safetensors")
    assert same(model, state)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:200])
    with pytest.raises(NfaError, match="cut off or damaged"):
        read_weights(tmp_path / "cut.safetensors")


def test_weights_that_are_not_finite_load(tmp_path):
    state = network().state_dict()
    state["0.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "w.pt")
    model = network()
    load_weights(model, tmp_path / "w.pt")
    assert model[0].weight.isnan().sum() == 1


MISFITS = {
    "shape": (
        lambda s: {**s, "2.weight": torch.ones(7, 5)},
        r"1 of 9.*2.weight is \(7, 5\) in the file, \(3, 5\)",
    ),
    "missing": (lambda s: {k: v for k, v in s.items() if k != "0.bias"}, "0.bias is missing in the file"),
    "unexpected": (lambda s: {**s, "9.weight": torch.ones(1)}, "9.weight is only in the file"),
    "many": (lambda s: {f"x{k}": v for k, v in s.items()}, r"\(17 of 9 tensors differ\)"),
    "complex": (lambda s: {**s, "0.weight": s["0.weight"] + 0j}, "torch.complex64 in 0.weight"),
    "integer": (lambda s: {**s, "0.weight": s["0.weight"].int()}, "torch.int32 in 0.weight"),
    "quantised": (
        lambda s: {**s, "0.weight": torch.quantize_per_tensor(s["0.weight"], 0.1, 0, torch.qint8)},
        "quantised torch.qint8 in 0.weight",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_refuses_what_does_not_fit_and_loads_nothing(tmp_path, misfit):
    change, message = MISFITS[misfit]
    torch.save(change(network().state_dict()), tmp_path / "w.pt")
    model = network()
    before = copy(model.state_dict())
    with pytest.raises(NfaError, match=message) as caught:
        load_weights(model, tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert same(model, before)


def test_other_number_of_classes():
    assert other_classes(network(3), network(7).state_dict()) == 7
    assert other_classes(network(3), network(3).state_dict()) is None
    wider = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    assert other_classes(network(3), wider.state_dict()) is None


@pytest.mark.parametrize("write", ["torch", "old torch", "pickle", "beside weights"])
def test_code_in_a_file_is_not_run(tmp_path, write):
    trace, path = tmp_path / "trace", tmp_path / "w.pth"
    if write == "pickle":
        path.write_bytes(pickle.dumps(Evil(trace)))
    else:
        content = {"state_dict": network().state_dict(), "x": Evil(trace)}
        content = content if write == "beside weights" else Evil(trace)
        torch.save(content, path, _use_new_zipfile_serialization=write != "old torch")
    with pytest.raises(NfaError) as caught:
        read_weights(path)
    assert not trace.exists()
    if write != "pickle":
        assert "refused: reading it would run code (posix.system)" in str(caught.value)
    os.system(f"touch {trace}")
    assert trace.exists()  # it would have shown


def test_a_whole_module_is_refused_by_name(tmp_path):
    torch.save(network(), tmp_path / "w.pt")
    with pytest.raises(NfaError, match=r"run code \(torch.nn.modules.container.Sequential\)"):
        read_weights(tmp_path / "w.pt")


def test_damaged_files(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.rand(5000)}, path)
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NfaError, match="cut off or damaged"):
        read_weights(path)
    whole[len(whole) // 2] ^= 255
    path.write_bytes(whole)
    with pytest.raises(NfaError, match=r"damaged \(checksum"):
        read_weights(path)
    torch.save({"a": torch.rand(5000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(NfaError, match="cut off or damaged"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello world, this is text", "no file of weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04 and nothing else", "cut off or damaged"),
    ],
)
def test_no_file_of_weights(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(NfaError, match=message) as caught:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path):
    (tmp_path / "resnet20.th").touch()
    with pytest.raises(NfaError, match=r"near ones: resnet20.th"):
        read_weights(tmp_path / "resnet2O.th")
    with pytest.raises(NfaError, match=r"is a folder: give a file in it, such as resnet20.th"):
        read_weights(tmp_path)
    with pytest.raises(NfaError, match="no file"):
        read_weights(tmp_path / "nowhere" / "w.pt")


@pytest.mark.parametrize("content", [torch.ones(3), {"epoch": 1}, [1, 2], {"optimizer": {"lr": 0.1}}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(NfaError, match="has no state dict: expected tensors by name"):
        read_weights(tmp_path / "w.pt")


def test_a_network_built_at_its_first_input(tmp_path):
    built = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 2))
    torch.save(built.state_dict(), tmp_path / "w.pt")
    lazy = nn.Sequential(nn.LazyConv2d(6, 3, groups=2), nn.Flatten(), nn.LazyLinear(2))
    load_weights(lazy, tmp_path / "w.pt")
    assert (lazy[0].in_channels, lazy[2].in_features) == (4, 24)
    x = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(lazy(x), built(x))


def test_tensors_that_claim_more_than_there_is(tmp_path):
    """A stride of 0 makes any number of entries out of one."""
    torch.save({"w": torch.zeros(1).expand(10**9, 10**6)}, tmp_path / "w.pth")
    with pytest.raises(NfaError, match=r"state dict of .*w\.pth takes about .* of memory"):
        read_weights(tmp_path / "w.pth")
