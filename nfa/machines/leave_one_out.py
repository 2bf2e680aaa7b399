"""What each training point is predicted from all others, without fitting again.

Kernel ridge regression with weights w and ``B = K + λ W⁻¹`` has the coefficients ``a = B⁻¹ y`` and at the
training points the leverages ``h_i = ∂f(x_i)/∂y_i = 1 - (λ/w_i) (B⁻¹)_ii``. Without a part δ of the weight of
point i, its residual is

    y_i - f(x_i) = (λ/w_i) a_i / (1 - (δ/w_i) h_i),

which for δ = w_i is the well-known ``a_i / (B⁻¹)_ii``. A point of weight w stands for w that are alike, of
which one is left out: δ is 1, or the whole weight where that is less. Where the mean of the targets was taken
off, it is the mean of those that are left. The metric stays as it is: what the point left out has taught it
is not undone, so that these errors are too small by as much.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.kernels import exact_products
from nfa.machines.points import Points
from nfa.machines.predictor import Predictor
from nfa.solvers import room

_MATRICES = 4  # float64 ones of the size of K: itself, B, a factor, the inverse
_ATTEMPTS = 4  # with ten times the least ridge each


@torch.no_grad()
@exact_products()
def leave_one_out(
    predictor: Predictor, Y: Tensor, ridges: Sequence[float], memory: float | None = None
) -> list[Tensor]:
    """Outputs (n, c) at the training points without each of them, float64, one for each ridge.

    Takes 4 n² float64 numbers, and for each ridge the operations of an inverse.

    Args:
        predictor: of a fit to points; of it the kernel, metric, centers, weights count, and whether it has an
            intercept, not the coefficients.
        Y: targets (n, c).
        ridges: added to the diagonal of the kernel matrix as it is. One of the size of rounding is raised to
            that.
        memory: bytes there are; None takes 80 % of what is free.

    Raises:
        NfaError: that is too little, or a kernel matrix that is not positive semi-definite.
    """
    n, device = len(predictor.centers), predictor.centers.device
    need, budget = 8 * _MATRICES * n * n, room(device, memory)
    if need > budget:
        raise NfaError(
            f"leave-one-out predictions of {n} points take about {need / 2**30:.3g} GiB, more than the "
            f"{budget / 2**30:.3g} GiB allowed: give validation data, or fewer points"
        )
    Y = Y.to(device).double()
    w = Y.new_ones(n) if predictor.weights is None else predictor.weights
    kernel = predictor.kernel
    assert isinstance(kernel, Points)  # as of all machines that have this option
    K, T, shift = kernel.gram(predictor.centers.double()), Y, Y.new_zeros(n, 1)
    part = w.clamp_max(1.0)
    if predictor.intercept is not None:
        T = Y - predictor.intercept
        rest = (w.sum() - part)[:, None]
        others = (w[:, None] * T).sum(0) - part[:, None] * T
        shift = -torch.where(rest > 0, others / torch.where(rest > 0, rest, 1.0), 0.0)
    found = []
    for ridge in ridges:
        inverse, ridge = _inverse(K, w, ridge)
        a = inverse @ T + inverse.sum(1, keepdim=True) * shift
        left = ridge / w * inverse.diagonal()  # 1 - h
        residual = (ridge / w)[:, None] * a / (1 - part / w * (1 - left))[:, None]
        found.append(Y - residual)
    return found


def _inverse(K: Tensor, w: Tensor, ridge: float) -> tuple[Tensor, float]:
    """``(K + ridge W⁻¹)⁻¹`` and the ridge, raised to what rounding needs."""
    least = len(K) * torch.finfo(K.dtype).eps * float((K.diagonal() * w).max())
    for attempt in range(_ATTEMPTS):
        ridge = max(ridge, least * 10**attempt)
        B = K.clone()
        B.diagonal().add_(ridge / w)
        factor, info = torch.linalg.cholesky_ex(B)
        if not int(info):
            return torch.cholesky_inverse(factor), ridge
    raise NfaError(
        f"a kernel matrix must be positive semi-definite, but K + {ridge:.2g} I is not: check the kernel, or "
        "raise the ridge"
    )
