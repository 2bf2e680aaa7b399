"""Layers in groups, read off their names."""

import pytest

from nfa.layers.groups import MOST_GROUPS, layer_groups


def in_order(layers):
    return list(dict.fromkeys(layer_groups(layers).values()))


@pytest.mark.parametrize(
    ("layers", "groups"),
    [
        (["conv1", "layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "fc"],
         ["conv1", "layer1", "layer2", "fc"]),
        (["net.layer1.0.conv1", "net.layer1.1.conv1", "net.layer2.0.conv1"], ["layer1", "layer2"]),
        (["hidden1", "hidden2", "hidden3"], ["hidden1", "hidden2", "hidden3"]),
        ([f"bert.encoder.layer.{i}.attention" for i in range(3)], ["layer_0", "layer_1", "layer_2"]),
        ([f"blocks.{i}.{part}" for i in range(12) for part in ("qkv", "fc1")],
         ["blocks_0-1", "blocks_2-3", "blocks_4-5", "blocks_6-7", "blocks_8-9", "blocks_10-11"]),
        (["feature map"], ["feature_map"]),
        ([], []),
    ],
)  # fmt: skip
def test_groups_are_stages_or_runs_of_blocks(layers, groups):
    assert in_order(layers) == groups


def test_there_are_few_groups_however_many_layers():
    layers = [f"features.{i}" for i in range(100)] + ["head"]
    assert len(in_order(layers)) == MOST_GROUPS
    assert list(layer_groups(layers)) == layers
