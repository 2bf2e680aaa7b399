"""Numbers as people write them: 13,8 and 14.700, $4,030, 12.5 %, −2."""

import re
from dataclasses import dataclass
from functools import cached_property

_LIKE_NA = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?"))  # in small letters
LONE_MARKS = frozenset((".", "..", "-", "--", "---", "\u2013", "\u2014"))  # gaps among numbers alone

SIGNS = {"point": ".", "comma": ",", "blank": " ", "apostrophe": "'"}  # options by name, for shells
_NAMES = {sign: name for name, sign in SIGNS.items()}

_CURRENCY = "$¢£¤¥\u20a0-\u20cf"
_MINUS = dict.fromkeys(map(ord, "\u2212\u2012\u2013\uff0d"), "-")
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_PLAIN = re.compile(rf"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+){_EXPONENT}|inf(?:inity)?)", re.IGNORECASE)
_AROUND = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<before>[{_CURRENCY}]?)\s*(?P<inner>[+-]?)"
    rf"(?P<body>[^\s%{_CURRENCY}+-](?:.*[^\s%{_CURRENCY}])?)\s*(?P<after>[%{_CURRENCY}]?)"
)
_TAKEN_OFF = re.compile(rf"[\s.,'’()%{_CURRENCY}]")


@dataclass(frozen=True)
class Notation:
    """How numbers of a file are written, and what stands for a gap.

    Attributes:
        decimal: ``.`` or ``,``; None is ``.``, or ``,`` where thousands are separated by ``.``.
        thousands: what stands between groups of three digits: ``,``, ``.``, a blank (of any kind) or ``'``;
            None: nothing.
        gaps: texts and numbers that are gaps beside empty cells, in every column; None takes those like NA,
            NaN, null and ? in columns of numbers and in texts that are inputs, and lone points and dashes in
            columns of numbers.
    """

    decimal: str | None = None
    thousands: str | None = None
    gaps: tuple[str | float, ...] | None = None

    @property
    def point(self) -> str:
        """The decimal sign in use."""
        return self.decimal or ("," if self.thousands == "." else ".")

    @property
    def options(self) -> str:
        """The options that ask for it, ``data.decimal=comma``."""
        given = {"decimal": self.decimal, "thousands": self.thousands}
        return " ".join(f"data.{option}={_NAMES[sign]}" for option, sign in given.items() if sign)

    def is_gap(self, cell: object) -> bool:
        """Whether a cell is a gap wherever it stands."""
        return cell in self._gap_texts or self._is_gap_number(cell)

    def is_gap_among_numbers(self, cell: str) -> bool:
        """Whether a cell that is no number is a gap where the others are numbers."""
        return self.gaps is None and (is_like_na(cell) or cell in LONE_MARKS)

    def read(self, text: str) -> tuple[float, str] | None:
        """Value and unit (``%``, a currency sign, or none) of a number; None for other texts."""
        if self.point == "." and is_numeral(text):
            return float(text), ""
        parts = _AROUND.fullmatch(text.translate(_MINUS).strip())
        if parts is None or (parts["before"] and parts["after"]) or (parts["sign"] and parts["inner"]):
            return None
        if not self._body.fullmatch(parts["body"]):
            return None
        digits = parts["body"]
        if self.thousands:
            digits = re.sub(_separator(self.thousands), "", digits)
        value = float(parts["sign"] + parts["inner"] + digits.replace(self.point, "."))
        return value, parts["before"] or parts["after"]

    @cached_property
    def _body(self) -> re.Pattern[str]:
        point, whole = re.escape(self.point), r"\d+"
        if self.thousands:
            between = _separator(self.thousands)
            whole = rf"(?:\d{{1,3}}(?:{between}\d{{2,3}})*{between}\d{{3}}|\d+)"
        return re.compile(rf"(?:{whole}(?:{point}\d*)?|{point}\d+){_EXPONENT}")

    @cached_property
    def _gap_texts(self) -> frozenset[str]:
        return frozenset(str(gap) for gap in self.gaps or () if isinstance(gap, str))

    @cached_property
    def _gap_numbers(self) -> frozenset[float]:
        values = (self.read(gap) if isinstance(gap, str) else (float(gap), "") for gap in self.gaps or ())
        return frozenset(value[0] for value in values if value is not None)

    def _is_gap_number(self, cell: object) -> bool:
        if not self._gap_numbers:
            return False
        value = self.read(cell) if isinstance(cell, str) else (cell, "")
        return value is not None and value[0] in self._gap_numbers


def is_like_na(text: str) -> bool:
    """Whether a text is one that files have in place of a missing value: NA, NaN, null, None, ?."""
    return text.lower() in _LIKE_NA


def is_numeral(text: str) -> bool:
    """Whether a text is a number in plain notation, which ``1_2`` is not."""
    return _PLAIN.fullmatch(text) is not None


def looks_like_number(text: str) -> bool:
    """Whether a text is a number once points, commas, blanks, units and the sign are taken off."""
    bare = _TAKEN_OFF.sub("", text.translate(_MINUS)).lstrip("+-")
    return bare.isdigit() or is_numeral(bare)


def readings(texts: list[str], asked: Notation) -> list[Notation]:
    """Ways to read all of some texts as numbers of one unit, each of which gives other values.

    A decimal sign that was asked for stays.
    """
    found: dict[tuple[float, ...], Notation] = {}
    for decimal, thousands in _TRIED:
        if asked.decimal and decimal != asked.decimal:
            continue
        way = Notation(asked.decimal or (decimal if decimal == "," else None), thousands)
        read = [value for text in texts if (value := way.read(text)) is not None]
        if len(read) == len(texts) and len({unit for _, unit in read}) == 1:
            found.setdefault(tuple(value for value, _ in read), way)
    return list(found.values())


_TRIED = (
    (".", None), (",", None), (".", ","), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"),
)  # fmt: skip


def _separator(thousands: str) -> str:
    """A pattern of what may stand between thousands."""
    return {" ": r"\s", "'": "['’]"}.get(thousands, re.escape(thousands))
