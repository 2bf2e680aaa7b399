"""Roots of the next M from an AGOP: powers, scales, and how much M has changed."""

import math

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels import Metric
from nfa.kernels.roots import power_root, root_spectrum, spectrum

NORMALIZATIONS = ("max", "trace", "none")
NO_GRADIENT = (
    "the AGOP is zero, and so would be M: the predictor is flat at the training points, as a kernel is whose "
    "bandwidth is far below all distances, or that is fitted to targets without any variation"
)
_EXACT_COSINE = 1024  # coordinates up to which the self-consistency is exact
_PROBES = 128  # random directions it is estimated from beyond


def factored_root(root: Tensor, power: float, normalization: str) -> Tensor:
    """B (d, r) with ``B Bᵀ ∝ (F Fᵀ)^power`` for F (d, k), divided by its largest entry or its trace.

    The largest entry is on the diagonal, M being semi-definite.

    Raises:
        NfaError: F is zero, or not finite.
    """
    root = power_root(root, power)
    return _checked(root / _scale(root.double().square().sum(1), normalization) ** 0.5)


def diagonal_root(root: Tensor, power: float, normalization: str) -> Tensor:
    """The same of ``diag(F Fᵀ)`` alone, (d,)."""
    values = root.double().square().sum(1) ** power
    return _checked((values / _scale(values, normalization)).sqrt().to(root))


def symmetric_root(G: Tensor, power: float) -> tuple[Tensor, int]:
    """``T = G^(power/2)`` (D, D) of Frobenius norm 1, so that ``TᵀT`` has the trace 1; and its rank.

    Raises:
        NfaError: G is zero, or not finite.
    """
    if not bool(torch.isfinite(G).all()):
        raise NfaError("the AGOP is not finite")
    values, vectors = spectrum(G)
    T = (vectors * values ** (power / 2)) @ vectors.mT
    norm = float(T.norm())
    if not norm > 0:
        raise NfaError(NO_GRADIENT)
    return T / norm, int((values > 0).sum())


def symmetric(metric: Metric) -> Metric:
    """The same M by its symmetric root ``V S^½ Vᵀ``, (d, d)."""
    if metric.root is None:
        return metric
    values, vectors = root_spectrum(metric.root)
    return Metric(((vectors * values.sqrt()) @ vectors.mT).to(metric.root), "full")


def cosine_of_metrics(F: Tensor | None, B: Tensor) -> float:
    """Cosine of ``F Fᵀ``, or of the identity for None, with ``B Bᵀ``, for roots (d, ·).

    Beyond 1024 coordinates it is estimated from 128 random directions, the same for both matrices.
    """
    d = len(B)
    if max(d, B.shape[1]) <= _EXACT_COSINE:
        left = torch.eye(d, dtype=B.dtype, device=B.device) if F is None else F @ F.mT
        right = B @ B.mT
    else:
        probes = torch.randn(d, _PROBES, generator=torch.Generator().manual_seed(0), dtype=B.dtype)
        probes = probes.to(B.device)
        left = probes if F is None else F @ (F.mT @ probes)
        right = B @ (B.mT @ probes)
    norm = float(left.norm() * right.norm())
    return float((left * right).sum()) / norm if norm > 0 else math.nan


def _scale(diagonal: Tensor, normalization: str) -> float:
    if normalization == "none":
        return 1.0
    scale = float(diagonal.max() if normalization == "max" else diagonal.sum())
    return scale if scale > 0 else 1.0


def _checked(root: Tensor) -> Tensor:
    if not bool(torch.isfinite(root).all()):
        raise NfaError("the AGOP is not finite")
    if not bool(root.any()):
        raise NfaError(NO_GRADIENT)
    return root
