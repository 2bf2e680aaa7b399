"""What a file may name is built from plain values; of everything else nothing is imported."""

import sys

import pytest
import torch
from torch import nn

from nfa import NfaError, nets
from nfa.nets import registry
from nfa.nets.allowance import Allowance
from nfa.nets.registry import build, canonical

IMAGE = {"input_shape": [3, 16, 16], "num_outputs": 5}
LAYER = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}


@pytest.mark.parametrize("place", ["nfa.nets.{}", "nfa.nets.{l}.{}", "models.{}", "models.{l}.{}"])
@pytest.mark.parametrize("name", ["MLP", "CNN", "ResNet", "VGG"])
def test_networks_of_the_lab(name, place):
    target = place.format(name, l=name.lower())
    assert canonical(target) == f"nfa.nets.{name}"
    found = build({"_target_": target, **IMAGE, "width": 4}, "x.ckpt")
    assert type(found) is getattr(nets, name)
    assert found(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_layers_of_torch_hold_one_another():
    inner = {"_target_": "torch.nn.Sequential", "_args_": [LAYER]}
    layers = [LAYER, {"_target_": "torch.nn.ReLU", "inplace": True}, inner]
    found = build({"_target_": "torch.nn.Sequential", "_args_": layers}, "x.ckpt")
    assert [type(module) for module in found] == [nn.Linear, nn.ReLU, nn.Sequential]
    options = {"d_model": 8, "nhead": 2, "activation": "gelu", "batch_first": True}
    layer = {"_target_": "torch.nn.TransformerEncoderLayer", **options}
    encoder = {"_target_": "torch.nn.TransformerEncoder", "encoder_layer": layer, "num_layers": 2}
    assert len(build(encoder, "x.ckpt").layers) == 2


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("torchvision.models.squeezenet1_1", {"weights": "IMAGENET1K_V1"}),
        ("torchvision.models.squeezenet.squeezenet1_1", {"progress": False}),
        ("torchvision.models.segmentation.lraspp_mobilenet_v3_large", {"weights_backbone": "DEFAULT"}),
        ("torchvision.models.get_model", {"name": "squeezenet1_1", "weights": "x"}),
        ("timm.create_model", {"model_name": "test_vit", "pretrained": True, "checkpoint_path": "/no"}),
        (
            "timm.models.test_vit",
            {"pretrained": True, "pretrained_cfg": {"url": "http://x"}, "cache_dir": "/no"},
        ),
        ("timm.models.vision_transformer.test_vit", {"num_classes": 5}),
    ],
)
def test_constructors_of_zoos_ask_no_network(monkeypatch, target, options):
    pytest.importorskip(target.split(".")[0])

    def no_network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("socket.socket.connect", no_network)
    assert isinstance(build({"_target_": target, **options}, "x.ckpt"), nn.Module)


@pytest.mark.parametrize(
    ("target", "positional"),
    [
        ("torchvision.models.resnet18", [True]),
        ("torchvision.models.resnet18", ["DEFAULT"]),
        ("torchvision.models.get_model", ["resnet18", "DEFAULT"]),
        ("torchvision.models.segmentation.fcn_resnet50", [None, True, 21, None, "DEFAULT"]),
        ("torchvision.models.detection.fasterrcnn_resnet50_fpn", [None, True, 21, "IMAGENET1K_V1"]),
        ("timm.create_model", ["test_vit", True]),
        ("timm.models.test_vit", [True]),
    ],
)
def test_constructors_of_zoos_take_no_positions(target, positional):
    """By position torchvision takes weights, whatever was fixed by name."""
    pytest.importorskip(target.split(".")[0])
    with pytest.raises(NfaError, match="must be given by name"):
        build({"_target_": target, "_args_": positional}, "x.ckpt")


def test_no_network_is_asked_while_a_network_is_built(monkeypatch):
    """Whatever a constructor would do."""
    models = pytest.importorskip("torchvision.models")
    import socket

    def asks(**options):
        socket.getaddrinfo("example.org", 443)

    asks.__module__, asks.__name__ = "torchvision.models.resnet", "resnet18"
    monkeypatch.setattr(models, "get_model_builder", lambda name: asks)
    with pytest.raises(NfaError, match=r"asks for example\.org"):
        build({"_target_": "torchvision.models.resnet18"}, "x.ckpt")


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.run", "builtins.eval", "builtins.exec", "this.s", "pip.main", "numpy.load",
        "pathlib.Path", "__main__.x", "nfa.files.write_whole", "nfa.nets.build", "nfa.nets.registry.build",
        "nfa.zoo.load", "nfa.audit", "nfa.RFM.load", "nfa.machines.saved.load_machine", "models.build_model",
        "models.NeuralModule", "models.neural.build_network", "models.mlp.nn.Linear", "models.mlp.MLP.x",
        "callbacks.AnsatzMonitor", "datamodules.Digits", "train.main", "lab.options.check",
        "torch.load", "torch.hub.load", "torch.jit.load", "torch.fx.GraphModule", "torch.nn.Module",
        "torch.nn.Module.load_state_dict", "torch.nn.init.orthogonal_", "torch.nn.DataParallel",
        "torch.nn.parallel.DistributedDataParallel", "torch.nn.modules.linear.Linear",
        "torch.nn.functional.relu",
        "torch.nn.modules", "torch.nn.Linear.forward", "torch.utils.cpp_extension.load",
        "torchvision.models.get_weight", "torchvision.models.resnet._ovewrite_named_param",
        "torchvision.io.write_file",
        "torchvision.models.ResNet", "torchvision.models.resnet.torch.hub.load", "torchvision.ops.MLP",
        "timm.models.load_checkpoint", "timm.models.load_pretrained", "timm.models.helpers.load_state_dict",
        "timm.models.no_such_net", "timm.models._builder.build_model_with_cfg",
        "transformers.pipeline", "transformers.AutoModel.from_pretrained", "own_nets.Net", "nodots", "a..b",
        "", ".",
        "models.", "torch.nn.Linear ", "torch.nn.Linear\n", "torch/nn.Linear", "0.x",
    ],
)  # fmt: skip
def test_nothing_else_is_called(target, tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    before = set(sys.modules)
    refused = r"nothing was imported|dotted name|alone, not|zoo has no"
    mlp = {"_target_": "nfa.nets.MLP", "input_shape": [4], "num_outputs": 2}
    for net in (
        {"_target_": target, "command": "touch trace", "path": "trace"},
        {"_target_": target},
        {**LAYER, "bias": {"_target_": target, "_args_": ["touch trace"]}},
        {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": target}]},
        {**mlp, "activation": {"_target_": target}},
    ):
        with pytest.raises(NfaError, match=refused) as caught:
            build(net, "x.ckpt")
        assert "\n" not in str(caught.value)
    assert not {"this", "own_nets", "train", "lab"} & (set(sys.modules) - before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_partial_": True}, "_partial_"),
        ({"_args_": "torch.nn.Linear"}, "expected a list under _args_"),
        ({"bias": "../file"}, "a word without dots and slashes"),
        ({"bias": "hf_hub:x"}, "a word without dots and slashes"),
        ({"bias": torch.ones(2)}, "plain values"),
        ({"bias": float("nan")}, "expected a number"),
        ({"out_features": 10**12}, "expected a number up to 1e+06"),
        ({"__class__": 1}, "names of arguments"),
        ({3: 1}, "names of arguments"),
        ({"out_features": "3"}, "cannot be built with the arguments"),
        ({"out_features": -3}, "cannot be built with the arguments"),
        ({"device": "meta:0"}, "a word without"),
        ({"out_features": 10**400}, "expected a number"),
        ({"out_features": -(10**400)}, "expected a number"),
        ({"seed": 10**400}, "expected a number"),
    ],
)
def test_arguments_are_plain(change, words):
    with pytest.raises(NfaError) as caught:
        build({**LAYER, **change}, "x.ckpt")
    assert words in str(caught.value)
    assert str(caught.value).startswith("x.ckpt")


def test_nested_without_end():
    net = LAYER
    for _ in range(2000):
        net = {"_target_": "torch.nn.Sequential", "_args_": [net]}
    with pytest.raises(NfaError, match="deep"):
        build(net, "x.ckpt")
    values = []
    for _ in range(2000):
        values = [values]
    with pytest.raises(NfaError, match="deep"):
        build({**LAYER, "bias": values}, "x.ckpt")


@pytest.mark.parametrize(
    "net",
    [
        {**LAYER, "in_features": 10**6, "out_features": 10**6},
        {"_target_": "nfa.nets.MLP", "input_shape": [10**6], "num_outputs": 10, "width": 10**6},
        {"_target_": "nfa.nets.MLP", "input_shape": [1], "num_outputs": 1, "width": 1, "depth": 10**6},
        {"_target_": "nfa.machines.network.KernelNetwork", "kernel": "laplace", "in_features": 10**6,
         "outputs": 1},
        {"_target_": "torch.nn.TransformerEncoder", "num_layers": 10**6, "encoder_layer":
            {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 2, "nhead": 1, "dim_feedforward": 2}},
    ],
)  # fmt: skip
def test_sizes_meet_the_memory_there_is(net, monkeypatch):
    monkeypatch.setattr(Allowance.__init__, "__defaults__", (None, 2000))
    with pytest.raises(NfaError, match=r"would take .* of memory|more than 2000 steps"):
        build(net, "x.ckpt")


def test_an_allowance_changes_no_weights():
    torch.manual_seed(3)
    free = nets.ResNet((3, 16, 16), 5, width=4)
    torch.manual_seed(3)
    with Allowance("x"):
        bound = nets.ResNet((3, 16, 16), 5, width=4)
    assert all(torch.equal(a, b) for a, b in zip(free.parameters(), bound.parameters(), strict=True))


def test_memory_is_counted_before_it_is_taken():
    with Allowance("a net", memory=1e6), pytest.raises(NfaError, match=r"a net would take 4 MB .*1 MB"):
        torch.empty(10**6)
    with Allowance("a net", memory=1e6):
        grid = torch.arange(300)
        with pytest.raises(NfaError, match="would take"):
            (grid[:, None] + grid).float()
    with Allowance("a net", memory=1e6):
        assert torch.zeros(100).expand(10**9, 100).shape == (10**9, 100)  # a view


@pytest.mark.parametrize(
    "error", [ImportError("no module"), RuntimeError("no operator nms\nmore of it"), OSError()]
)
def test_a_zoo_that_cannot_be_imported_is_named(monkeypatch, error):
    def broken(package):
        raise error

    monkeypatch.setattr(registry, "import_installed", broken)
    line = (str(error).splitlines() or ["OSError"])[0]
    with pytest.raises(NfaError, match=rf"x\.ckpt names a network that needs timm.*\({line}\): pip install"):
        build({"_target_": "timm.create_model", "model_name": "test_vit"}, "x.ckpt")


@pytest.mark.parametrize(
    ("zoo", "target", "key"),
    [("torchvision", "torchvision.models.get_model", "name"), ("timm", "timm.create_model", "model_name")],
)
def test_a_name_that_the_installed_zoo_lacks(zoo, target, key):
    pytest.importorskip(zoo)
    for name in ("no_such_net", 3, None):
        with pytest.raises(NfaError, match="the installed zoo has no network"):
            build({"_target_": target, key: name}, "x.ckpt")
