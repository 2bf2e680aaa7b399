"""Differences of two reports gathered by stage, by block and by kind of layer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nfa.ansatz.difference import OUTCOMES, LayerDifference
from nfa.ansatz.row import NAN
from nfa.ansatz.words import finite
from nfa.layers.groups import layer_blocks, layer_groups

LEVELS = ("stage", "block", "kind")


@dataclass(frozen=True)
class GroupDifference:
    """What changed in the layers of one group.

    The layers saw the same samples, so that their errors may all go one way. That of a mean is then the mean
    of the errors, which is taken: it is no larger however they go.

    Attributes:
        level: one of `LEVELS`.
        group: its name.
        layers: how many it has.
        counts: how many of them have each outcome, by their alignment.
        alignment: mean difference of the alignments, of those that have one; NaN without any.
        alignment_stderr: the most that its standard error may be; NaN where that of a layer is not known.
        cosine: mean difference of the cosines.
        stderr: likewise.
    """

    level: str
    group: str
    layers: int
    counts: Mapping[str, int]
    alignment: float
    alignment_stderr: float
    cosine: float
    stderr: float


def grouped(changes: Sequence[LayerDifference]) -> list[GroupDifference]:
    """The groups of each level, in the order of depth.

    A level that divides the layers as one before it does is left out, and so are groups of a layer each.
    """
    layers = [change.layer for change in changes]
    names = {
        "stage": layer_groups(layers),
        "block": layer_blocks(layers),
        "kind": {change.layer: change.kind for change in changes},
    }
    found: list[GroupDifference] = []
    seen: list[list[list[str]]] = []
    for level in LEVELS:
        members: dict[str, list[LayerDifference]] = {}
        for change in changes:
            members.setdefault(names[level][change.layer], []).append(change)
        division = sorted([change.layer for change in group] for group in members.values())
        alone = len(changes) > 1 and all(len(group) == 1 for group in division)
        if alone or division in seen:
            continue
        seen.append(division)
        found += [_group(level, name, group) for name, group in members.items()]
    return found


def _group(level: str, name: str, changes: Sequence[LayerDifference]) -> GroupDifference:
    counts = Counter(change.outcome for change in changes)
    aligned = [change for change in changes if finite([change.alignment])]
    cosines = [change for change in changes if finite([change.cosine])]
    return GroupDifference(
        level, name, len(changes), {outcome: counts[outcome] for outcome in OUTCOMES},
        alignment=_mean([c.alignment for c in aligned]),
        alignment_stderr=_mean([c.alignment_stderr for c in aligned]),
        cosine=_mean([c.cosine for c in cosines]),
        stderr=_mean([c.stderr for c in cosines]),
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else NAN
