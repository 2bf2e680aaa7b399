"""Work in blocks that become smaller where the memory of the device runs out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from nfa.device import free_memory, out_of_memory, release, size_words
from nfa.errors import NfaError
from nfa.kernels.spans import even_spans, spans

Block = tuple[slice, slice]


class Halving:
    """Does blocks of rows and columns; one whose memory runs out is done anew in halves, as all after it.

    Work on a block must leave nothing behind that counts twice when it failed and is done anew.

    Args:
        device: whose memory it is.
        least: down to which share one row and one column are tried again, where work goes by it.

    Attributes:
        share: of the usual size of buffers, half as much each time that the memory ran out.
    """

    def __init__(self, device: torch.device, least: float = 1.0):
        self.device, self._least = device, least
        self.share = 1.0
        self._most: tuple[int, int] | None = None

    def blocks(
        self, work: Callable[[slice, slice], None], blocks: Iterable[Block], upper: bool = False
    ) -> None:
        """Do ``work(rows, columns)``.

        Args:
            work: what is done.
            blocks: rows and columns.
            upper: leave out what is below the diagonal, as halves of a block on the diagonal are.

        Raises:
            NfaError: the memory runs out with one row and one column.
        """
        waiting = deque(blocks)
        while waiting:
            rows, columns = waiting.popleft()
            if upper and columns.stop <= rows.start:
                continue
            if self._most is not None and (_length(rows) > self._most[0] or _length(columns) > self._most[1]):
                parts = [(i, j) for i in _cut(rows, self._most[0]) for j in _cut(columns, self._most[1])]
                waiting.extendleft(reversed(parts))
                continue
            if not self._done(work, rows, columns):
                waiting.appendleft((rows, columns))

    def rows(self, work: Callable[[slice], None], length: int, step: int, start: int = 0) -> None:
        """Do ``work(rows)`` for so many rows at a time of the range from ``start`` to ``length``."""
        one = slice(0, 1)
        self.blocks(lambda rows, columns: work(rows), [(rows, one) for rows in spans(length, step, start)])

    def _done(self, work: Callable[[slice, slice], None], rows: slice, columns: slice) -> bool:
        tall, wide = _length(rows), _length(columns)
        try:
            work(rows, columns)
            return True
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if tall == wide == 1 and self.share <= self._least:
                raise NfaError(
                    f"out of memory with one row at a time on {self.device}{_left(self.device)}: give fewer "
                    "points, a smaller memory, or another device"
                ) from None
        release(self.device)  # only here, outside of the handler, are the tensors of the failed block free
        self.share /= 2
        self._most = max(tall // 2, 1), max(wide // 2, 1)
        return False


@contextmanager
def needs(number: float, what: str, advice: str, device: torch.device) -> Iterator[None]:
    """Say so where what cannot be had in parts does not fit.

    Args:
        number: bytes it takes.
        what: that takes them, for the message.
        advice: what to do, its end.
        device: whose memory it is.

    Raises:
        NfaError: the memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise NfaError(
            f"out of memory on {device}: {what} takes about {size_words(number)}{_left(device)}: {advice}"
        ) from None


def _left(device: torch.device) -> str:
    free = free_memory(device)
    return "" if free is None else f", {size_words(free)} are free"


def _length(part: slice) -> int:
    return part.stop - part.start


def _cut(part: slice, most: int) -> list[slice]:
    return [slice(part.start + s.start, part.start + s.stop) for s in even_spans(_length(part), most)]
