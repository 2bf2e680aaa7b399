"""What is drawn of a layer: shapes of filters and eigenvectors, pooled matrices, the choice of layers."""

import pytest
import torch
from torch import nn

import nfa
from nfa.ansatz.pictures import layer_pictures


@pytest.fixture(scope="module")
def drawn():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 40),
        nn.ReLU(), nn.Linear(40, 3),
    )  # fmt: skip
    report = nfa.audit(net, torch.randn(5, 3, 8, 8))
    return net, report


def test_filters_and_eigenvectors_are_images_where_patches_are(drawn):
    net, report = drawn
    first, point, flat = layer_pictures(report, net, power=0.5, input_shape=(3, 8, 8))
    assert first.filters.shape == (6, 3, 5, 5)
    assert first.agop_eigenvectors.shape == (6, 3, 5, 5)
    assert point.filters is None
    assert flat.filters is None


def test_first_layer_of_an_mlp_is_drawn_on_the_input():
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2))
    report = nfa.audit(net, torch.randn(5, 3, 4, 4))
    assert layer_pictures(report, net, power=1.0, input_shape=(3, 4, 4))[0].nfm_eigenvectors.shape == (
        5,
        3,
        4,
        4,
    )


def test_pooled_matrices_are_block_means_of_the_dense_ones(drawn):
    _, report = drawn
    pair = report.pair("5")
    for pooled, dense in ((pair.nfm(32), pair.nfm()), (pair.agop(0.5, 32), pair.agop(0.5))):
        means = dense.reshape(32, 4, 32, 4).mean((1, 3))
        assert torch.allclose(pooled, means, atol=1e-12)


@pytest.mark.parametrize(("count", "layers"), [(None, ["0", "2", "5"]), (2, ["0", "5"]), (1, ["0"]), (0, [])])
def test_choice_of_layers(drawn, count, layers):
    net, report = drawn
    assert [p.layer for p in layer_pictures(report, net, power=0.5, count=count)] == layers


def test_grouped_layers_are_drawn_as_the_mean_of_their_groups():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(36, 2))
    report = nfa.audit(net, torch.randn(3, 4, 5, 5))
    picture = layer_pictures(report, net, power=1.0)[0]
    assert picture.nfm.shape == (9, 9)
    assert torch.allclose(picture.nfm, report.pair("0").nfm().mean(0))
