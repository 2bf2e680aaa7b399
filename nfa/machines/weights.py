"""Training points that count more or less than others.

A point of weight w is w points that are alike. The fit is the least ``Σ_i w_i ‖f(x_i) - y_i‖² + ridge ‖f‖²``,
which for ``f = Σ_j a_j k(·, x_j)`` is ``(K + ridge W⁻¹) a = y`` with ``W = diag(w)``; the intercept is the
weighted mean of the targets, and the AGOP is ``Σ_i w_i ∇f(x_i) ∇f(x_i)ᵀ / Σ_i w_i``. So a weight of 2 is a
point given twice, up to rounding, and one of 0 a point left out, exactly: it is removed. Points are still
drawn one by one where an AGOP is taken over some of them, a median distance is that of points whatever their
weights, and the halves in which a round is looked at (`nfa.machines.rise`) are halves of the points.
"""

from typing import Any

import torch
from torch import Tensor

from nfa.checks import told
from nfa.errors import NfaError
from nfa.machines.kernel import Kernel


def weighted(X: Tensor, y: Any, weights: Any, kernel: Kernel) -> tuple[Tensor, Any, Tensor]:
    """Points (m, …), targets and weights (m,) float64 of the n points whose weight is not zero.

    Args:
        X: points (n, …).
        y: their targets: a tensor, or a list, an array or a series of texts.
        weights: (n,), a tensor of numbers.
        kernel: of the machine.

    Raises:
        NfaError: a kernel of images, or weights that are not one number of 0 or more a point, some above 0.
    """
    if not kernel.weighs:
        raise NfaError(
            f"sample_weight goes with machines on points, this one takes {kernel.noun}: leave it out"
        )
    if not isinstance(weights, Tensor) or weights.shape != X.shape[:1] or weights.is_complex():
        raise NfaError(f"expected sample_weight as a tensor of numbers ({len(X)},), got {told(weights)}")
    weights = weights.detach().to(X.device, torch.float64)
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise NfaError("sample_weight must be finite numbers of 0 or more")
    if not bool(weights.any()):
        raise NfaError("sample_weight is zero for all points: give some of them a weight above 0")
    kept = weights > 0
    if bool(kept.all()):
        return X, y, weights
    if isinstance(y, Tensor):
        y = y[kept.to(y.device)] if y.dim() and len(y) == len(X) else y
    elif hasattr(y, "__len__") and len(y) == len(X):
        y = y.tolist() if callable(getattr(y, "tolist", None)) else y
        y = [label for label, keep in zip(y, kept.tolist(), strict=True) if keep]
    return X[kept], y, weights[kept]
