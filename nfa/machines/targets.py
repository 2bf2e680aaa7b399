"""Targets of kernel machines: class indices as one-hot columns, numbers as they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.checks import flag, floats, settle, told, whole
from nfa.errors import NfaError

_SPARE = 100  # classes for each target that are surely a mistake


@dataclass(frozen=True)
class TargetCode:
    """How the targets of a fit were given, and so how predictions are returned.

    Attributes:
        classes: number of classes; 0 for regression.
        flat: whether regression targets were (n,).
        outputs: columns of the targets; 0 where that is not known.
    """

    classes: int = 0
    flat: bool = False
    outputs: int = 0

    def __post_init__(self):
        settle(
            self,
            classes=whole("classes", self.classes),
            flat=flag("flat", self.flat),
            outputs=whole("outputs", self.outputs),
        )

    @property
    def columns_of(self) -> int | None:
        """Columns of the targets; None where that is not known."""
        return self.outputs or self.classes or None

    @classmethod
    def of(cls, y: Tensor) -> "TargetCode":
        """Integer targets (n,) are classes, floating ones (n,) or (n, outputs) numbers.

        Raises:
            NfaError: neither, or one class only.
        """
        dense = isinstance(y, Tensor) and y.layout == torch.strided and not y.is_meta
        if not dense or y.dim() not in (1, 2) or not y.numel():
            hint = ": torch.tensor(…) or torch.from_numpy(…) makes one" if not isinstance(y, Tensor) else ""
            raise NfaError(f"expected targets as a dense tensor (n,) or (n, outputs), got {told(y)}{hint}")
        if y.is_floating_point():
            return cls(0, y.dim() == 1, y[0].numel())
        if y.is_complex() or y.dim() != 1 or int(y.min()) < 0:
            hint = "real targets are floating, y.float()" if not y.is_complex() else "take parts apart"
            raise NfaError(f"expected class indices (n,) of 0 or more, got {told(y)}: {hint}")
        if len(y.unique()) < 2:
            raise NfaError("the targets are of one class only: there is nothing to tell apart")
        classes = int(y.max()) + 1
        if classes > _SPARE * (len(y) + 1):
            raise NfaError(
                f"expected class indices of 0, 1, 2, …, got {len(y)} targets up to {classes - 1}: renumber"
            )
        return cls(classes, outputs=classes)

    def columns(self, y: Tensor, like: Tensor) -> Tensor:
        """Targets (n, outputs) of the dtype and device of ``like``.

        Raises:
            NfaError: targets of another kind than those of the fit, or not finite.
        """
        if not isinstance(y, Tensor) or y.is_meta or not y.dim() or len(y) != len(like):
            got = len(y) if isinstance(y, Tensor) and y.dim() else told(y)
            raise NfaError(f"points and targets must have one row a sample each, got {len(like)} and {got}")
        y = y.detach().to(like.device)
        if not self.classes:
            if not y.is_floating_point():
                raise NfaError(f"expected real targets, as in the fit, got {told(y)}: convert with .float()")
            if not bool(torch.isfinite(y).all()):
                raise NfaError("the targets have values that are not finite (NaN or infinity)")
            if y.dim() not in (1, 2) or (self.outputs and y[0].numel() != self.outputs):
                expected = f"(n, {self.outputs}), as in the fit" if self.outputs else "(n,) or (n, outputs)"
                raise NfaError(f"expected targets {expected}, got {tuple(y.shape)}")
            return y.reshape(len(y), -1).to(like.dtype)
        if (
            y.is_floating_point()
            or y.is_complex()
            or y.dim() != 1
            or int(y.max()) >= self.classes
            or int(y.min()) < 0
        ):
            raise NfaError(f"expected class indices (n,) from 0 to {self.classes - 1}, as in the fit")
        return torch.nn.functional.one_hot(y.long(), self.classes).to(like.dtype)

    def decoded(self, scores: Tensor) -> Tensor:
        """Predictions in the shape of the targets: class indices (n,) int64, or numbers."""
        if self.classes:
            return scores.argmax(1)
        return scores[:, 0] if self.flat else scores

    def quality(self, scores: Tensor, Y: Tensor, stage: str) -> dict[str, float]:
        """``<stage>_mse`` and, for classes, ``<stage>_accuracy`` of outputs (n, c) against columns (n, c)."""
        found = {f"{stage}_mse": float((scores - Y.to(scores)).double().square().mean())}
        if self.classes:
            found[f"{stage}_accuracy"] = float((scores.argmax(1) == Y.argmax(1)).double().mean())
        return found


def check_points(X: Tensor, width: int | None = None) -> Tensor:
    """Points (n, d), detached, known to be finite.

    Raises:
        NfaError: something else.
    """
    X = floats("points", X, "(n, d)")
    if X.dim() != 2 or not X.numel():
        hint = ": one sample is x[None]" if X.dim() == 1 and len(X) else ""
        hint = ": flatten images with X.flatten(1)" if X.dim() > 2 else hint
        raise NfaError(f"expected points (n, d), at least one of them, got shape {tuple(X.shape)}{hint}")
    if width is not None and X.shape[1] != width:
        raise NfaError(f"expected points with {width} features, as in the fit, got {X.shape[1]}")
    if not bool(torch.isfinite(X.sum())) and not bool(torch.isfinite(X).all()):
        raise NfaError("the points have values that are not finite (NaN or infinity): remove those points")
    return X
