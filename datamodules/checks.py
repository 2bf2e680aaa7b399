"""Checks of options and data; each failure is an NfaError that says what to do."""

from torch import Tensor

from datamodules.splits import Split
from nfa.errors import NfaError


def check_count(name: str, value: int) -> None:
    """Refuse what is not a whole number of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise NfaError(f"expected {name} to be a whole number of at least 1, got {value!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`."""
    if value not in choices:
        raise NfaError(f"unknown {name}={value!r}: expected one of {', '.join(choices)}")


def check_samples(name: str, split: Split) -> None:
    """Refuse an empty split, and one with NaN or infinity in it."""
    if len(split) == 0:
        raise NfaError(f"the {name} data are empty: expected at least one sample")
    for what, values in (("inputs", split.x), ("targets", split.y)):
        if values.is_floating_point() and not values.isfinite().all():
            bad = values.isfinite().flatten(1).all(1).logical_not().nonzero()
            raise NfaError(
                f"{len(bad)} of {len(split)} {name} samples have NaN or infinite {what}, "
                f"the first is sample {int(bad[0])}: remove or repair them"
            )


def check_labels(y: Tensor, num_classes: int) -> None:
    """Refuse class indices y int64 (n,) outside 0, …, num_classes - 1."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise NfaError(
            f"expected class indices from 0 to {num_classes - 1}, got {low} to {high}: renumber them"
        )


def check_trainable(train: Split) -> None:
    """Refuse a training split that teaches nothing: empty, or of one class only."""
    if len(train) == 0:
        raise NfaError(
            "no training sample is left beside validation: raise data.n_train or lower data.val_fraction"
        )
    if not train.y.is_floating_point() and (train.y == train.y[0]).all():
        raise NfaError(
            f"expected training samples of two classes or more, got {len(train)} of class {int(train.y[0])} "
            "only: check the labels, or raise data.n_train"
        )
