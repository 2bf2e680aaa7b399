"""The target column of a table: classes or numbers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.columns import is_numeral
from datamodules.tables import as_text, is_number
from nfa.errors import NfaError

_MOST_CLASSES = 20  # different whole numbers up to which they are taken as classes


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    Attributes:
        y: int64 classes (n,), or float64 numbers (n, 1) as in the table.
        class_names: in the order of the classes; empty for numbers.
    """

    y: Tensor
    class_names: tuple[str, ...] = ()


def read_target(values: np.ndarray, task: str, name: str, class_names: tuple[str, ...] = ()) -> Target:
    """Make classes or numbers of a column without missing values.

    Args:
        values: the column, see `Table`.
        task: ``classification``, ``regression``; or ``auto``: text and up to 20 different whole numbers are
            classes.
        name: of the column, for messages.
        class_names: the order of the classes, if it is known.

    Raises:
        NfaError: the values do not go with the task, or are all the same.
    """
    if is_number(values) and not np.isfinite(values).all():
        raise NfaError(f"the target {name!r} has infinite values: remove or repair them")
    if task == "auto":
        task = "classification" if class_names or _are_classes(values) else "regression"
    if (values == values[0]).all():
        raise NfaError(
            f"all {len(values)} targets {name!r} are {as_text(values[0])}: there is nothing to learn"
        )
    return _classes(values, name, class_names) if task == "classification" else _regression(values, name)


def _are_classes(values: np.ndarray) -> bool:
    if not is_number(values):
        return True
    return len(np.unique(values)) <= _MOST_CLASSES and bool((values % 1 == 0).all())


def _classes(values: np.ndarray, name: str, class_names: tuple[str, ...]) -> Target:
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
    return Target(torch.from_numpy(y.astype(np.int64)), class_names or tuple(as_text(v) for v in found))


def _regression(values: np.ndarray, name: str) -> Target:
    if not is_number(values):
        bad = [value for value in values if not is_numeral(value)] or list(values)
        raise NfaError(
            f"expected numbers as targets {name!r} for data.task=regression, {len(bad)} of {len(values)} are "
            f"text, the first is {bad[0]!r}: repair them, or pass data.task=classification"
        )
    return Target(torch.from_numpy(values).unsqueeze(1))
