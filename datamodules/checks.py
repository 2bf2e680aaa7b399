"""Checks of data; each failure is an NfaError that says what to do."""

from typing import Any

from torch import Tensor

from datamodules.splits import Split
from nfa.errors import NfaError


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


def check_loaded(loaded: Any) -> tuple[Split, Split]:
    """Refuse what is no pair of splits: training and test."""
    pair = isinstance(loaded, tuple | list) and len(loaded) == 2
    if not pair or not all(isinstance(split, Split) for split in loaded):
        raise NfaError(
            "load() of a datamodule must return two Splits, for training and test, got "
            f"{type(loaded).__name__}: return Split(x, y), Split(x, y)"
        )
    return loaded[0], loaded[1]


def check_alike(train: Split, test: Split) -> None:
    """Refuse a test split of other inputs or targets than those of training."""
    for what, mine, theirs in (("inputs", train.x, test.x), ("targets", train.y, test.y)):
        kinds = mine.is_floating_point() != theirs.is_floating_point()
        if kinds or mine.shape[1:] != theirs.shape[1:]:
            raise NfaError(
                f"expected {what} of one kind for training and test, got {mine.dtype} {tuple(mine.shape)} "
                f"and {theirs.dtype} {tuple(theirs.shape)}: make them equal"
            )


def check_labels(y: Tensor, num_classes: int) -> None:
    """Refuse class indices y int64 (n,) outside 0, …, num_classes - 1."""
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise NfaError(
            f"expected class indices from 0 to {num_classes - 1}, got {low} to {high}: renumber them"
        )


def check_trainable(y: Tensor) -> None:
    """Refuse training targets y that teach nothing: none, or those of one class only."""
    if len(y) == 0:
        raise NfaError(
            "no training sample is left beside validation: raise data.n_train or lower data.val_fraction"
        )
    if not y.is_floating_point() and (y == y[0]).all():
        raise NfaError(
            f"expected training samples of two classes or more, got {len(y)} of class {int(y[0])} "
            "only: check the labels, or raise data.n_train"
        )


def check_scorable(*splits: tuple[str, Split]) -> None:
    """Refuse a regression split of one sample: r2 compares with the variance of the targets."""
    for name, split in splits:
        if split.y.is_floating_point() and len(split) == 1:
            raise NfaError(
                f"the {name} split of a regression has one sample, r2 needs two: raise its size"
                + (", or pass data.val_fraction=0 for none" if name == "validation" else "")
            )
