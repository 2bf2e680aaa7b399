"""The top eigenvalues of the tangent kernel of a squared loss, and the rate beyond which a step overshoots.

Without a matrix: ARPACK's Lanczos iteration asks for products with ``J Jᵀ`` alone.
"""

from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor, nn

from nfa import NfaError
from nfa.nets.expansion import batch_statistics
from nfa.sweep.returned import pick_tensor
from nfa.sweep.untouched import untouched

SQUARED = ("mse", "half_mse")
_AT_ONCE = 512  # samples differentiated together
_SMALL = 32  # numbers in all outputs of all samples: from these the matrix itself is made
_TOLERANCE = 1e-5  # relative, of an eigenvalue: what float32 leaves


def curvature_scale(loss: str, samples: int, outputs: int) -> float:
    """Factor c of ``c J Jᵀ``, whose eigenvalues are those of the Gauss-Newton matrix of a squared loss."""
    return 2 / (samples * outputs) if loss == "mse" else 1 / samples


def check_squared(loss: str, network: nn.Module, what: str) -> None:
    """Refuse a loss or a network that has no critical rate here.

    Raises:
        NfaError: a loss that is not squared, or normalisation by statistics of the batch.
    """
    if loss not in SQUARED:
        raise NfaError(
            f"{what} is of squared losses, got {loss}: give training.loss=mse (or half_mse), or leave it out"
        )
    name = batch_statistics(network)
    if name is not None:
        raise NfaError(
            f"{what} is of a loss that is a sum over samples: {name} of the network normalises by statistics "
            "of the batch. Take a network without (model.batch_norm=false), or leave it out"
        )


def top_eigenvalues(network: nn.Module, x: Tensor, loss: str, count: int = 1) -> list[float]:
    """The largest eigenvalues of ``c J Jᵀ``, that is of the Gauss-Newton part of the loss's Hessian.

    J (n · outputs, parameters) are the derivatives of all outputs of all samples. Of a linear model, and of
    any where it fits the targets, these are the eigenvalues of the Hessian.

    Args:
        network: left as it was; its parameters that are trained count.
        x: all training samples (n, …), on the device of the network; taken in the dtype of its weights.
        loss: ``mse`` (mean over samples and outputs) or ``half_mse`` (half the sum over outputs, mean over
            samples).
        count: how many.

    Returns:
        The largest first; fewer than ``count`` where there are no more.

    Raises:
        NfaError: outputs of less than 32 bits, whose products are too coarse.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    weights = [p for p in network.parameters() if p.requires_grad]
    with untouched(network), torch.enable_grad():
        for weight in weights:
            weight.requires_grad_()
        product, size, outputs, dtype = _kernel(network, weights, x)
        scale = curvature_scale(loss, len(x), outputs)
        if size <= max(_SMALL, 2 * count):
            matrix = numpy.stack([product(row) for row in numpy.eye(size)])
            found = numpy.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1][:count]
        else:
            operator = LinearOperator((size, size), matvec=product, dtype=dtype)
            start = numpy.random.default_rng(0).standard_normal(size)
            tolerance = _TOLERANCE if dtype == numpy.float32 else _TOLERANCE**2
            found = numpy.sort(
                eigsh(operator, k=count, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
            )[::-1]
    return [scale * max(float(value), 0.0) for value in found]


def critical_rate(
    network: nn.Module, x: Tensor, loss: str, momentum: float = 0.0, weight_decay: float = 0.0
) -> float:
    """``2 (1 + momentum) / (λ₁ + weight_decay)``: beyond it gradient descent on all samples overshoots.

    For a linear model it is exact; a network, or its quadratic model, may come back from beyond: a catapult.

    Raises:
        NfaError: the kernel has no eigenvalue above 0.
    """
    (largest,) = top_eigenvalues(network, x, loss)
    if not largest > 0 or not numpy.isfinite(largest):
        raise NfaError(
            f"training.lr_over_critical needs a tangent kernel with a positive eigenvalue, got {largest}: "
            "does the output depend on the weights?"
        )
    return 2 * (1 + momentum) / (largest + weight_decay)


def _kernel(
    network: nn.Module, weights: Sequence[Tensor], x: Tensor
) -> tuple[Callable[[numpy.ndarray], numpy.ndarray], int, int, type]:
    """The product ``u ↦ J Jᵀ u``, the length of u, the number of outputs, and the dtype of numpy."""
    kept = weights[0].dtype if weights else x.dtype
    parts = (x.to(kept) if x.is_floating_point() else x).split(_AT_ONCE)
    with torch.no_grad():
        probe = pick_tensor(network(parts[0][:1]))
    if torch.finfo(probe.dtype).bits < 32:
        raise NfaError(
            f"top eigenvalues need outputs of float32 or float64, got {str(probe.dtype)[6:]}: "
            "give trainer.precision=32-true or bf16-mixed"
        )
    outputs, dtype = probe[0].numel(), numpy.float64 if probe.dtype == torch.float64 else numpy.float32

    def product(u: numpy.ndarray) -> numpy.ndarray:
        directions = torch.from_numpy(numpy.ascontiguousarray(u)).to(probe.device, probe.dtype)
        rows = directions.reshape(len(x), outputs).split(_AT_ONCE)
        moved = [torch.zeros_like(w) for w in weights]
        pulled: list[tuple[list[Tensor], Tensor]] = []
        for part, row in zip(parts, rows, strict=True):
            given = row.clone().requires_grad_()
            values = pick_tensor(network(part)).reshape(len(part), outputs)
            slopes = torch.autograd.grad(
                values, weights, given, create_graph=True, allow_unused=True, materialize_grads=True
            )
            pulled.append((list(slopes), given))
            for total, slope in zip(moved, slopes, strict=True):
                total += slope.detach()
        # Jᵀu is linear in u: its derivative along `moved` is J times it, at the cost of one more backward
        pushed = [
            torch.autograd.grad(slopes, given, moved, allow_unused=True, materialize_grads=True)[0]
            for slopes, given in pulled
        ]
        return torch.cat(pushed).flatten().cpu().numpy()

    return product, len(x) * outputs, outputs, dtype
