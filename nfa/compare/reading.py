"""The files of a run folder, read as data: of the wrong kind, size or type, they are refused in one line."""

import csv
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, TypeGuard

from safetensors import SafetensorError, safe_open

from nfa.ansatz.row import AnsatzRow, read_csv

LARGEST = 1e100  # number whose square is one still
_LARGEST_TEXT = 2**28  # bytes of a JSON or CSV file
_LARGEST_FEATURES = 2**33
_LARGEST_MATRIX = 4096  # rows of a matrix that a run stores
_NUMBERS = {"F64", "F32", "F16", "BF16"}
_DEEPEST = 8  # of nested options
_MAY_BE_ABSENT = {"patch", "input_shape"}
UNREADABLE = (OSError, ValueError, TypeError, KeyError, csv.Error, SafetensorError, RecursionError)


def reason_of(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError):
        return f"{Path(error.filename).name}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def is_regular(path: Path, largest: int = _LARGEST_TEXT) -> bool:
    """Whether there is a file at a path; anything else there, or a file beyond all measure, is a mistake.

    Raises:
        ValueError: a folder, a pipe, a device, a broken link, or too large.
    """
    if not os.path.lexists(path):
        return False
    try:
        found = path.stat()
    except OSError as error:
        raise ValueError(f"{path.name} leads nowhere ({error.strerror})") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is no file")
    if found.st_size > largest:
        raise ValueError(f"{path.name} has {found.st_size:,} bytes, where at most {largest:,} are read")
    return True


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is not JSON, or something else.
        RecursionError: it is nested too deeply.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value is of the kind that an option has: plain, and nested a few times at most."""
    if isinstance(value, list | dict):
        inner = value if isinstance(value, list) else value.values()
        return depth < _DEEPEST and all(is_plain(item, depth + 1) for item in inner)
    return value is None or isinstance(value, bool | str | float) or is_number(value)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that can be reckoned with, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of ``metrics.csv``, empty cells and what is beyond all measure left out.

    Raises:
        ValueError: a cell is no number, or there is no epoch from 0 on.
    """
    rows = []
    with path.open(newline="", encoding="utf-8") as handle:
        for record in csv.DictReader(handle):
            if None in record or None in record.values():
                raise ValueError(f"{path.name} has rows of several lengths")
            row = {name: float(text) for name, text in record.items() if text}
            _check_epoch(row.get("epoch", math.nan), path)
            rows.append({name: value for name, value in row.items() if abs(value) <= LARGEST})
    if not rows:
        raise ValueError(f"{path.name} has no rows")
    return rows


def read_ansatz(path: Path) -> list[AnsatzRow]:
    """The rows of ``ansatz.csv``.

    Raises:
        ValueError, TypeError: they are no rows of measurements while a model trains.
    """
    rows = read_csv(path)
    for row in rows:
        _check_epoch(row.epoch, path)
        if not row.layer or not row.status or min(row.in_features, row.out_features, row.groups) < 0:
            raise ValueError(f"{path.name} has a row of no layer")
        if holds_too_large(row):
            raise ValueError(f"{path.name} has a number beyond {LARGEST:g}")
    return rows


def holds_too_large(row: AnsatzRow) -> bool:
    """Whether a number is beyond all that is reckoned with; an interval may be open to infinity."""
    values = {name: value for name, value in vars(row).items() if isinstance(value, int | float)}
    if values["alpha_high"] == math.inf:
        del values["alpha_high"]
    return any(abs(value) > LARGEST for value in values.values())


def _check_epoch(epoch: float, path: Path) -> None:
    if not 0 <= epoch <= 1e9:
        raise ValueError(f"{path.name} has a row with epoch {epoch}")


def read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Names and shapes in ``features.safetensors``, and what it says of the first layer.

    Raises:
        ValueError: of a shape or type that no run stores.
        SafetensorError: it is no safetensors file.
    """
    if not is_regular(path, _LARGEST_FEATURES):
        return {}, {}
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        wrong = [part.get_dtype() for part in slices.values() if part.get_dtype() not in _NUMBERS]
        facts = dict(file.metadata() or {})
    if wrong:
        raise ValueError(f"{path.name} holds numbers of type {wrong[0]}")
    for name in _MAY_BE_ABSENT & facts.keys():
        if not re.fullmatch(r"\d{1,9}(x\d{1,9}){0,3}", facts[name], re.ASCII):
            raise ValueError(f"{name} is {facts[name][:100]!r} and no shape")
    for name, shape in shapes.items():
        square = len(shape) in (2, 3) and shape[-1] == shape[-2]
        if 0 in shape or not (square or (name == "inputs" and len(shape) == 2)):
            raise ValueError(f"{name} has the shape {shape}")
        if shape[-1] > _LARGEST_MATRIX:
            raise ValueError(
                f"{name} has the shape {shape}, where runs store {_LARGEST_MATRIX} columns at most"
            )
    inputs, whole = shapes.get("inputs"), shapes.get("input_agop")
    if inputs and whole and inputs[1] != whole[0]:
        raise ValueError(f"inputs of length {inputs[1]} and an AGOP of size {whole[0]}")
    return shapes, facts
