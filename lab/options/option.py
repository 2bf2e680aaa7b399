"""What one option may be: said once, and checked alike wherever the value comes from."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real

from lab.options.words import kind_in_words, shown
from nfa.errors import NfaError

Table = dict[str, "Option"]  # what the options of a section may be, by name
_LARGEST = 2**63 - 1  # that a tensor can be counted by


@dataclass(frozen=True)
class Option:
    """What a value may be.

    Attributes:
        kind: ``whole`` (a whole number), ``number`` (finite), ``flag`` (true or false), ``text`` (not
            empty), ``path`` (text or a path), ``choice``, ``mapping`` (maybe a ``_target_`` and its
            arguments), ``any``.
        least, most: inclusive bounds of a number.
        above, below: exclusive ones.
        choices: of ``choice``: what the value is one of.
        null: whether null (None) is a value too.
        several: whether a list of such values is one too.
        other: what else the value may be.

    Example:
        >>> whole(1).check("data.batch_size", 0)
        Traceback (most recent call last):
        nfa.errors.NfaError: data.batch_size must be a whole number of at least 1, got 0
    """

    kind: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str | int, ...] = ()
    null: bool = False
    several: bool = False
    other: "Option | None" = None

    def __or__(self, other: "Option") -> "Option":
        """Either of two."""
        return replace(self, other=other if self.other is None else self.other | other)

    def or_null(self) -> "Option":
        """The same, or null."""
        return replace(self, null=True)

    def or_list(self) -> "Option":
        """The same, or a list of such values."""
        return replace(self, several=True)

    def accepts(self, value: object) -> bool:
        """Whether a value is one of these."""
        ways = list(self._ways())
        if value is None:
            return any(way.null for way in ways)
        if isinstance(value, Sequence) and not isinstance(value, str):
            ways = [way for way in ways if way.several]
            return bool(ways) and all(any(way._fits(item) for way in ways) for item in value)
        return any(way._fits(value) for way in ways)

    def check(self, name: str, value: object) -> None:
        """Refuse another value.

        Raises:
            NfaError: it names the option, what is expected and what came.
        """
        if not self.accepts(value):
            raise NfaError(f"{name} must be {self.expected}, got {shown(value)}")

    @property
    def expected(self) -> str:
        """``a whole number of at least 1, or null``."""
        ways = list(self._ways())
        words = [kind_in_words(way) for way in ways]
        if any(way.several for way in ways):
            words.append("a list of them")
        if any(way.null for way in ways):
            words.append("null")
        return ", or ".join(dict.fromkeys(words))

    def _ways(self) -> Iterator["Option"]:
        option: Option | None = self
        while option is not None:
            yield option
            option = option.other

    def _fits(self, value: object) -> bool:
        if self.kind in ("whole", "number"):
            wanted = Integral if self.kind == "whole" else Real
            return isinstance(value, wanted) and not isinstance(value, bool) and self._in_range(value)
        if self.kind == "flag":
            return isinstance(value, bool)
        if self.kind == "mapping":
            return isinstance(value, Mapping) and isinstance(value.get("_target_", ""), str)
        if self.kind == "path" and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.kind in ("text", "path"):
            return isinstance(value, str) and bool(value) and "\0" not in value
        if self.kind == "choice":
            return any(type(value) is type(known) and value == known for known in self.choices)
        return True

    def _in_range(self, value: Real) -> bool:
        if abs(int(value)) > _LARGEST if isinstance(value, Integral) else not math.isfinite(value):
            return False
        return (
            (self.least is None or not value < self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or not value <= self.above)
            and (self.below is None or value < self.below)
        )


def check_all(prefix: str, table: Mapping[str, Option], values: Mapping[str, object]) -> None:
    """Refuse the first value that its option does not accept.

    Args:
        prefix: in front of the names in messages, such as ``training``.
        table: what the options may be.
        values: by the names of the table; those it does not have are not looked at.

    Raises:
        NfaError: as of `Option.check`.
    """
    for name, value in values.items():
        if name in table:
            table[name].check(f"{prefix}.{name}", value)
