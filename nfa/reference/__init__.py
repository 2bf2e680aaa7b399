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

The slow machines stand in modules of their own, which nothing of the library imports: `nfa.reference.rfm` and
`nfa.reference.conv_rfm`, their kernels on patches twice (by loops and by autograd), and
`nfa.reference.collapse`.
"""

from nfa.reference.matrices import centered_layer_agop, layer_agop, layer_nfm, layer_sensitivity
from nfa.reference.statistics import (
    alignment,
    alpha_fit,
    cosine,
    haar_null,
    matrix_power,
    offdiag_pearson,
    pearson,
)

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
