"""Convolutional recursive feature machines: kernel machines that learn the features of image patches."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from nfa.checks import whole_or_none
from nfa.kernels.conv import ConvKernel
from nfa.machines.layer import Layer
from nfa.machines.machine import Machine
from nfa.machines.options import chosen, layer_of
from nfa.machines.patches import Patches


class ConvRFM(Machine):
    """A convolutional kernel predictor that learns a Mahalanobis matrix M of image patches.

    ``f(x) = Σ_j a_j k_T(x, x_j)`` with the infinite-width kernel of [convolution, ReLU]·depth, whose first
    layer sees ``T u`` for every patch u. A round sets ``T`` to a power of the AGOP of f with respect to
    patches, with Frobenius norm 1, so that ``M = TᵀT`` has the trace 1 (arXiv 2309.00570). Patches are
    ordered (channel, row, column), as in ``weight.reshape(out, -1)`` of a convolution.

    The published code chooses ridge and round by accuracy on its test images. That is ``criterion=
    "accuracy", agop_draw="first"`` with these as validation images; its tables are optimistic by as much.

    Args:
        patch_size: side of all windows, in pixels; see `ConvKernel`, also for depth, stride to kind.
        depth: number of convolutions of the kernel.
        ridge: added to the diagonal of the kernel matrix divided by its largest entry, as published; or
            several, from which the validation images choose in each round.
        rounds: updates of M; there is one more fit than that, the first with ``M = I``.
        agop_images: take the AGOP over so many training images; None takes all.
        agop_draw: ``random``, anew each round without replacement, or the ``first`` ones, as published.
        power: exponent of the AGOP that becomes M, up to scale: 1 for ``T = G^½/‖G^½‖``, 2 for
            ``T = G/‖G‖``.
        stride: of the first convolution.
        padding: ``none``, or ``zero`` for ``patch_size // 2`` zeros on each side.
        head: ``flatten``, or ``pool`` for global average pooling, which costs far more.
        kind: ``ntk`` or ``nngp``.
        criterion: by which validation images choose the ridge and the round: ``mse``, ``accuracy``, ``auc``.
        solver: as in `RFM`, also for patience to learn below.
        patience: stop when the validation error was no lower for so many rounds.
        refit: at the end solve once more, with training and validation images together.
        seed: of the images of the AGOP, and of the solver.
        device: where to compute; None means where the data are.
        memory: bytes that a round may take beyond the data.
        distributed: share kernel values and gradients out over processes; see `Solver`.
        offset: ``mean`` or ``none``.
        learn: ``agop`` or ``none``.

    Attributes:
        M: (D, D), of the round that is kept: the best on validation data, without these the last.
        transform: T (D, D) of that round.
        history: as `RFM.history`, with ``scale`` (the largest kernel value) in the place of the bandwidth.
        best_round: the round that is kept.
        predictor: the kernel predictor of that round.

    Raises:
        NfaError: an option is out of range.

    Example:
        >>> import torch, nfa
        >>> X = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        >>> machine = nfa.ConvRFM(patch_size=3, depth=2, rounds=1).fit(X, X[:, 0, 2, 2])
        >>> machine.M.shape, f"{machine.M.trace():.3f}"  # of patches of 1 channel, 3 x 3
        (torch.Size([9, 9]), '1.000')
    """

    format = "nfa.ConvRFM 1"
    positional = 5
    defaults: ClassVar = {
        "patch_size": 3, "depth": 3, "ridge": 1e-3, "rounds": 3, "agop_images": 20, "agop_draw": "random",
        "power": 1.0, "stride": 1, "padding": "none", "head": "flatten", "kind": "ntk", "criterion": "mse",
        "solver": "auto", "patience": None, "refit": False, "seed": 0, "device": None, "memory": None,
        "offset": "mean", "learn": "agop", "distributed": False,
    }  # fmt: skip

    @staticmethod
    def layers_of(options: Mapping[str, Any]) -> tuple[Layer, ...]:
        """One."""
        return (conv_layer(options),)

    @property
    def transform(self) -> Tensor:
        """T, (D, D) in the dtype of the data."""
        return self.predictor.weight


def conv_layer(options: Mapping[str, Any]) -> Layer:
    """A layer on patches with these options of a machine."""
    images = whole_or_none("agop_images", options["agop_images"], 1)
    return layer_of({**options, "agop_samples": images}, Patches(chosen(ConvKernel, options)))
