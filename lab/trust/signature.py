"""The signature of this user's lab in a folder that it wrote."""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.checkout import ROOT
from nfa.files import write_whole

SIGNATURE = ".signature"  # name of the file
_LENGTH = 32  # bytes of a secret


def sign(folder: Path, overrides: Sequence[str]) -> None:
    """Leave in a folder that this lab wrote these overrides; where no secret can be kept, nothing."""
    for secret in _secrets(make=True)[:1]:
        write_whole(folder / SIGNATURE, _signature(secret, overrides) + "\n")


def is_signed(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether this lab left exactly these overrides in the folder."""
    path = folder / SIGNATURE
    try:
        found = path.read_bytes()[:100].strip() if path.is_file() else b""
    except OSError:
        return False
    mine = (_signature(secret, overrides).encode() for secret in _secrets())
    return any(hmac.compare_digest(found, signature) for signature in mine)


def _signature(secret: bytes, overrides: Sequence[str]) -> str:
    return hmac.new(secret, json.dumps(list(overrides)).encode(), hashlib.sha256).hexdigest()


def _secrets(*, make: bool = False) -> list[bytes]:
    """The secret of this user, and that of this checkout for where there is no home; the first is made."""
    found: list[bytes] = []
    for place in _state_folders():
        path = place / "secret"
        with contextlib.suppress(OSError):
            if make and not found and not path.exists():
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
                _write_once(path, secrets.token_bytes(_LENGTH))
        with contextlib.suppress(OSError):
            found += [secret for secret in [path.read_bytes()] if len(secret) == _LENGTH]
    return found


def _write_once(path: Path, secret: bytes) -> None:
    """Of several processes that write, one wins, and none reads half a secret."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent)  # for its owner's eyes only
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
        os.link(partial, path)  # fails where there is one by now
    finally:
        os.unlink(partial)


def _state_folders() -> list[Path]:
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".local", "state")
    return [*([Path(home) / "nfa"] if os.path.isabs(home) else []), ROOT / ".state"]
