"""Deep convolutional recursive feature machines: layers of a learned T on patches and random filters."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from nfa.checks import whole
from nfa.machines.conv_rfm import conv_layer
from nfa.machines.layer import Layer
from nfa.machines.layered import LayeredMachine
from nfa.machines.patches import Patches
from nfa.machines.random_filters import ConvFeatures


class DeepConvRFM(LayeredMachine):
    """Layers of convolutional recursive feature machines, ``x -> φ(A T u)`` with random A.

    Each layer fits a convolutional recursive feature machine to the images that come into it, convolves them
    with random filters of the covariance ``M = TᵀT``, and hands them on to a kernel with one convolution less
    (Beaglehole, Radhakrishnan, Pandit and Belkin, arXiv 2309.00570). Nothing is trained by gradients.

    The defaults are the published recursion with what it should not do left out: the best round of a layer
    is chosen on validation images (the published code takes test images; give them as ``X_val`` with
    ``criterion="accuracy"`` to do the same), and images of the AGOP are drawn at random (there the first 20:
    ``agop_draw="first"``). As there, nothing comes between the layers unless ``activation="relu"`` or
    ``pool`` is given, and filters are shaped by T also where the first round is the best: then T = I.

    Args:
        patch_size: side of all windows, in pixels.
        depth: convolutions of the kernel of the first layer; each further layer has one less.
        layers: number of layers; None takes as many as the kernel has convolutions.
        width: random filters of each layer but the last; see `ConvFeatures`, also for the four below.
        activation: between layers: ``none`` or ``relu``.
        conv_padding: of the random convolutions, ``none`` or ``zero``; None takes that of the kernel.
        conv_stride: of the random convolutions.
        pool: side of the squares that are averaged between layers.
        ridge: as in `ConvRFM`, also for all below, in each layer.
        rounds: updates of M in each layer.
        agop_images: take the AGOP over so many training images; None takes all.
        agop_draw: ``random`` or ``first``.
        power: exponent of the AGOP that becomes M.
        stride: of the first convolution of the kernels.
        padding: of the kernels, ``none`` or ``zero``.
        head: ``flatten`` or ``pool``.
        kind: ``ntk`` or ``nngp``.
        criterion: by which validation images choose ridge, round and layer: ``mse``, ``accuracy``, ``auc``.
        select: whose layer's predictor predicts: the ``last``, or the ``best`` on validation images.
        solver: ``auto``, ``cholesky`` or ``cg``.
        seed: of the random filters, of the images of the AGOP, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data.
        distributed: share kernel values and gradients out over processes; see `Solver`.
        offset: ``mean`` or ``none``.
        learn: ``agop`` or ``none``.

    Attributes:
        layers: one `PatchStage` for each that is fitted, with its ``M``.
        history: one dictionary a layer: what `ConvRFM.history` tells of its best round, ``best_round``, and
            ``rounds``, all rounds, each with the update that led to it; seconds are those of all rounds.
        best_layer: the layer whose predictor predicts.
        predictor: that predictor, of the images that come into this layer.

    Raises:
        NfaError: an option is out of range.

    Example:
        >>> import torch, nfa
        >>> X = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> machine = nfa.DeepConvRFM(patch_size=3, depth=2, width=4, rounds=1).fit(X, X[:, 0, 2, 2])
        >>> [tuple(layer.M.shape) for layer in machine.layers]  # of 1 channel, and of 4 filters
        [(9, 9), (36, 36)]
    """

    format = "nfa.DeepConvRFM 1"
    positional = 4
    defaults: ClassVar = {
        "patch_size": 3, "depth": 3, "layers": None, "width": 64, "activation": "none", "conv_padding": None,
        "conv_stride": 1, "pool": 1, "ridge": 1e-3, "rounds": 3, "agop_images": 20, "agop_draw": "random",
        "power": 1.0, "stride": 1, "padding": "none", "head": "flatten", "kind": "ntk", "criterion": "mse",
        "select": "last", "solver": "auto", "seed": 0, "device": None, "memory": None, "offset": "mean",
        "learn": "agop", "distributed": False,
    }  # fmt: skip

    @staticmethod
    def layers_of(options: Mapping[str, Any]) -> tuple[Layer, ...]:
        """Each with a kernel of one convolution less than the one before, but at least one."""
        layer, o = conv_layer(options), options
        padding = o["padding"] if o["conv_padding"] is None else o["conv_padding"]
        lift = ConvFeatures(o["width"], o["activation"], padding, o["conv_stride"], o["pool"])
        return stacked(layer, lift, o["layers"])

    def features(self, X: Tensor, layer: int) -> Tensor:
        """The images that come into a layer, (n, c, h, w).

        Raises:
            NfaError: no layer of this index.
        """
        return self._before(X, self._known_layer(layer))


def stacked(layer: Layer, lift: ConvFeatures, count: int | None) -> tuple[Layer, ...]:
    """So many layers like the first, whose kernels become shallower; the last one hands nothing on."""
    kernel = layer.kernel
    assert isinstance(kernel, Patches)  # as of all machines on images
    number = kernel.function.depth if count is None else whole("layers", count, 1)
    return tuple(
        replace(layer, kernel=kernel.below(index), lift=lift if index < number - 1 else None)
        for index in range(number)
    )
