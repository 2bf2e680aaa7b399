"""Matrices of one layer from a network: N, G and C, by loops over rows, outputs and samples."""

import torch
from torch import Tensor, nn

from nfa.reference.gradients import Forward, Inputs, OutputFn, count, eval_mode, leaf_gradients, outer_sum
from nfa.reference.linear_rows import (
    Linear,
    arranged,
    groups_of,
    multiply,
    patches,
    require_linear_map,
    weight_of,
)


def layer_nfm(module: nn.Module) -> Tensor:
    """Neural feature matrix ``N = WᵀW = Σ_o w_o w_oᵀ`` of each group, as a sum over the rows of W.

    Args:
        module: ``nn.Linear`` or ``nn.Conv1d`` / ``2d`` / ``3d``, parametrised or not.

    Returns:
        ``(groups, in, in)`` float64; ``in`` counts ``(channels of the group, *kernel)`` for a convolution.
    """
    layer = require_linear_map(module)
    with eval_mode(layer):  # reading a spectral-norm weight in training mode would change it
        W = weight_of(layer).detach().double()
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
    return outer_sum(rows) / count(inputs)


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
    return outer_sum([r - r.mean(dim=0) for r in rows]) / count(inputs)


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

    def leafed(module: Linear, original: Forward, leaves: list[Tensor]) -> Forward:
        def forward(input: Tensor) -> Tensor:
            z = original(input)
            leaves.append(torch.zeros_like(z, requires_grad=True))
            return z + leaves[-1]

        return forward

    def as_rows(module: Linear, delta: Tensor) -> Tensor:
        axis = -1 if isinstance(module, nn.Linear) else -1 - len(module.kernel_size)
        return delta.movedim(axis, -1).reshape(-1, groups_of(module), weight_of(module).shape[1])

    return outer_sum(leaf_gradients(model, inputs, name, output_fn, leafed, as_rows)) / count(inputs)


def _patch_gradients(model: nn.Module, inputs: Inputs, name: str, output_fn: OutputFn | None) -> list[Tensor]:
    """``∂f_k/∂p`` as one ``(rows, groups, in)`` per output k."""

    def leafed(module: Linear, original: Forward, leaves: list[Tensor]) -> Forward:
        def forward(input: Tensor) -> Tensor:
            p = patches(module, input)
            leaves.append(torch.zeros_like(p, requires_grad=True))
            z = arranged(module, multiply(module, p + leaves[-1]), input)
            with torch.no_grad():
                torch.testing.assert_close(z, original(input))
            return z

        return forward

    return leaf_gradients(model, inputs, name, output_fn, leafed, lambda module, gradient: gradient)
