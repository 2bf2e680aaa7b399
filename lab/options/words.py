"""The values of an option in words, and a value that came as it is typed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.options.option import Option

_SHOWN = 60  # characters of a value in a message


def kind_in_words(option: "Option") -> str:
    """``a whole number of at least 1``; of an option that may be several kinds, the first."""
    if option.choices:
        return f"one of {', '.join(dict.fromkeys(map(str, option.choices)))}"
    if option.kind in ("whole", "number"):
        return f"{'a whole number' if option.kind == 'whole' else 'a number'}{range_in_words(option)}"
    names = {"flag": "true or false", "text": "a text", "path": "a path", "mapping": "a mapping"}
    return names.get(option.kind, "anything")


def range_in_words(option: "Option") -> str:
    """The bounds of a number, as they follow its kind."""
    low, high = option.least, option.most
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}" + (f" and below {option.below}" if option.below is not None else "")
    if option.above is not None:
        if option.below is not None:
            return f" between {option.above} and {option.below}"
        return f" above {option.above}" + (f" and at most {high}" if high is not None else "")
    return f" of at most {high}" if high is not None else ""


def shown(value: object) -> str:
    """A value as it is typed, cut to one short line."""
    plain: Iterable[tuple[object, str]] = ((None, "null"), (True, "true"), (False, "false"))
    words = next((word for known, word in plain if value is known), None) or repr(value)
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"
