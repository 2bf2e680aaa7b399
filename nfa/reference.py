"""Slow, obvious versions of the library's fast paths: loops, one sample at a time, dense matrices.

Nothing here is meant for use on a real network. The tests compare every fast path with it in float64, and
it is the place to look up what a number means. A linear map acts on vectors ``p`` (inputs of a linear
layer, patches of a convolution), ``z = W p + b``, and ``f_k`` are the scalar outputs of the whole network
for one sample. Two gradients are read off by autograd, each on its own:

    r_k = ∂f_k / ∂p  (in,)        G = 1/n Σ_samples Σ_k Σ_rows r_k r_kᵀ        (`layer_agop`)
    δ_k = ∂f_k / ∂z  (out,)       C = 1/n Σ_samples Σ_k Σ_rows δ_k δ_kᵀ        (`layer_sensitivity`)

A *row* is one application of W: one position of a convolution, one token of a linear layer, in one call of
a module that may be called several times. Each row is an independent variable: overlapping patches are not
tied, and two calls are not added before the outer product is taken. That ``G = Wᵀ C W`` is a theorem here,
used by no function that returns G or C from a network.

Matrices of a layer come as stacks ``(groups, ·, ·)``; groups is 1 unless the layer is a grouped convolution,
and the blocks between different groups are not part of any matrix. Inner products and norms of stacks add
over groups. Everything returned is float64.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "alignment",
    "alpha_fit",
    "centered_layer_agop",
    "cosine",
    "haar_null",
    "layer_agop",
    "layer_nfm",
    "layer_sensitivity",
    "matrix_power",
    "offdiag_pearson",
    "pearson",
]

Inputs = Tensor | tuple[Tensor, ...]
OutputFn = Callable[[Any], Tensor]
Forward = Callable[[Tensor], Tensor]

# Singular values below this fraction of the group's largest count as zero.
RANK_TOLERANCE = 1e-7
# What is left below this fraction of the norm once a mean or a trace is subtracted is rounding.
ZERO_TOLERANCE = 1e-12


# Matrices of one layer, from a network


def layer_nfm(module: nn.Module) -> Tensor:
    """Neural feature matrix ``N = WᵀW = Σ_o w_o w_oᵀ`` of each group, as a sum over the rows of W.

    Args:
        module: ``nn.Linear`` or ``nn.Conv1d`` / ``2d`` / ``3d``, parametrised or not.

    Returns:
        ``(groups, in, in)`` float64; ``in`` counts ``(channels of the group, *kernel)`` for a convolution.
    """
    _require_linear_map(module)
    with _eval_mode(module):  # reading a spectral-norm weight in training mode would change it
        W = _weight(module).detach().double()
    groups, _, features = W.shape
    N = W.new_zeros(groups, features, features)
    for g in range(groups):
        for w in W[g]:
            N[g] += torch.outer(w, w)
    return N


def layer_agop(model: nn.Module, inputs: Inputs, name: str, *, output_fn: OutputFn | None = None) -> Tensor:
    """Average gradient outer product ``G = 1/n Σ_samples Σ_k Σ_rows r rᵀ`` with ``r = ∂f_k / ∂p``.

    The module's forward is replaced by one that copies the patches in plain loops, adds a zero leaf to them
    (one leaf a call, so the gradient of an earlier call runs through the later ones), and multiplies by the
    weight. What it computes is checked against the original forward on every call.

    Args:
        model: network; run one sample at a time in eval mode, restored afterwards.
        inputs: tensor ``(n, ...)``, or a tuple of them passed as ``model(*inputs)``.
        name: dotted name of an ``nn.Linear`` or ``nn.Conv1d`` / ``2d`` / ``3d`` in ``model``.
        output_fn: takes what the model returns for one sample to a tensor ``(1, ...)``, all of whose entries
            are outputs ``f_k``; the identity if None.

    Returns:
        ``(groups, in, in)`` float64.

    Raises:
        TypeError: the module is neither linear nor a (forward) convolution, or an output is not a tensor.
        ValueError: the module was never called.
    """
    rows = _patch_gradients(model, inputs, name, output_fn)
    return _outer_sum(rows) / _count(inputs)


def centered_layer_agop(
    model: nn.Module, inputs: Inputs, name: str, *, output_fn: OutputFn | None = None
) -> Tensor:
    """AGOP of gradients centred per output, ``G = 1/n Σ_k Σ_rows (r_k - m_k)(r_k - m_k)ᵀ``.

    ``m_k`` is the mean of ``r_k`` over all rows (samples × positions × calls) of output ``k``; the sum runs
    over the same rows and is divided by the number of samples, as in `layer_agop`.

    Args:
        model: network, as in `layer_agop`.
        inputs: tensor ``(n, ...)`` or tuple of them.
        name: dotted name of the module.
        output_fn: as in `layer_agop`.

    Returns:
        ``(groups, in, in)`` float64.
    """
    rows = _patch_gradients(model, inputs, name, output_fn)
    return _outer_sum([r - r.mean(dim=0) for r in rows]) / _count(inputs)


def layer_sensitivity(
    model: nn.Module, inputs: Inputs, name: str, *, output_fn: OutputFn | None = None
) -> Tensor:
    """Sensitivity ``C = 1/n Σ_samples Σ_k Σ_rows δ δᵀ`` with ``δ = ∂f_k / ∂z``, z the module's output.

    Args:
        model: network, as in `layer_agop`.
        inputs: tensor ``(n, ...)`` or tuple of them.
        name: dotted name of the module.
        output_fn: as in `layer_agop`.

    Returns:
        ``(groups, out, out)`` float64, ``out`` counting the outputs of one group.
    """

    def leafed(module: nn.Module, original: Forward, leaves: list[Tensor]) -> Forward:
        def forward(input: Tensor) -> Tensor:
            z = original(input)
            leaves.append(torch.zeros_like(z, requires_grad=True))
            return z + leaves[-1]

        return forward

    def as_rows(module: nn.Module, delta: Tensor) -> Tensor:
        axis = -1 if isinstance(module, nn.Linear) else -1 - len(module.kernel_size)
        return delta.movedim(axis, -1).reshape(-1, _groups(module), _weight(module).shape[1])

    return _outer_sum(_gradients(model, inputs, name, output_fn, leafed, as_rows)) / _count(inputs)


# Statistics of feature matrices


def matrix_power(G: Tensor, alpha: float) -> Tensor:
    """``G^α = V diag(λ^α) Vᵀ`` of symmetric positive semi-definite matrices.

    Eigenvalues below ``d ε λ_max`` are rounding and count as 0: their root would not be small.

    Args:
        G: ``(..., d, d)``, symmetrised first.
        alpha: exponent; positive, unless every G is definite.

    Returns:
        ``(..., d, d)`` float64.
    """
    G = G.double()
    eigenvalues, V = torch.linalg.eigh((G + G.mT) / 2)
    floor = G.shape[-1] * torch.finfo(G.dtype).eps * eigenvalues[..., -1:]
    return V @ torch.diag_embed(torch.where(eigenvalues > floor, eigenvalues, 0) ** alpha) @ V.mT


def cosine(A: Tensor, B: Tensor) -> float:
    """Cosine ``⟨A, B⟩ / (‖A‖ ‖B‖)`` over all entries of two ``(groups, d, d)`` stacks; NaN if one is zero."""
    a, b = A.double().flatten(), B.double().flatten()
    return _cosine(a, b, of=(a, b))


def pearson(A: Tensor, B: Tensor) -> float:
    """Pearson correlation over all entries of two ``(groups, d, d)`` stacks; NaN if one is constant."""
    a, b = A.double().flatten(), B.double().flatten()
    return _cosine(a - a.mean(), b - b.mean(), of=(a, b))


def offdiag_pearson(A: Tensor, B: Tensor) -> float:
    """Pearson correlation over the entries ``i ≠ j`` of each block, pooled; NaN if there are none."""
    groups, d, _ = A.shape
    entries = [(g, i, j) for g in range(groups) for i in range(d) for j in range(d) if i != j]
    if not entries:
        return math.nan
    return pearson(torch.stack([A[e] for e in entries]), torch.stack([B[e] for e in entries]))


def alignment(W: Tensor, C: Tensor) -> tuple[float, float]:
    """Cosine of the traceless parts of C and ``WWᵀ`` on the range of W, and its z-score.

    With ``U_g`` (out × r_g) an orthonormal basis of the range of ``W_g``, both sides become block-diagonal
    r × r matrices, ``r = Σ_g r_g``, of which ``tr/r`` times the identity is removed. For a Haar-rotated C
    in one group the cosine has mean 0 and standard deviation ``1 / √(Σ_g r_g(r_g+1)/2 - 1)``.

    Args:
        W: weight ``(groups, out, in)``.
        C: sensitivity ``(groups, out, out)``.

    Returns:
        ``(alignment, z)``; both NaN if one of the traceless parts is zero (rank 1, or isotropic).
    """
    bases = [_range_basis(w)[0] for w in W.double()]
    A = torch.block_diag(*[U.T @ c @ U for U, c in zip(bases, C.double(), strict=True)])
    B = torch.block_diag(*[U.T @ w @ w.T @ U for U, w in zip(bases, W.double(), strict=True)])
    r = sum(U.shape[1] for U in bases)
    if r == 0:
        return math.nan, math.nan
    eye = torch.eye(r, dtype=A.dtype, device=A.device)
    A0, B0 = A - A.trace() / r * eye, B - B.trace() / r * eye
    rho = _cosine(A0.flatten(), B0.flatten(), of=(A, B))
    degrees = sum(U.shape[1] * (U.shape[1] + 1) // 2 for U in bases) - 1
    return rho, rho * math.sqrt(degrees)


def alpha_fit(W: Tensor, C: Tensor) -> tuple[float, float]:
    """Exponent α of ``C ∝ (WWᵀ)^(1/α - 1)``, fitted on W's left singular vectors.

    Least squares of ``log(u_iᵀ C u_i)`` on ``log σ_i²``, all groups pooled, has slope ``1/α - 1``.
    Directions with ``u_iᵀ C u_i ≤ 0`` have no logarithm and are left out.

    Args:
        W: weight ``(groups, out, in)``.
        C: sensitivity ``(groups, out, out)``.

    Returns:
        ``(1 / (1 + slope), correlation of the fit)``; NaN where undefined: fewer than two directions,
        or all σ equal (no slope), or a constant ordinate (no correlation).
    """
    points = []
    for w, c in zip(W.double(), C.double(), strict=True):
        U, sigmas = _range_basis(w)
        for u, sigma in zip(U.T, sigmas, strict=True):
            energy = float(u @ c @ u)
            if energy > 0:
                points.append((2 * math.log(sigma), math.log(energy)))
    if len(points) < 2:
        return math.nan, math.nan
    x, y = torch.tensor(points, dtype=torch.float64).T
    dx, dy = x - x.mean(), y - y.mean()
    sizes = (1 + x.abs(), 1 + y.abs())  # a logarithm's rounding is absolute near 0
    if _vanishes(dx, sizes[0]):
        return math.nan, math.nan
    slope = (dx @ dy) / (dx @ dx)
    return float(1 / (1 + slope)), _cosine(dx, dy, of=sizes)


def haar_null(W: Tensor, C: Tensor, power: float, draws: int, seed: int) -> Tensor:
    """Cosine of N with ``G^α`` when C is rotated at random on the range of W, formed densely.

    Per draw and group, ``G_g = W_gᵀ U_g Q (U_gᵀ C_g U_g) Qᵀ U_gᵀ W_g`` with ``U_g`` an orthonormal basis of
    the range of ``W_g`` and Q Haar-distributed in O(r_g). Gaussians are drawn from one CPU generator,
    draw by draw and group by group.

    Args:
        W: weight ``(groups, out, in)``.
        C: sensitivity ``(groups, out, out)``.
        power: exponent α.
        draws: number of rotations.
        seed: of the generator.

    Returns:
        ``(draws,)`` float64 cosines.
    """
    W, C = W.double().cpu(), C.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    N = W.mT @ W
    values = []
    for _ in range(draws):
        G = torch.zeros_like(N)
        for g in range(len(W)):
            U, _ = _range_basis(W[g])
            Q = _haar_orthogonal(U.shape[1], generator)
            rotated = U @ Q @ (U.T @ C[g] @ U) @ Q.T @ U.T
            G[g] = W[g].T @ rotated @ W[g]
        values.append(cosine(N, matrix_power(G, power)))
    return torch.tensor(values, dtype=torch.float64)


# The rows of a linear map and their gradients


def _require_linear_map(module: nn.Module) -> None:
    if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise TypeError(f"expected nn.Linear or nn.Conv1d/2d/3d, got {type(module).__name__}")


def _groups(module: nn.Module) -> int:
    return 1 if isinstance(module, nn.Linear) else module.groups


def _weight(module: nn.Module) -> Tensor:
    """Effective weight as ``(groups, out per group, in per group)``, with its graph."""
    groups, W = _groups(module), module.weight
    return W.reshape(groups, W.shape[0] // groups, -1)


def _patches(module: nn.Module, x: Tensor) -> Tensor:
    """Copy the vectors a module multiplies by its weight out of its input, ``(rows, groups, in)``.

    Linear: the last axis of ``x`` (any rank). Convolution: ``x`` is ``(batch, channels, *sizes)``, padded as
    the module pads it; a patch is ordered ``(channel, *kernel)``, and the rows ``(batch, *positions)``.
    """
    if isinstance(module, nn.Linear):
        return x.clone().reshape(-1, 1, x.shape[-1])
    x = _padded(module, x)
    patches = []
    for sample in x:
        for position in itertools.product(*map(range, _map_size(module, x))):
            corner = [i * s for i, s in zip(position, module.stride, strict=True)]
            pixels = []
            for offset in itertools.product(*map(range, module.kernel_size)):
                steps = zip(corner, offset, module.dilation, strict=True)
                pixels.append(sample[(slice(None), *[c + a * d for c, a, d in steps])])
            patches.append(torch.stack(pixels, dim=-1))  # (channels, kernel entries)
    return torch.stack(patches).reshape(len(patches), module.groups, -1)


def _padded(module: nn.Module, x: Tensor) -> Tensor:
    """Pad ``(batch, channels, *sizes)`` as the convolution does."""
    widths = module._reversed_padding_repeated_twice  # tuples and 'same' included
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, widths, mode=mode) if any(widths) else x


def _map_size(module: nn.Module, padded: Tensor) -> list[int]:
    """Positions of the kernel along each axis of the padded input."""
    axes = zip(padded.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True)
    return [(size - dilation * (k - 1) - 1) // stride + 1 for size, k, stride, dilation in axes]


def _multiply(module: nn.Module, p: Tensor) -> Tensor:
    """``z = W p + b`` row by row and group by group, ``(rows, groups, out)``."""
    W = _weight(module)
    z = torch.stack([p[:, g] @ W[g].T for g in range(len(W))], dim=1)
    return z if module.bias is None else z + module.bias.reshape(W.shape[:2])


def _unrow(module: nn.Module, z: Tensor, x: Tensor) -> Tensor:
    """Arrange ``(rows, groups, out)`` as the module arranges its output for the input ``x``."""
    if isinstance(module, nn.Linear):
        return z.reshape(*x.shape[:-1], -1)
    sizes = _map_size(module, _padded(module, x))
    return z.reshape(len(x), *sizes, -1).movedim(-1, 1).contiguous()


def _patch_gradients(model: nn.Module, inputs: Inputs, name: str, output_fn: OutputFn | None) -> list[Tensor]:
    """``∂f_k/∂p`` as one ``(rows, groups, in)`` per output k."""

    def leafed(module: nn.Module, original: Forward, leaves: list[Tensor]) -> Forward:
        def forward(input: Tensor) -> Tensor:
            p = _patches(module, input)
            leaves.append(torch.zeros_like(p, requires_grad=True))
            z = _unrow(module, _multiply(module, p + leaves[-1]), input)
            with torch.no_grad():
                torch.testing.assert_close(z, original(input))
            return z

        return forward

    return _gradients(model, inputs, name, output_fn, leafed, lambda module, gradient: gradient)


def _gradients(
    model: nn.Module,
    inputs: Inputs,
    name: str,
    output_fn: OutputFn | None,
    leafed: Callable[[nn.Module, Forward, list[Tensor]], Forward],
    as_rows: Callable[[nn.Module, Tensor], Tensor],
) -> list[Tensor]:
    """Gradient of every output with respect to the zero leaves that ``leafed`` plants in one module.

    Returns:
        One ``(rows, groups, features)`` float64 per output; rows run over samples, calls and positions.
    """
    module = model.get_submodule(name)
    _require_linear_map(module)
    rows: dict[int, list[Tensor]] = defaultdict(list)
    leaves: list[Tensor] = []
    replacement = leafed(module, module.forward, leaves)
    with torch.enable_grad(), _eval_mode(model), _replaced_forward(module, replacement):
        for i in range(_count(inputs)):
            leaves.clear()
            outputs = _outputs(model, _sample(inputs, i), output_fn)
            if not leaves:
                raise ValueError(f"expected the model to call its module {name!r}; it never did")
            for k, f in enumerate(outputs):
                rows[k] += [as_rows(module, r).double() for r in _gradient(f, leaves)]
    return [torch.cat(rows[k]) for k in sorted(rows)]


def _outputs(model: nn.Module, sample: tuple[Tensor, ...], output_fn: OutputFn | None) -> Tensor:
    """All scalar outputs for one sample, ``(outputs,)``."""
    raw = model(*sample)
    f = raw if output_fn is None else output_fn(raw)
    if not isinstance(f, Tensor):
        raise TypeError(f"expected a tensor of outputs, got {type(f).__name__}; pass output_fn")
    return f.reshape(-1)


def _gradient(f: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Gradient of the scalar ``f`` with respect to each leaf, zero where it does not depend on it."""
    if not f.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    gradients = torch.autograd.grad(f, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if r is None else r for r, p in zip(gradients, leaves, strict=True)]


def _outer_sum(rows: list[Tensor]) -> Tensor:
    """``Σ r rᵀ`` over all rows of all outputs; ``(rows, groups, d)`` each to ``(groups, d, d)``."""
    _, groups, d = rows[0].shape
    total = rows[0].new_zeros(groups, d, d)
    for output in rows:
        for row in output:
            for g in range(groups):
                total[g] += torch.outer(row[g], row[g])
    return total


def _sample(inputs: Inputs, i: int) -> tuple[Tensor, ...]:
    return tuple(x[i : i + 1] for x in (inputs if isinstance(inputs, tuple) else (inputs,)))


def _count(inputs: Inputs) -> int:
    return len(inputs[0] if isinstance(inputs, tuple) else inputs)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` in eval mode, and each back as it was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


@contextmanager
def _replaced_forward(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Give ``module`` another forward, and its own back afterwards."""
    own = vars(module).get("forward")  # a forward set on the instance, not the class's
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


# Pieces of the statistics


def _cosine(a: Tensor, b: Tensor, *, of: tuple[Tensor, Tensor]) -> float:
    """Cosine of two vectors; NaN if one is nothing but rounding of the numbers it was made ``of``."""
    if _vanishes(a, of[0]) or _vanishes(b, of[1]):
        return math.nan
    return float((a / a.norm()) @ (b / b.norm()))


def _vanishes(remainder: Tensor, whole: Tensor) -> bool:
    return bool(remainder.norm() <= ZERO_TOLERANCE * whole.norm())


def _range_basis(w: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors ``(out, r)`` and non-zero singular values ``(r,)`` of ``w`` ``(out, in)``."""
    U, sigma, _ = torch.linalg.svd(w, full_matrices=False)
    keep = sigma > RANK_TOLERANCE * sigma.max()
    return U[:, keep], sigma[keep]


def _haar_orthogonal(r: int, generator: torch.Generator) -> Tensor:
    """Haar-distributed ``(r, r)`` orthogonal matrix: QR of a Gaussian, R's diagonal made positive."""
    Q, R = torch.linalg.qr(torch.randn(r, r, generator=generator, dtype=torch.float64))
    return Q * R.diagonal().sign()
