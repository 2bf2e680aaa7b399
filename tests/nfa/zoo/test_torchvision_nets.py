"""The architectures of torchvision: everything is covered, and narrow versions agree with the reference."""

import contextlib
import copy
import math
import unittest.mock

import pytest
import torch
from torch import nn

import nfa
from nfa import reference
from nfa.layers.coverage import covered_share
from nfa.layers.maps import find_maps
from nfa.sweep.measure import measure_sensitivities
from tests.nfa.sweep.test_functional import ExplicitAttention

models = pytest.importorskip("torchvision.models")
NAMES = (
    "alexnet",
    "vgg11",
    "resnet18",
    "resnet50",
    "mobilenet_v3_small",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_covered_or_skipped_with_a_reason(name):
    net = models.get_model(name, weights=None)
    maps, skipped = find_maps(net)
    size = {"vit_b_16": 224, "alexnet": 64}.get(name, 32)
    sweep = measure_sensitivities(net, torch.randn(1, 3, size, size), maps, probes=1)
    measured = [m for m in maps if sweep.sensitivities[m.name].reached]
    assert [m.name for m in maps if m not in measured] == []
    assert all(entry.reason for entry in skipped)
    share = covered_share(net, measured)
    print(f"{name}: {share:.4f} covered")
    assert share >= 0.95


def scaled(channels, factor=16):
    return channels if channels < factor else channels // factor


@contextlib.contextmanager
def narrow():
    """Convolutions, norms and linear layers are built with a sixteenth of their channels."""

    class Conv2d(nn.Conv2d):
        def __init__(self, inputs, out, *args, groups=1, **kwargs):
            super().__init__(scaled(inputs), scaled(out), *args, groups=groups, **kwargs)

    class BatchNorm2d(nn.BatchNorm2d):
        def __init__(self, features, *args, **kwargs):
            super().__init__(scaled(features), *args, **kwargs)

    class Linear(nn.Linear):
        def __init__(self, inputs, out, *args, **kwargs):
            super().__init__(scaled(inputs), scaled(out), *args, **kwargs)

    with unittest.mock.patch.multiple(nn, Conv2d=Conv2d, BatchNorm2d=BatchNorm2d, Linear=Linear):
        yield


def mobilenet():
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    def block(*args):
        return InvertedResidualConfig(*args, dilation=1, width_mult=0.5)

    blocks = [block(16, 3, 16, 16, True, "RE", 2), block(16, 5, 32, 16, True, "HS", 1)]
    return MobileNetV3(blocks, last_channel=8, num_classes=3, dropout=0.0)


def convnext():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    net = ConvNeXt([CNBlockConfig(4, 6, 1), CNBlockConfig(6, None, 1)], num_classes=3)
    for name, parameter in net.named_parameters():
        if "layer_scale" in name:
            nn.init.ones_(parameter)
    return net


def transformer():
    net = models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=6, mlp_dim=8, num_classes=3
    )
    nn.init.normal_(net.heads.head.weight)  # zero as built: nothing below would have a gradient
    return net


def swin():
    return models.SwinTransformer(
        patch_size=[2, 2], embed_dim=6, depths=[2, 1], num_heads=[2, 2], window_size=[2, 2], mlp_ratio=2.0,
        num_classes=3,
    )  # fmt: skip


def made_narrow(name):
    def make():
        with narrow():
            return models.get_model(name, weights=None, num_classes=3)

    return make


# name: how to build it, size of the input, layers to compare
NARROW = {
    "alexnet": (made_narrow("alexnet"), 63, ("features.0", "features.3", "classifier.1", "classifier.4")),
    "vgg11": (made_narrow("vgg11"), 32, ("features.3", "features.16", "classifier.0", "classifier.3")),
    "resnet18": (made_narrow("resnet18"), 16, ("conv1", "layer2.0.conv2", "layer2.0.downsample.0")),
    "resnet50": (made_narrow("resnet50"), 16, ("layer1.0.conv2", "layer2.0.conv3", "layer4.2.conv1")),
    "mobilenet_v3_small": (
        mobilenet, 16, ("features.0.0", "features.1.block.0.0", "features.1.block.1.fc1", "features.3.0"),
    ),
    "convnext_tiny": (
        convnext, 16, ("features.0.0", "features.1.0.block.0", "features.1.0.block.3", "features.2.1"),
    ),
    "vit_b_16": (
        transformer, 8,
        ("conv_proj", "encoder.layers.encoder_layer_0.self_attention.q",
         "encoder.layers.encoder_layer_1.self_attention.k", "encoder.layers.encoder_layer_0.self_attention.v",
         "encoder.layers.encoder_layer_0.self_attention.out_proj", "encoder.layers.encoder_layer_1.mlp.0"),
    ),
    "swin_t": (
        swin, 16,
        ("features.0.0", "features.1.0.attn.qkv.q", "features.1.1.attn.qkv.k", "features.1.1.attn.qkv.v",
         "features.1.1.attn.proj", "features.2.reduction", "features.3.0.mlp.0"),
    ),
}  # fmt: skip


@contextlib.contextmanager
def functions_call_modules(net):
    """``F.linear`` with the weight of a module calls the module: what the reference can see."""
    owners = {id(m.weight): m for m in net.modules() if isinstance(m, nn.Linear)}
    original, inside = nn.functional.linear, set()

    def linear(x, weight, bias=None):
        module = owners.get(id(weight))
        if module is None or module in inside:
            return original(x, weight, bias)
        inside.add(module)
        try:
            return module(x)
        finally:
            inside.discard(module)

    with unittest.mock.patch.object(nn.functional, "linear", linear):
        yield


def explicit(net):
    """A copy in which fused attention is four linear layers."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, name, ExplicitAttention(child))
    return net


def reference_agop(net, x, name):
    base, _, part = name.rpartition(".")
    if part in ("q", "k", "v") and base.endswith("qkv"):
        C = reference.layer_sensitivity(net, x, base)[0]
        size = len(C) // 3
        rows = slice("qkv".index(part) * size, ("qkv".index(part) + 1) * size)
        W = net.get_submodule(base).weight.detach()[rows]
        return (W.mT @ C[rows, rows] @ W)[None]
    return reference.layer_agop(net, x, name)


@pytest.mark.parametrize("name", NAMES)
def test_narrow_versions_equal_the_reference(name):
    make, size, layers = NARROW[name]
    torch.manual_seed(0)
    net = make().double().eval()
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    fast = nfa.agop(net, x, layers=list(layers))
    slow_net = explicit(net)
    with functions_call_modules(slow_net):
        assert torch.allclose(slow_net(x), net(x), atol=1e-10)
        for layer in layers:
            slow = reference_agop(slow_net, x, layer)
            assert float(slow.norm()) > 0
            error = float((fast[layer].reshape(slow.shape) - slow).norm() / slow.norm())
            assert not math.isnan(error)
            assert error < 1e-9, layer
