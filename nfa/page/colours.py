"""Colours of charts: CSS variables with a fallback, which a page may lighten for a dark background."""

# Okabe and Ito's colours, told apart by colour-blind eyes.
BLUE = "var(--blue, #0072B2)"
VERMILLION = "var(--vermillion, #D55E00)"
GREEN = "var(--green, #009E73)"
PURPLE = "var(--purple, #CC79A7)"
ORANGE = "var(--orange, #E69F00)"
SKY = "var(--sky, #56B4E9)"
GREY = "var(--grey, #8A939B)"
PAGE, INK = "var(--page, #fff)", "var(--ink, #1c2126)"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
# For an order, like depth: of medium luminance throughout, to show on light and on dark.
_RAMP = ((0x3B, 0x7D, 0xD8), (0x85, 0x68, 0xD0), (0xC7, 0x50, 0x9B), (0xE0, 0x60, 0x5A), (0xE8, 0x96, 0x2E))


def ramp(count: int) -> list[str]:
    """So many colours for series that have an order, first to last."""
    return [_ramp_color(i / max(count - 1, 1)) for i in range(count)]


def _ramp_color(position: float) -> str:
    left = min(int(position * (len(_RAMP) - 1)), len(_RAMP) - 2)
    weight = position * (len(_RAMP) - 1) - left
    mixed = (round(a + weight * (b - a)) for a, b in zip(_RAMP[left], _RAMP[left + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
