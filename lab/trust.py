"""What of a folder's options may be followed: those that name code only if this user's lab wrote them.

A run folder holds the options it was started with, and ``ckpt_path=last`` takes them from there. Options
can name code to run: ``_target_`` above all, but also configurations and launchers that are not the project's
own. So the lab signs what it writes, with a secret that is kept outside of all run folders; in a folder
without that signature only plain values and the project's own choices count.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from nfa import NfaError
from nfa.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
SIGNATURE = ".signature"  # name of the file
_LENGTH = 32  # bytes of a secret
_PLAIN_NAME = r"[A-Za-z0-9]\w*"  # no _target_, _args_, …: these begin with an underscore
_KEY = re.compile(rf"{_PLAIN_NAME}(\.{_PLAIN_NAME})*")
_CHOICE = re.compile(r"\w[\w-]*")
_GROUPS = ("model", "data", "trainer", "callbacks", "logger", "experiment")
_OPTIONS = ("model", "data", "training", "trainer", "callbacks", "logger", "rates", "epochs", "seed")
_PLACES = ("ckpt_path", "hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra.output_subdir")


# ---- signed by this lab ------------------------------------------------------------------------------------


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


def check_links(folder: Path) -> None:
    """Refuse a folder that this lab did not write where a link in it leads out of it.

    Raises:
        NfaError: there is one, through which something elsewhere would be overwritten.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise NfaError(
                    f"{path} leads out of {folder}, which was not written here: going on would overwrite "
                    "files elsewhere. Take the link away, or start a new run"
                )


# ---- harmless whoever wrote them ---------------------------------------------------------------------------


def naming_code(overrides: Iterable[str]) -> list[str]:
    """Those overrides that are more than a plain value, or one of the project's own configurations."""
    parser = OverridesParser.create()
    return [override for override in overrides if not _is_plain(parser, override)]


def _is_plain(parser: OverridesParser, text: str) -> bool:
    if "${" in text:  # takes a value from elsewhere, or calls a resolver
        return False
    try:
        override = parser.parse_override(text)
    except (HydraException, RecursionError):
        return False
    key = override.key_or_group
    if override.package is not None:
        return False
    if key in _PLACES:
        return True
    if key in _GROUPS:
        return override.is_delete() or all(_is_own(key, choice) for choice in _choices(override))
    if key.endswith("dir"):  # where else something would be written to
        return False
    return bool(_KEY.fullmatch(key)) and key.split(".")[0] in _OPTIONS and _is_value(override.value())


def _choices(override: Override) -> list[Any]:
    value = override.value()
    return list(value.list) if isinstance(value, ChoiceSweep) else [value]


def _is_own(group: str, choice: Any) -> bool:
    """Whether a configuration is the project's: no configuration of that name elsewhere comes before it."""
    name = choice.text if isinstance(choice, QuotedString) else choice
    return (
        isinstance(name, str)
        and bool(_CHOICE.fullmatch(name))
        and ((ROOT / "configs" / group / f"{name}.yaml").is_file())
    )


def _is_value(value: Any) -> bool:
    if isinstance(value, ChoiceSweep):
        return all(map(_is_value, value.list))
    if isinstance(value, dict):
        return all(_is_key(key) for key in value) and all(map(_is_value, value.values()))
    if isinstance(value, list):
        return all(map(_is_value, value))
    return value is None or isinstance(value, str | int | float | QuotedString | RangeSweep | IntervalSweep)


def _is_key(key: Any) -> bool:
    return isinstance(key, int | float) or (isinstance(key, str) and bool(_KEY.fullmatch(key)))
