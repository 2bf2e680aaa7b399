"""Checks that all models share."""

from collections.abc import Iterable

from nfa import NfaError


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse an option that is not among the known ones."""
    if value not in known:
        raise NfaError(f"{name} must be one of {', '.join(known)}, got {value!r}")
