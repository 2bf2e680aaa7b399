"""Which part of its block a layer is (``attn.q``, ``mlp.fc1``, ``conv2``), read off the layers' names."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

OTHER = "other"
_HEAD = re.compile(r"\[\d+\]$|[.:/_]?heads?[._:]?\d+$|[.:/]h\d+$|(?<=[.][qkv])[.:/_]?\d+$")
_RECURS = 3  # times, for a part to be one
_MOST_PARTS = 6  # colours that eyes tell apart
_SHARE = 0.6  # of the layers that recurring parts must make up


@dataclass(frozen=True)
class Parts:
    """Layers sorted by part.

    Attributes:
        names: of the recurring parts in the order of their first layer; `OTHER` last where needed.
        of_layer: the part of each layer.
        block_of_layer: the block of each layer; a layer of no part is a block by itself.
    """

    names: tuple[str, ...]
    of_layer: tuple[str, ...]
    block_of_layer: tuple[str, ...]

    def layers(self, part: str) -> list[int]:
        """Positions of the layers of a part."""
        return [i for i, name in enumerate(self.of_layer) if name == part]


def shown_part(part: str) -> str:
    """A part as pages name it: ``*.conv1``, since there may be a layer ``conv1`` beside it."""
    return f"({OTHER})" if part == OTHER else f"*.{part}"


def split_name(name: str) -> tuple[str, str]:
    """Split a layer's name into its block and its part, which is empty where the name tells none.

    The block ends with the first component that ends in a digit and those after it that are numbers:
    ``layer1.0 | conv1``, ``encoder.layer_3 | attn.q``. The number of a head belongs to neither.
    """
    components = _HEAD.sub("", name).split(".")
    numbered = [i for i, component in enumerate(components[:-1]) if component[-1:].isdigit()]
    if not numbered:
        return name, ""
    end = numbered[0] + 1
    while end < len(components) - 1 and components[end].isdigit():
        end += 1
    return ".".join(components[:end]), ".".join(components[end:])


def find_parts(layers: Sequence[str]) -> Parts | None:
    """Sort layers by part; None where their names do not recur in at least two parts.

    Args:
        layers: dotted names, input side first.
    """
    split = [split_name(layer) for layer in layers]
    counts = Counter(part for _, part in split if part)
    recurring = [part for part, count in counts.most_common(_MOST_PARTS) if count >= _RECURS]
    if len(recurring) < 2 or sum(counts[part] for part in recurring) < _SHARE * len(layers):
        return None
    of_layer = tuple(part if part in recurring else OTHER for _, part in split)
    names = tuple(part for part in dict.fromkeys(of_layer) if part != OTHER)
    start = common_start([block for block, part in split if part])
    blocks = tuple(block.removeprefix(start) for block, _ in split)
    return Parts(names + ((OTHER,) if OTHER in of_layer else ()), of_layer, blocks)


def common_start(names: Sequence[str]) -> str:
    """Beginning, up to a dot, that most names share; a number stays with the word before it."""
    paths = [name.split(".") for name in names]
    words: list[str] = []
    while True:
        place = len(words)
        following = Counter(path[place] for path in paths if len(path) > place + 1 and path[:place] == words)
        word, count = following.most_common(1)[0] if following else ("", 0)
        if 2 * count <= len(names):
            break
        words.append(word)
    while words and any(path[len(words)].isdigit() for path in paths if path[: len(words)] == words):
        words.pop()
    return "".join(word + "." for word in words)
