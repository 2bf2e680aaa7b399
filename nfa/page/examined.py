"""Single samples of the runs of a comparison: who is right in which group, and a picture of each run."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.compare import Comparison
from nfa.compare.examined import ELSEWHERE, RIGHT, TRAINED, WRONG, Examined
from nfa.page import raster
from nfa.page.table import Heading, Number

_COLOURS = {  # of a picture, and as they are named beside it
    TRAINED: ((0xC4, 0xCB, 0xD1), "trained on"),
    RIGHT: ((0x00, 0x72, 0xB2), "right"),
    WRONG: ((0xD5, 0x5E, 0x00), "wrong"),
    ELSEWHERE: ((0xFF, 0xFF, 0xFF), "not asked"),
}
_SIDE = 240  # px that a picture has at least, by whole pixels a sample
_MOST_PICTURES = 24


@dataclass(frozen=True)
class Picture:
    """A run as a picture.

    Attributes:
        address: of the image.
        label: of the model.
        replicate: seed, and fold.
        sentence: what is right, by group.
    """

    address: str
    label: str
    replicate: str
    sentence: str


@dataclass(frozen=True)
class Samples:
    """What the page shows of single samples.

    Attributes:
        headings: of a table with a row a run.
        rows: label of the model, and the cells beside it.
        pictures: of the first runs.
        left_out: how many runs have none.
        colours: CSS colour to what it stands for.
    """

    headings: Sequence[Heading]
    rows: Sequence[tuple[str, Sequence[str | int | Number]]]
    pictures: Sequence[Picture]
    left_out: int
    colours: dict[str, str]


def samples_of(comparison: Comparison) -> Samples | None:
    """Lay out what the runs tell of single samples; None where none tells anything."""
    told = [(comparison.label_of(run), run, run.examined) for run in comparison.runs]
    known = [(label, run, examined) for label, run, examined in told if examined is not None]
    if not known:
        return None
    names = list(dict.fromkeys(name for *_, examined in known for name in examined.groups))
    return Samples(
        [
            Heading("#", "in the order of the models"),
            Heading("model", kind="text name"),
            Heading("seed, fold", kind="text"),
            *(Heading(name, "share that is right, and how many of how many") for name in names),
        ],
        [
            (label, [run.replicate, *(_share(examined, name) for name in names)])
            for label, run, examined in known
        ],
        [
            Picture(raster.data_uri(raster.png(_drawn(examined))), label, run.replicate, examined.sentence)
            for label, run, examined in known[:_MOST_PICTURES]
        ],
        len(known[_MOST_PICTURES:]),
        {"#{:02x}{:02x}{:02x}".format(*colour): words for colour, words in _COLOURS.values()},
    )


def _share(examined: Examined, name: str) -> Number:
    right, count = examined.groups.get(name, (0, 0))
    if not count:
        return Number(float("nan"), "none")
    return Number(right / count, f"{right / count:.3f}", remark=f"{right} of {count}", remark_kind="chance")


def _drawn(examined: Examined) -> Tensor:
    """A square of one colour for each sample, uint8 (h, w, 3)."""
    colours = {sign: torch.tensor(colour, dtype=torch.uint8) for sign, (colour, _) in _COLOURS.items()}
    pixels = torch.stack([torch.stack([colours[sign] for sign in line]) for line in examined.grid])
    scale = -(-_SIDE // max(pixels.shape[:2]))
    return pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
