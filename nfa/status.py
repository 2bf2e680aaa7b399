"""One line of progress, rewritten in a terminal; elsewhere a line now and then."""

import io
import sys
import time
from typing import TextIO

from nfa.terminal import one_line, say

_REFRESH = 0.2, 15.0  # seconds between updates of one line in a terminal, and between lines of a log


class StatusLine:
    """Writes to a stream, standard error by default."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr or io.StringIO()  # standard error may have been closed
        self.terminal = self.stream.isatty()
        self._last = 0.0
        self._width = 0

    def show(self, text: str, *, last: bool = False) -> None:
        """Show the state; what comes too soon is left out, and the last state where there is no terminal."""
        now = time.monotonic()
        if now - self._last < _REFRESH[0 if self.terminal else 1] or (last and not self.terminal):
            return
        self._last = now
        text = one_line(text)
        if self.terminal:
            print("\r" + text.ljust(self._width), end="", file=self.stream, flush=True)
            self._width = max(self._width, len(text))
        else:
            print(text, file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        say(text, stream=self.stream)

    def clear(self) -> None:
        """Take the line of progress away."""
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self.stream, flush=True)
            self._width = 0
