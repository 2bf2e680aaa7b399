"""The Mahalanobis matrix M of ``‖x - z‖²_M = (x - z)ᵀ M (x - z)``, held as a root.

With ``M = F Fᵀ`` the distance is Euclidean between ``Fᵀx`` and ``Fᵀz``. Kernels and solvers see only such
coordinates; what is found there comes back by the chain rule: ``∇_x g(Fᵀx) = F ∇g``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.checks import told
from nfa.errors import NfaError
from nfa.kernels.roots import NOT_ROUNDING, spectrum

_CLEARLY_LOWER = 0.75  # of all directions: a rank up to here is worth the rectangular root
_ROWS = 256  # at a time in a product


@dataclass(frozen=True)
class Metric:
    """M as a root F: None for the identity, (d,) for a diagonal, (d, k) for ``M = F Fᵀ``.

    Make one with `identity`, `diagonal`, `factored` or `from_matrix`.

    Attributes:
        root: F; points are mapped to ``X F``.
        kind: ``identity``, ``diagonal``, ``full`` (F is the symmetric square root) or ``factored``.
    """

    root: Tensor | None = None
    kind: str = "identity"

    @classmethod
    def identity(cls) -> "Metric":
        """``M = I`` in any dimension."""
        return cls()

    @classmethod
    def diagonal(cls, values: Tensor) -> "Metric":
        """``M = diag(values)``, (d,); tiny negative values count as zero."""
        _check_real("a diagonal metric", values, 1)
        _check_sign(values)
        return cls(values.detach().clamp_min(0).sqrt(), "diagonal")

    @classmethod
    def factored(cls, factor: Tensor) -> "Metric":
        """``M = F Fᵀ`` for F (d, k)."""
        _check_real("the factor of a metric", factor, 2)
        return cls(factor.detach(), "factored")

    @classmethod
    def from_matrix(cls, M: Tensor) -> "Metric":
        """The metric of a symmetric positive semi-definite M, (d, d), or of a diagonal (d,).

        M is symmetrised, negative eigenvalues are clipped, and the root is taken in float64 and returned
        in the dtype of M. Eigenvalues within twice the most negative one are rounding; where they make
        up more than a quarter, the metric is factored with the other k directions alone.

        Raises:
            NfaError: M is not square or not finite, or a negative eigenvalue is no rounding error.
        """
        if isinstance(M, Tensor) and M.dim() == 1:
            return cls.diagonal(M)
        _check_real("a Mahalanobis matrix", M, 2)
        d = len(M)
        if M.shape != (d, d):
            raise NfaError(f"a Mahalanobis matrix must be square (d, d) or a diagonal (d,), got {_shape(M)}")
        A = M.detach().double()
        values, vectors = spectrum((A + A.mT).div_(2))
        leading = vectors * values.sqrt()
        if len(values) <= _CLEARLY_LOWER * d:
            return cls(leading.to(M.dtype).contiguous(), "factored")
        return cls((leading @ vectors.mT).to(M.dtype), "full")

    @property
    def in_features(self) -> int | None:
        """d, the dimension of the points; None for the identity, which fits any."""
        return None if self.root is None else len(self.root)

    @property
    def rank(self) -> int | None:
        """k, the dimension of the transformed points; None for the identity."""
        return None if self.root is None else self.root.shape[-1]

    def transform(self, X: Tensor) -> Tensor:
        """Points (n, d) in coordinates (n, k) where the distance is Euclidean, in the dtype of X.

        The identity returns X itself. Products are formed in float64 and in blocks of one size: the rounding
        of a product depends on its shape, and equal points would come out a little apart.
        """
        if self.root is None:
            return X
        self._check_width("points", X.shape[-1], len(self.root))
        F = self.root.to(X)
        if F.dim() == 1:
            return X * F
        F, image = F.double(), X.new_empty(len(X), F.shape[1])
        block = F.new_zeros(_ROWS, len(F))
        for start in range(0, len(X), _ROWS):
            rows = X[start : start + _ROWS].detach()
            block[: len(rows)] = rows
            image[start : start + _ROWS] = (block @ F)[: len(rows)]
        return image

    def then(self, B: Tensor) -> "Metric":
        """The metric of ``F B (F B)ᵀ`` for B (k, r): a metric ``B Bᵀ`` found in transformed coordinates."""
        return Metric.factored(self.times(B))

    def times(self, B: Tensor) -> Tensor:
        """``F B`` for B (k, r)."""
        if self.root is None:
            return B
        self._check_width("a factor", len(B), self.root.shape[-1])
        F = self.root.to(B)
        return F[:, None] * B if F.dim() == 1 else F @ B

    def pull_back_gradients(self, gradients: Tensor) -> Tensor:
        """Gradients in transformed coordinates, (n, k), as gradients in the original ones, (n, d)."""
        if self.root is None:
            return gradients
        F = self.root.to(gradients)
        self._check_width("gradients", gradients.shape[-1], F.shape[-1])
        return gradients * F if F.dim() == 1 else gradients @ F.mT

    def dense(self, in_features: int | None = None) -> Tensor:
        """M, (d, d); the identity needs d."""
        if self.root is None:
            if in_features is None:
                raise NfaError("the identity metric fits any dimension: call dense(in_features)")
            return torch.eye(in_features)
        return self.root.square().diag() if self.root.dim() == 1 else self.root @ self.root.mT

    def scaled(self, factor: float) -> "Metric":
        """The metric of ``factor · M``, for a factor that is not negative; the identity needs a matrix."""
        if not 0 <= factor < float("inf"):
            raise NfaError(f"a metric can be scaled by a finite factor >= 0, got {factor}")
        if self.root is None:
            raise NfaError("the identity metric has no scale: use Metric.diagonal(factor * torch.ones(d))")
        return Metric(self.root * factor**0.5, self.kind)

    @staticmethod
    def _check_width(what: str, got: int, expected: int) -> None:
        if got != expected:
            raise NfaError(f"the metric expects {what} of width {expected}, got {got}")


def _check_real(what: str, A: Tensor, dims: int) -> None:
    if not isinstance(A, Tensor) or A.dim() != dims or A.numel() == 0 or not A.is_floating_point():
        raise NfaError(f"{what} must be a non-empty real tensor with {dims} dimensions, got {told(A)}")
    if not bool(A.isfinite().all()):
        raise NfaError(f"{what} has entries that are not finite: check the gradients it was made of")


def _check_sign(values: Tensor) -> None:
    low, high = float(values.min()), float(values.max())
    if low < -NOT_ROUNDING * max(high, 0.0):
        raise NfaError(
            f"a Mahalanobis matrix must be positive semi-definite up to rounding, got eigenvalues from "
            f"{low:.3g} to {high:.3g}"
        )


def _shape(A: Tensor) -> str:
    return f"of shape {tuple(A.shape)}"
