"""The kinds of option there are: whole numbers and others in a range, choices, flags, texts, paths."""

from lab.options.option import Option


def whole(least: int | None = None, most: int | None = None) -> Option:
    """A whole number in an inclusive range."""
    return Option("whole", least, most)


def number(
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Option:
    """A finite number in a range."""
    return Option("number", least, most, above, below)


def choice(*values: str | int) -> Option:
    """One of some values."""
    return Option("choice", choices=values)


FLAG = Option("flag")
TEXT = Option("text")
PATH = Option("path")
MAPPING = Option("mapping")
ANY = Option("any", null=True)

COUNT = whole(1)
COUNT_OR_ZERO = whole(0)
POSITIVE = number(above=0)
SHARE = number(above=0, below=1)
SEED = whole(0, 2**32 - 1)
LAYERS = whole(1, 10_000)  # each is a module of its own
