"""Targets of kernel machines: labels as one-hot columns, numbers as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nfa.checks import flag, settle, told, whole
from nfa.errors import NfaError

if TYPE_CHECKING:
    from nfa.machines.layer import Layer

_FEW = 100  # classes that need no further look
Label = bool | int | str


@dataclass(frozen=True)
class TargetCode:
    """How the targets of a fit were given, and so how predictions are returned.

    Integers, bools and texts are labels of classes, whatever their values; floating targets are numbers.

    Attributes:
        classes: number of classes; 0 for regression.
        flat: whether regression targets were (n,).
        outputs: columns of the targets; 0 where that is not known.
        labels: of the classes, ascending, one an output; None for 0, 1, 2, …
    """

    classes: int = 0
    flat: bool = False
    outputs: int = 0
    labels: tuple[Label, ...] | None = None

    def __post_init__(self):
        settle(
            self,
            classes=whole("classes", self.classes),
            flat=flag("flat", self.flat),
            outputs=whole("outputs", self.outputs),
            labels=None if self.labels is None else _checked(self.labels, self.classes),
        )

    @property
    def columns_of(self) -> int | None:
        """Columns of the targets; None where that is not known."""
        return self.outputs or self.classes or None

    @property
    def names(self) -> tuple[Label, ...]:
        """The label of each output; empty for numbers."""
        return tuple(range(self.classes)) if self.labels is None else self.labels

    @classmethod
    def of(cls, y: Any, y_val: Any = None) -> "TargetCode":
        """Labels (n,) or (n, 1), or floating targets (n,) or (n, outputs).

        An integer that only the validation targets have, between two of the others, is a class as well: small
        samples miss some.

        Raises:
            NfaError: neither, or one class only.
        """
        texts = _texts(y)
        if texts is None:
            _check_tensor(y)
            if y.is_floating_point():
                return cls(0, y.dim() == 1, y[0].numel())
        labels = sorted(set(texts)) if texts is not None else _flat(y).unique().tolist()
        if len(labels) < 2:
            raise NfaError("the targets are of one class only: there is nothing to tell apart")
        if len(labels) > max(_FEW, len(y) // 2):
            raise NfaError(
                f"expected labels of classes, got {len(labels)} different ones for {len(y)} samples: numbers "
                "are floating, y.float()"
            )
        if texts is None and y.dtype == torch.bool:
            labels = [False, True]
        if texts is None and isinstance(y_val, Tensor) and not y_val.is_meta and _may_be_labels(y_val):
            between = (label for label in _flat(y_val).unique().tolist() if labels[0] < label < labels[-1])
            labels = sorted({*labels, *between})
        plain = texts is None and y.dtype != torch.bool and labels == list(range(len(labels)))
        return cls(len(labels), outputs=len(labels), labels=None if plain else tuple(labels))

    def columns(self, y: Any, like: Tensor) -> Tensor:
        """Targets (n, outputs) on the device of ``like``, and of its dtype or, for numbers, the wider one.

        Raises:
            NfaError: targets of another kind than those of the fit, or not finite.
        """
        texts = _texts(y)
        if texts is None and (not isinstance(y, Tensor) or y.is_meta or not y.dim()):
            raise NfaError(f"points and targets must have one row a sample each, got targets of {told(y)}")
        if len(y) != len(like):
            raise NfaError(
                f"points and targets must have one row a sample each, got {len(like)} and {len(y)}"
            )
        if self.classes:
            return torch.nn.functional.one_hot(self._indices(y, texts).to(like.device), self.classes).to(like)
        if texts is not None or not y.is_floating_point():
            hint = ": convert with .float()" if texts is None else ""
            raise NfaError(f"expected real targets, as in the fit, got {told(y)}{hint}")
        y = y.detach().to(like.device)
        if not bool(torch.isfinite(y).all()):
            raise NfaError("the targets have values that are not finite (NaN or infinity)")
        if y.dim() not in (1, 2) or (self.outputs and y[0].numel() != self.outputs):
            expected = f"(n, {self.outputs}), as in the fit" if self.outputs else "(n,) or (n, outputs)"
            raise NfaError(f"expected targets {expected}, got {tuple(y.shape)}")
        return y.reshape(len(y), -1).to(torch.promote_types(y.dtype, like.dtype))

    def suited(self, layer: "Layer") -> "Layer":
        """A layer for these targets: one-hot columns of classes keep their mean, as published."""
        return replace(layer, offset="none") if self.classes else layer

    def decoded(self, scores: Tensor) -> Tensor | list[str]:
        """Predictions as the targets were given: labels (n,), texts as a list, or numbers."""
        if not self.classes:
            return scores[:, 0] if self.flat else scores
        best = scores.argmax(1)
        if self.labels is None:
            return best
        if isinstance(self.labels[0], str):
            return [self.labels[index] for index in best.tolist()]
        return torch.tensor(self.labels, device=best.device)[best]

    def quality(self, scores: Tensor, Y: Tensor, stage: str) -> dict[str, float]:
        """``<stage>_mse`` and, for classes, ``<stage>_accuracy`` of outputs (n, c) against columns (n, c)."""
        found = {f"{stage}_mse": float((scores - Y.to(scores)).double().square().mean())}
        if self.classes:
            found[f"{stage}_accuracy"] = float((scores.argmax(1) == Y.argmax(1)).double().mean())
        return found

    def _indices(self, y: Any, texts: list[str] | None) -> Tensor:
        """Which output each label belongs to, (n,) int64.

        Raises:
            NfaError: labels of another kind, or others than those of the fit.
        """
        names, known = self.names, ", ".join(repr(name) for name in self.names[:5])
        expected = f"class indices (n,) from 0 to {self.classes - 1}" if self.labels is None else (
            f"labels among {known}{', …' if self.classes > 5 else ''}"
        )  # fmt: skip
        of_text = isinstance(names[0], str)
        if of_text != (texts is not None) or (texts is None and not _may_be_labels(y)):
            raise NfaError(f"expected {expected}, as in the fit, got {told(y)}")
        if texts is not None:
            positions = {name: index for index, name in enumerate(names)}
            found = torch.tensor([positions.get(text, -1) for text in texts])
            strange: str | int | None = next((text for text in texts if text not in positions), None)
        else:
            values, sorted_names = _flat(y), torch.tensor(names, dtype=torch.int64, device=y.device)
            found = torch.searchsorted(sorted_names, values).clamp_max(self.classes - 1)
            others = values[sorted_names[found] != values]
            strange = int(others[0]) if len(others) else None
        if strange is not None:
            raise NfaError(f"expected {expected}, as in the fit, got {strange!r}")
        return found


def _texts(y: Any) -> list[str] | None:
    """Labels that are texts, in a list, an array or a series (n,) or (n, 1); None for anything else."""
    if isinstance(y, Tensor | str | bytes):
        return None
    y = y.to_numpy() if callable(getattr(y, "to_numpy", None)) else y  # a column of a table
    rows = y.tolist() if callable(getattr(y, "tolist", None)) else y
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        return None
    rows = [row[0] if isinstance(row, list | tuple) and len(row) == 1 else row for row in rows]
    if not any(isinstance(row, str) for row in rows):
        return None
    strange = [told(row) for row in rows if not isinstance(row, str)]
    if strange:
        raise NfaError(f"expected labels that are all texts, got {strange[0]} among them")
    return [str(row) for row in rows]


def _check_tensor(y: Any) -> None:
    dense = isinstance(y, Tensor) and y.layout == torch.strided and not y.is_meta
    if not dense or y.dim() not in (1, 2) or not y.numel():
        hint = ": torch.tensor(…) or torch.from_numpy(…) makes one" if not isinstance(y, Tensor) else ""
        raise NfaError(f"expected targets as a dense tensor (n,) or (n, outputs), got {told(y)}{hint}")
    if not (y.is_floating_point() or _may_be_labels(y)):
        hint = "take parts apart" if y.is_complex() else "real targets are floating, y.float()"
        raise NfaError(f"expected labels (n,) or (n, 1), or real targets, got {told(y)}: {hint}")


def _may_be_labels(y: Tensor) -> bool:
    if y.is_floating_point() or y.is_complex() or y.is_quantized or y.layout != torch.strided:
        return False
    return y.dim() == 1 or (y.dim() == 2 and y.shape[1] == 1)


def _flat(y: Tensor) -> Tensor:
    return y.detach().reshape(-1).long()


def _checked(labels: Any, classes: int) -> tuple[Label, ...]:
    """Labels of a file.

    Raises:
        NfaError: not one for each class, all of one kind, ascending.
    """
    if isinstance(labels, list | tuple) and len(labels) == classes:
        kinds = {type(label) for label in labels}
        alike = len(kinds) == 1 and kinds <= {bool, int, str} and list(labels) == sorted(set(labels))
        if alike and (kinds == {str} or -(2**63) <= min(labels) <= max(labels) < 2**63):
            return tuple(labels)
    raise NfaError(f"labels must be {classes} bools, integers or texts, ascending, got {told(labels)}")
