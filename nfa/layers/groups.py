"""Layers in a few groups, stages of a network or runs of its blocks, read off the layers' names."""

import re
from collections.abc import Sequence

from nfa.layers.parts import common_start

MOST_GROUPS = 6  # so that a group is still a curve of its own, however deep the network
_COUNTED = re.compile(r"((?:\.(?:blocks?|layers?))?\.\d+)\.", flags=re.ASCII)  # with a layer in it


def layer_groups(layers: Sequence[str]) -> dict[str, str]:
    """The group of each layer, in the order of depth; at most `MOST_GROUPS` of them.

    A group is a stage or a block: what a layer's name begins with, up to the first number (``layer1`` of
    ``layer1.0.conv1``, ``blocks.0`` of ``blocks.0.attn.qkv``). A layer without a block is a group by itself.
    Where there are more, neighbours are joined (``blocks_0-2``).

    Args:
        layers: dotted names, input side first.

    Returns:
        Layer to group; groups are named with letters, digits, underscores and dashes alone.
    """
    stages = [_stage(layer) for layer in layers]
    start = common_start(stages)
    stages = [stage.removeprefix(start) for stage in stages]
    distinct = list(dict.fromkeys(stages))
    count = min(len(distinct), MOST_GROUPS)
    names: dict[str, str] = {}
    for i in range(count):
        joined = distinct[i * len(distinct) // count : (i + 1) * len(distinct) // count]
        names |= dict.fromkeys(joined, _joined_name(joined[0], joined[-1]))
    return {layer: names[stage] for layer, stage in zip(layers, stages, strict=True)}


def layer_blocks(layers: Sequence[str]) -> dict[str, str]:
    """The block of each layer: its stage and, where blocks are counted in that, the number of one.

    ``layer1.0`` of ``layer1.0.conv1``, ``stages.2.blocks.1`` of ``stages.2.blocks.1.mlp.fc1``, and
    ``blocks.0`` of ``blocks.0.attn.qkv``.

    Args:
        layers: dotted names.

    Returns:
        Layer to block.
    """
    return {layer: _block(layer) for layer in layers}


def _block(layer: str) -> str:
    stage = _stage(layer)
    counted = _COUNTED.match(layer.removeprefix(stage))
    return stage + (counted.group(1) if counted else "")


def _stage(layer: str) -> str:
    """What the name begins with, up to the first component that ends in a digit; else all of it."""
    components = layer.split(".")
    numbered = (i for i, component in enumerate(components[:-1]) if component[-1:].isdigit())
    return ".".join(components[: next(numbered, len(components)) + 1])


def _joined_name(first: str, last: str) -> str:
    if first == last:
        return _plain(first)
    head = last.rstrip("0123456789")
    if head != last and re.fullmatch(re.escape(head) + r"\d+", first, flags=re.ASCII):
        last = last.removeprefix(head)
    return f"{_plain(first)}-{_plain(last)}"


def _plain(name: str) -> str:
    """W&B takes a dot for a level of its own, and a row of metrics.csv no other signs."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "unnamed"
