"""Losses, building, checkpoints of `NeuralModule`."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nfa
from models import NeuralModule, build_model
from models.neural import build_network, scale_weights

NET = {"_target_": "nfa.nets.MLP", "input_shape": [4], "num_outputs": 3, "depth": 1, "width": 5}
DATA = SimpleNamespace(input_shape=(4,), num_outputs=3, task="classification")


def test_losses():
    outputs, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    cross = NeuralModule(NET, "classification", 3)
    assert torch.equal(cross.loss(outputs, classes), F.cross_entropy(outputs, classes))
    squares = NeuralModule(NET, "classification", 3, loss="mse")
    assert torch.allclose(squares.loss(outputs, classes), ((outputs - torch.eye(3)[classes]) ** 2).mean())
    regression = NeuralModule(NET, "regression", 3)
    target = torch.randn(6, 3)
    assert torch.allclose(regression.loss(outputs, target), ((outputs - target) ** 2).mean())


def test_init_scale_multiplies_the_weights_and_nothing_else():
    torch.manual_seed(0)
    net = build_network(NET)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    scale_weights(net, 0.1)
    for name, value in net.state_dict().items():
        factor = 0.1 if name.endswith("weight") else 1.0
        assert torch.equal(value, before[name] * factor)


def test_build_model_passes_what_the_data_decide():
    model = build_model({"_target_": "nfa.nets.MLP", "width": 6, "depth": 1}, {"lr": 0.3}, DATA)
    assert model.network.hidden1.in_features == 4
    assert model.network.output.out_features == 3
    assert model.hparams.lr == 0.3


def test_given_arguments_win_over_the_data():
    model = build_model({"_target_": "nfa.nets.MLP", "num_outputs": 3, "input_shape": [2, 2]}, {}, DATA)
    assert model.network.hidden1.in_features == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "needs a _target_"),
        ({"_target_": "models.Missing"}, "cannot import"),
        ({"_target_": "tests.nets.not_a_module"}, "must return an nn.Module, got int"),
        ({"_target_": "tests.nets.Picky", "depth": 3}, "cannot build model"),
    ],
)
def test_bad_targets(config, message):
    with pytest.raises(nfa.NfaError, match=message):
        build_model(config, {}, DATA)


def test_wrong_number_of_outputs_is_told():
    model = build_model(
        {"_target_": "tests.nets.Picky"}, {}, SimpleNamespace(**{**vars(DATA), "num_outputs": 4})
    )
    with pytest.raises(nfa.NfaError, match=r"must return \(2, 4\) outputs for this data, got \(2, 3\)"):
        model.training_step((torch.ones(2, 3), torch.tensor([0, 1])), 0)


def test_checkpoint_rebuilds_the_model(tmp_path):
    import pytorch_lightning as pl

    model = NeuralModule(NET, "classification", 3, lr=0.2)
    trainer = pl.Trainer(
        logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = NeuralModule.load_from_checkpoint(tmp_path / "model.ckpt")
    assert again.hparams.lr == 0.2
    assert torch.equal(again.network.hidden1.weight, model.network.hidden1.weight)


LRASPP = "torchvision.models.segmentation.lraspp_mobilenet_v3_large"
STRANGE = {
    "own code": {"hyper_parameters": {"net": {"_target_": "tests.nets.Picky"}}},
    "a list of them": {"hyper_parameters": {"net": [{"_target_": "tests.nets.Picky"}]}},
    "under an old name": {"hparams": {"net": {"_target_": "tests.nets.Picky"}}},
    "under an older name": {"module_arguments": {"net": {"_target_": "tests.nets.Picky"}}},
    "no options": {"hyper_parameters": [1]},
    "none at all": {"hyper_parameters": None},
    "a backbone": {"hyper_parameters": {"net": {"_target_": LRASPP, "pretrained_backbone": True}}},
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_a_checkpoint_is_loaded_without_code_that_it_names(tmp_path, monkeypatch, content):
    path, model = tmp_path / "model.ckpt", NeuralModule(NET, "classification", 3)
    plain = {"task": "classification", "num_outputs": 3}
    hyper = content.get("hyper_parameters", {})
    hyper = plain | hyper if isinstance(hyper, dict) else hyper
    before = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.0"}
    torch.save(before | content | {"hyper_parameters": hyper}, path)
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("asked the network"))
    monkeypatch.setattr("tests.nets.Picky.__init__", lambda self: pytest.fail("was called"))
    with pytest.raises(nfa.NfaError):
        NeuralModule.load_from_checkpoint(path)


def test_own_code_of_a_checkpoint_is_named_by_the_caller(tmp_path):
    path, model = tmp_path / "model.ckpt", NeuralModule(NET, "classification", 3)
    hyper = {**model.hparams, "net": {"_target_": "tests.nets.Picky"}, "_instantiator": "this.s"}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": hyper}, path)
    again = NeuralModule.load_from_checkpoint(path, net=NET)
    assert torch.equal(again.network.hidden1.weight, model.network.hidden1.weight)
    assert "this" not in sys.modules


def test_several_tensors_that_a_network_returns_are_not_cut():
    model = build_model(NET, {}, DATA)
    network, x = model.network, torch.ones(2, 4)
    for several in (lambda x: (network(x), x.sum()), lambda x: {"a": network(x), "b": x}):
        model.network = nn.Module()
        model.network.forward = several
        with pytest.raises(nfa.NfaError, match=r"returns 2 tensors, .* let the forward return these alone"):
            model.training_step((x, torch.tensor([0, 1])), 0)
    model.network.forward = lambda x: {"logits": network(x), "aux": x}
    assert torch.equal(model(x), network(x))


def test_betas_are_those_of_the_optimizer():
    model = NeuralModule(
        NET, "classification", 3, optimizer="adamw", betas=(0.9, 0.98), schedule="constant", lr=0.1
    )
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.98)
    assert model.hparams.betas == [0.9, 0.98]
    usual = NeuralModule(NET, "classification", 3, optimizer="adam", schedule="constant")
    assert usual.configure_optimizers().param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("betas", [0.9, [0.9], [0.9, 1.0], "0.9", [0.9, 0.99, 0.999]])
def test_betas_are_two_numbers_below_one(betas):
    with pytest.raises(nfa.NfaError, match=r"training\.betas must be"):
        NeuralModule(NET, "classification", 3, optimizer="adam", betas=betas)
