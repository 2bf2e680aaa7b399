"""The state of an encoder as JSON, and an encoder from it: plain values, each of them looked at."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path

from nfa.compare.together import TABLE
from nfa.errors import NfaError
from nfa.files import write_whole
from nfa.inputs.headers import check_size
from nfa.inputs.tables.encoder import MAX_ONE_HOT, TableEncoder
from nfa.inputs.tables.features import Levels, Numbers, Outputs
from nfa.inputs.tables.numerals import SIGNS, Notation

_FORMAT = 1
_PARSED = 20  # times the size of a file that it takes in memory


def save(encoder: TableEncoder, path: Path) -> None:
    """Write an encoder, see `TableEncoder.save`."""
    state = {
        "format": _FORMAT,
        "columns": [asdict(column) for column in encoder.columns],
        "dropped": dict(encoder.dropped),
        "header": encoder.header,
        "how": asdict(encoder.how),
        "outputs": asdict(encoder.outputs) if encoder.outputs else None,
    }
    write_whole(path, json.dumps(state, indent=1, allow_nan=False) + "\n")


def load_encoder(path: str | Path) -> TableEncoder:
    """Build the encoder of the tables that a run was trained on.

    Args:
        path: the folder of a run, or the file ``table.json`` in it.

    Raises:
        NfaError: there is no such file, or it is not as `TableEncoder.save` writes it.
    """
    path = Path(path).expanduser()
    path = path / TABLE if path.is_dir() else path
    if not path.is_file():
        raise NfaError(f"expected {TABLE} of a run on a table at {path}, found none: give the folder of one")
    check_size(path, _PARSED)
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise NfaError(f"expected JSON in {path}, could not read it ({reason}): copy it anew") from None
    try:
        return _encoder(state)
    except _Malformed as error:
        raise NfaError(f"{path} holds no encoder of tables as this version writes it: {error}") from None


class _Malformed(Exception):
    """What was expected in the state, and what came."""

    @classmethod
    def of(cls, key: str, expected: str, got: object) -> "_Malformed":
        """What came under a key."""
        return cls(f"expected {expected} under {key!r}, got {got!r:.60}")


def _encoder(state: object) -> TableEncoder:
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise _Malformed.of("format", f"{_FORMAT}", state)
    _check(isinstance(state.get("columns"), list) and state["columns"], "columns", "a list", state)
    columns = tuple(map(_column, state["columns"]))
    names = [column.name for column in columns]
    _check(len(set(names)) == len(names), "columns", "different names", names)
    dropped = state.get("dropped")
    if not isinstance(dropped, dict) or not _are_texts(dropped.values()):
        raise _Malformed.of("dropped", "reasons", dropped)
    _check(isinstance(state.get("header"), bool), "header", "true or false", state.get("header"))
    encoder = TableEncoder(
        columns, dropped, state["header"], _notation(state.get("how")), _outputs(state.get("outputs"))
    )
    _check(encoder.num_one_hot <= MAX_ONE_HOT, "columns", f"{MAX_ONE_HOT} levels at most", names)
    return encoder


def _column(state: object) -> Numbers | Levels:
    if not isinstance(state, dict) or not isinstance(state.get("name"), str):
        raise _Malformed.of("columns", "names", state)
    if "levels" in state:
        _checked_keys(state, Levels)
        levels = state["levels"]
        _check(isinstance(levels, list) and len(levels) > 1, "levels", "two texts or more", levels)
        known = levels[:-1] if levels[-1] is None else levels
        _check(_are_texts(known) and known == sorted(set(known)), "levels", "texts in order", levels)
        return Levels(state["name"], tuple(levels))
    _checked_keys(state, Numbers)
    for key in ("median", "mean", "std"):
        _check(_is_number(state[key]), key, "a number", state[key])
    for key in ("varies", "indicator"):
        _check(isinstance(state[key], bool), key, "true or false", state[key])
    _check(state["std"] > 0, "std", "a number above 0", state["std"])
    _check(state["varies"] or state["indicator"], "varies", "true without an indicator", state)
    _check(isinstance(state["written"], str), "written", "a text", state["written"])
    median, mean, std = (float(state[key]) for key in ("median", "mean", "std"))
    return Numbers(state["name"], median, mean, std, state["varies"], state["indicator"], state["written"])


def _notation(state: object) -> Notation:
    state = _checked_keys(state, Notation)
    signs = {key: state[key] for key in ("decimal", "thousands")}
    for key, sign in signs.items():
        _check(sign is None or sign in SIGNS.values(), key, f"one of {[*SIGNS.values()]}", sign)
    gaps = state["gaps"]
    good = gaps is None or (isinstance(gaps, list) and all(isinstance(g, str) or _is_number(g) for g in gaps))
    _check(good, "gaps", "texts and numbers", gaps)
    return Notation(signs["decimal"], signs["thousands"], None if gaps is None else tuple(gaps))


def _outputs(state: object) -> Outputs | None:
    if state is None:
        return None
    state = _checked_keys(state, Outputs)
    _check(isinstance(state["name"], str), "name", "a text", state["name"])
    classes = state["class_names"]
    _check(isinstance(classes, list) and _are_texts(classes), "class_names", "texts", classes)
    for key in ("mean", "std"):
        _check(_is_number(state[key]), key, "a number", state[key])
    return Outputs(state["name"], tuple(classes), float(state["mean"]), float(state["std"]))


def _check(good: object, key: str, expected: str, got: object) -> None:
    if not good:
        raise _Malformed.of(key, expected, got)


def _checked_keys(state: object, kind: type) -> Mapping:
    keys = {field.name for field in fields(kind)}
    found = set(state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or found != keys:
        raise _Malformed.of(kind.__name__.lower(), ", ".join(sorted(keys)), found)
    return state


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # which NaN is not


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)
