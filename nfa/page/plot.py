"""Where the data of a chart go, and text as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from nfa.page.axes import Axis
from nfa.page.text import escape

FONT = 12  # px
CHARACTER = 7.2  # px wide in that font
_NARROW, _NARROW_CHARACTER = frozenset("fijlrt1I.,:;/|()[] "), 4.2
_BROAD, _BROAD_CHARACTER = frozenset("mwMW=+<>%@"), 10.4


@dataclass(frozen=True)
class Plot:
    """Where the data go."""

    x: Axis
    y: Axis
    names: Sequence[str] | None
    groups: Sequence[str] | None
    radius: float  # of a marker; 0 where there are too many to draw

    @property
    def slot(self) -> float:
        """Pixels from one named position to the next."""
        return abs(self.x.stop - self.x.start) / max(len(self.names or ()), 1)


def text_at(
    x: float, y: float, text: str, *, anchor: str = "start", muted: bool = False, size: int = FONT
) -> str:
    """Text of others as an element, harmless; ``muted`` is for what stands beside the data."""
    looks = f' font-size="{size}"' if size != FONT else ""
    looks += ' opacity=".72"' if muted else ""
    looks += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{looks}>{escape(text)}</text>'


def text_width(text: str, *, of_options: bool = False) -> float:
    """Estimate px; names with options in them, as in ``mlp (width=128)``, need more."""
    widths = dict.fromkeys(_NARROW, _NARROW_CHARACTER)
    if of_options:
        widths |= dict.fromkeys(_BROAD, _BROAD_CHARACTER) | {"1": CHARACTER}
    return sum(widths.get(c, CHARACTER) for c in text)
