"""A report as a JSON file: the numbers, and how they were taken; read as text, of which nothing is run."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nfa.ansatz.precision import Precision
from nfa.ansatz.row import AnsatzRow
from nfa.ansatz.words import plain
from nfa.errors import NfaError
from nfa.files import write_whole

DRAWS = "null draws"  # among the meta: random rotations of each layer
_TEXTS, _COUNTS = ("layer", "kind", "status"), ("in_features", "out_features", "groups")
_NEEDED = ("layer", "kind", "in_features", "out_features")
_ROW = {field.name for field in dataclasses.fields(AnsatzRow)}
_PRECISION = {field.name for field in dataclasses.fields(Precision)}


def write_json(
    path: str | os.PathLike,
    rows: Iterable[AnsatzRow],
    meta: Mapping[str, object],
    precision: Mapping[str, Precision] | None = None,
) -> None:
    """Write ``{"meta": …, "rows": […], "precision": {…}}``, whole or not at all.

    An undefined number is ``null``. A row has the fields of `AnsatzRow` and its verdict;
    ``verdicts`` tells for each layer what decided it, and how large that is.

    Args:
        path: the file; an existing one is replaced.
        rows: one a layer and measurement.
        meta: versions, command, seed, sizes, timings, …; what JSON does not know is written as text.
        precision: of measured layers.
    """
    rows = list(rows)
    content = {
        "meta": dict(meta),
        "rows": [{**dataclasses.asdict(row), "verdict": row.verdict} for row in rows],
        "verdicts": {
            row.layer: {"decided_by": row.decided_by, "effect": row.effect} for row in rows if row.effect
        },
        "precision": {layer: dataclasses.asdict(known) for layer, known in (precision or {}).items()},
    }
    write_whole(path, json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> tuple[list[AnsatzRow], dict[str, Any], dict[str, Precision]]:
    """Rows, meta and precision that `write_json` wrote; a number that the file does not have is NaN.

    Raises:
        NfaError: there is no such file, it cannot be read, or it holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows, meta = [_row(row) for row in content["rows"]], content["meta"]
        precision = {k: _precision(known) for k, known in content.get("precision", {}).items()}
        _check_meta(meta)
    except FileNotFoundError:
        raise NfaError(f"there is no file {path}: expected one that nfa audit or report.save wrote") from None
    except OSError as error:
        raise NfaError(f"cannot read {path} ({error.strerror})") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else (str(error).splitlines() or [""])[0]
        raise NfaError(
            f"{path} is no report, or damaged ({reason}): expected the audit.json of nfa audit, or what "
            "report.save wrote"
        ) from None
    return rows, meta, precision


def _row(written: Mapping[str, Any]) -> AnsatzRow:
    """A row; what a newer version may have added to it is left out."""
    needed = {name: written[name] for name in _NEEDED}
    known = {name: value for name, value in written.items() if name in _ROW}
    return AnsatzRow(**{name: _value(name, value) for name, value in {**needed, **known}.items()})


def _value(name: str, value: object) -> Any:
    if name not in (*_TEXTS, *_COUNTS):
        return _number(name, value)
    expected = str if name in _TEXTS else int
    if not isinstance(value, expected) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}")
    return value


def _number(name: str, value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}")
    return float(value)


def _precision(written: Mapping[str, Any]) -> Precision:
    return Precision(**{name: _number(name, v) for name, v in written.items() if name in _PRECISION})


def _check_meta(meta: object) -> None:
    """What is read from it later has its form."""
    if not isinstance(meta, dict):
        raise TypeError("its meta are no mapping")
    draws, notes = meta.get(DRAWS, {}), meta.get("notes", [])
    if not isinstance(draws, dict) or not all(isinstance(count, int) for count in draws.values()):
        raise TypeError(f"its {DRAWS} are no counts")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise TypeError("its notes are no sentences")
