"""Dates to numbers: days since 1970-01-01."""

import re
from datetime import UTC, date, datetime, time, timedelta

DAYS = "days since 1970-01-01"

_ISO = re.compile(
    r"[12]\d{3}(?P<between>[-/])(?:0?[1-9]|1[0-2])(?:(?P=between)\d{1,2})?"
    r"(?:[T ]+(?P<time>\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?(?P<zone>Z|[+-]\d{2}:?\d{2})?)?"
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_OTHER = re.compile(
    rf"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[., ]+)?"
    rf"(?:\d{{1,2}}([./-])\d{{1,2}}\1\d{{2,4}}|\d{{4}}\.\d{{1,2}}\.\d{{1,2}}"
    rf"|(?:\d{{1,2}}(?:st|nd|rd|th)?[ .-]*)?{_MONTH}[ .,-]*(?:\d{{1,2}}(?:st|nd|rd|th)?[ .,-]+)?\d{{2,4}})"
    r"(?:[T ,]+\d{1,2}:\d{2}.*)?",
    re.IGNORECASE,
)


def read_date(text: str) -> float | None:
    """Days from 1970-01-01 to ``2024-12-31``, ``2024/12/31``, ``2024-12``, ``2024-12-31T13:05:00+01:00``."""
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    try:
        year, month, *day = (int(part) for part in re.split("[-/]", re.split("[T ]", text)[0]))
        clock = datetime.strptime((found["zone"] or "+00:00").replace("Z", "+00:00"), "%z")
        at = time.fromisoformat(found["time"]) if found["time"] else time()
        return days(datetime.combine(date(year, month, *(day or [1])), at, clock.tzinfo))
    except ValueError:
        return None


def is_other_date(text: str) -> bool:
    """Whether a text is a date whose order of day and month is not known for sure: ``31.12.2024``."""
    return _OTHER.fullmatch(text) is not None


def days(value: date | datetime | time | timedelta) -> float:
    """Days since 1970-01-01 (UTC, which is assumed where no zone is given), or the days that a time takes."""
    if isinstance(value, timedelta):
        return value / timedelta(days=1)
    if isinstance(value, time):
        return timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
        ) / timedelta(days=1)
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    value = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(days=1)
