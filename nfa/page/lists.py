"""The lists of a page: notes on what it shows, and what it was made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WARNING = "partial"
_LONGEST_TOPIC = 60
_LONGEST_LINE = 140  # of a nested mapping: beyond, it is a list of its own

Entries = Mapping[str, "str | Entries"]


@dataclass(frozen=True)
class Note:
    """A sentence; what stands before its colon, if that is short, is its topic."""

    topic: str
    text: str
    is_warning: bool


def notes_of(sentences: Sequence[str]) -> list[Note]:
    """Read the sentences, warnings first."""
    return sorted(map(_note, sentences), key=lambda note: not note.is_warning)


def _note(sentence: str) -> Note:
    topic, colon, rest = sentence.partition(": ")
    is_warning = sentence.strip().lower().startswith(_WARNING)
    if colon and len(topic) < _LONGEST_TOPIC:
        return Note(topic, rest, is_warning)
    return Note("", sentence, is_warning)


def entries(meta: Mapping[str, object]) -> Entries:
    """Write out the values; a mapping as a line where it is short, else as entries of its own."""
    return {str(key): _value(value) for key, value in meta.items()}


def _value(value: object) -> str | Entries:
    line = _words(value)
    if not isinstance(value, Mapping) or not value:
        return line
    nested = any(isinstance(item, Mapping) for item in value.values())
    return entries(value) if nested or len(line) > _LONGEST_LINE else line


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
