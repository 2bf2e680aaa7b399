"""A measurement as one self-contained HTML page."""

from nfa.page.measurement import write_html

__all__ = ["write_html"]
