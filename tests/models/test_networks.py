"""Shapes and structure of the networks, and what they refuse."""

import pytest
import torch
from torch import nn

import nfa
from models import CNN, MLP, VGG, ResNet
from nfa.layers.maps import find_maps

SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 20), (3, 96, 96)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cls", [MLP, CNN, ResNet, VGG])
def test_outputs(cls, shape):
    net = cls(shape, 7, width=4)
    assert net(torch.randn(2, *shape)).shape == (2, 7)


def test_width_64_is_the_published_resnet():
    import torchvision

    published = torchvision.models.resnet18(num_classes=10)
    ours = ResNet((3, 96, 96), 10, width=64)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in published.state_dict().items()
    }


@pytest.mark.parametrize(("side", "kernel", "pooled"), [(32, 3, False), (63, 3, False), (64, 7, True)])
def test_small_images_get_a_small_stem(side, kernel, pooled):
    net = ResNet((3, side, side), 10, width=4)
    assert net.conv1.kernel_size == (kernel, kernel)
    assert isinstance(net.maxpool, nn.MaxPool2d) == pooled


def test_resnet50_stays_a_bottleneck_of_any_width():
    net = ResNet((3, 32, 32), 5, arch="resnet50", width=8)
    assert net.fc.in_features == 8 * 8 * 4
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_vgg_keeps_the_pools_that_fit():
    pools = [sum(isinstance(m, nn.MaxPool2d) for m in VGG((1, s, s), 3, width=4).modules()) for s in (8, 32)]
    assert pools == [3, 5]


def test_mlp_depth_counts_hidden_layers():
    assert [m.name for m in find_maps(MLP((5,), 2, depth=3, width=4))[0]] == [
        "hidden1",
        "hidden2",
        "hidden3",
        "output",
    ]


@pytest.mark.parametrize("downsample", ["max_pool", "stride", "none"])
@pytest.mark.parametrize("padding", ["zeros", "circular", "reflect", "replicate", "none"])
@pytest.mark.parametrize("head", ["pool", "flatten"])
def test_cnn_options(downsample, padding, head):
    net = CNN((2, 21, 18), 3, depth=3, width=4, downsample=downsample, padding=padding, head=head)
    assert net(torch.randn(2, 2, 21, 18)).shape == (2, 3)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's note on a copy
def test_even_patches_keep_the_size():
    assert CNN((1, 9, 9), 3, patch_size=4, head="flatten")(torch.randn(1, 1, 9, 9)).shape == (1, 3)


@pytest.mark.parametrize("cls", [CNN, ResNet, VGG])
def test_flat_inputs_are_refused(cls):
    with pytest.raises(nfa.NfaError, match="needs images"):
        cls((64,), 10)
