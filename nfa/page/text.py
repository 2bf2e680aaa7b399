"""Text of others in a page: harmless as HTML, and shown as it is."""

import html

from nfa.terminal import one_line

_TOGETHER = {" ± ": "\u00a0±\u00a0", " %": "\u00a0%"}


def unbroken(text: str) -> str:
    """Keep a number on one line with its spread, and with its sign of per cent."""
    for parts, joined in _TOGETHER.items():
        text = text.replace(parts, joined)
    return text


def minus(number: str) -> str:
    """A number in words, with the sign that typography has for minus."""
    return number.replace("-", "\u2212")


def shown(text: str) -> str:
    """Text in which all is to be seen.

    What a browser would not show, or would act on like a mark of direction, is written out; newlines and
    spaces that do not break stay.
    """
    return text if text.isprintable() else one_line(text, keep="\n\u00a0")


def escape(text: str) -> str:
    """Text, all of it to be seen, for the inside of an element or a quoted attribute."""
    return html.escape(shown(text))
