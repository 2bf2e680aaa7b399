"""The target column of a table: classes or numbers."""

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.columns import MOST_CLASSES, stray_texts
from nfa.errors import NfaError
from nfa.inputs.tables import PLAIN, Table, as_text, is_like_na, is_number, is_numeral


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    Attributes:
        y: int64 classes (n,), or float64 numbers (n, 1) as in the table.
        class_names: in the order of the classes; empty for numbers.
        note: which classes may have been meant as gaps.
    """

    y: Tensor
    class_names: tuple[str, ...] = ()
    note: str = ""


def read_target(table: Table, name: str, task: str, class_names: tuple[str, ...] = ()) -> Target:
    """Make classes or numbers of a column without missing values.

    Args:
        table: of the rows that have a target.
        name: of the column.
        task: ``classification``, ``regression``; or ``auto``: text and up to 20 different whole numbers are
            classes.
        class_names: the order of the classes, if it is known.

    Raises:
        NfaError: the values do not go with the task, or are all the same.
    """
    values = table.columns[name]
    if is_number(values) and not np.isfinite(values).all():
        raise NfaError(f"the target {name!r} has infinite values: remove or repair them")
    if task != "classification" and not class_names:
        _check_text(table, name, task)
    if task == "auto":
        task = "classification" if class_names or _are_classes(values) else "regression"
    if (values == values[0]).all():
        raise NfaError(
            f"all {len(values)} targets {name!r} are {as_text(values[0])}: there is nothing to learn"
        )
    if task == "classification":
        return _classes(values, name, class_names, _note(values, table))
    return _regression(values, name)


def _check_text(table: Table, name: str, task: str) -> None:
    """Refuse texts that were meant to be numbers."""
    values = table.columns[name]
    doubt = table.about.get(name, PLAIN).doubt
    if doubt:
        raise NfaError(f"{doubt}, or pass data.task=classification")
    if task == "regression" or is_number(values):
        return
    stray = stray_texts(values, table.how)
    if len(stray) and len(set(values)) - len(set(values[stray])) > MOST_CLASSES:
        raise NfaError(
            f"the target {name!r} of {table.source} holds numbers but for {len(stray)} of {len(values)} "
            f"values, the first is {values[stray[0]]!r}: repair them, name them in data.missing if they are "
            "gaps, or pass data.task=classification"
        )


def _note(values: np.ndarray, table: Table) -> str:
    if is_number(values) or table.how is None or table.how.gaps is not None:
        return ""
    like = {name: n for name, n in Counter(values).items() if is_like_na(name)}
    if not like:
        return ""
    told = ", ".join(f"{name} in {n} rows" for name, n in like.items())
    plain = all(text.isalpha() and text.lower() not in ("nan", "null") for text in like)
    listed = f"[{','.join(like)}]" if plain else f"'{json.dumps(list(like))}'"
    return f"{told} is a class: pass data.missing={listed} if it is a gap"


def _are_classes(values: np.ndarray) -> bool:
    if not is_number(values):
        return True
    return len(np.unique(values)) <= MOST_CLASSES and bool((values % 1 == 0).all())


def _classes(values: np.ndarray, name: str, class_names: tuple[str, ...], note: str) -> Target:
    found, y, counts = np.unique(values, return_inverse=True, return_counts=True)
    alone = int((counts == 1).sum())
    if 2 * alone > len(values):
        raise NfaError(
            f"{alone} of {len(values)} targets {name!r} are the only one of their class: expected classes of "
            "several rows, pass another data.target, or data.task=regression for numbers"
        )
    if class_names:
        position = {level: i for i, level in enumerate(class_names)}
        y = np.array([position[level] for level in found])[y]
    names = class_names or tuple(as_text(value) for value in found)
    return Target(torch.from_numpy(y.astype(np.int64)), names, note)


def _regression(values: np.ndarray, name: str) -> Target:
    if not is_number(values):
        bad = [value for value in values if not is_numeral(value)] or list(values)
        raise NfaError(
            f"expected numbers as targets {name!r} for data.task=regression, {len(bad)} of {len(values)} are "
            f"text, the first is {bad[0]!r}: repair them, or pass data.task=classification"
        )
    return Target(torch.from_numpy(values).unsqueeze(1))
