"""Checks of data; each failure is an NfaError that says what to do."""

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
