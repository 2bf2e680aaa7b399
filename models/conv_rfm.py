"""Convolutional recursive feature machine in the trainer: `nfa.ConvRFM`, one round an epoch."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from models.checks import image_shape
from models.recursive import RecursiveModule
from nfa.kernels.conv import ConvKernel
from nfa.machines.conv_network import ConvKernelNetwork
from nfa.machines.conv_predictor import ConvPredictor
from nfa.machines.conv_rfm import ConvRecursion


class ConvRFM(RecursiveModule):
    """A convolutional kernel that learns a matrix T of image patches; epoch t fits round t - 1.

    `network` is ``sum(feature_map(x))``, whose convolution has the weight T and ``WᵀW = M``: the ansatz is
    measured on it as on the first layer of a CNN. See `nfa.ConvRFM` for the options.

    Args:
        input_shape: (channels, height, width).
        num_outputs: classes, or regression targets.
        task: ``classification`` or ``regression``.
        patch_size: side of all windows, in pixels.
        depth: number of convolutions of the kernel.
        ridge: a number, beside a kernel matrix whose largest entry is 1; or several of them, chosen from by
            the validation loss in each round.
        agop_images: training images the AGOP is taken over, drawn anew each round; null takes all.
        agop_draw: ``random``, or the ``first`` ones, as published.
        power: exponent of the AGOP that becomes ``M = TᵀT``: 1 for ``T ∝ G^½``, 2 for ``T ∝ G``.
        stride: of the first convolution.
        padding: ``none`` or ``zero``.
        head: ``flatten``, or ``pool`` for global average pooling, which costs far more.
        kind: ``ntk`` or ``nngp``.
        solver: ``auto``, ``cholesky``, ``cg``.
        patience: stop when the validation loss was no lower for so many rounds.
        refit: at the end solve once more, with training and validation images together, with the T and the
            ridge of the best round.
        memory_gb: that a round may take beyond the data; None takes 80 % of what is free.
        seed: of the images of the AGOP, and of the solver.
        offset: ``mean`` fits regression targets less their mean; ``none`` as they are.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        task: str,
        patch_size: int = 3,
        depth: int = 3,
        ridge: float | Sequence[float] = 1e-3,
        agop_images: int | None = 20,
        agop_draw: str = "random",
        power: float = 1.0,
        stride: int = 1,
        padding: str = "none",
        head: str = "flatten",
        kind: str = "ntk",
        solver: str = "auto",
        patience: int | None = None,
        refit: bool = False,
        memory_gb: float | None = None,
        seed: int = 0,
        offset: str = "mean",
    ):
        super().__init__(task, num_outputs, patience, refit)
        self.save_hyperparameters()
        self.check_options()
        self.shape = image_shape(input_shape, "conv_rfm")
        memory = None if memory_gb is None else memory_gb * 1e9
        kernel = ConvKernel(patch_size, depth, stride, padding, head, kind)
        self.recursion = ConvRecursion(
            kernel, ridge, power, agop_images, agop_draw, "mse", solver, seed, memory, offset=offset
        )
        self.network, self.spare = (ConvKernelNetwork(kernel, self.shape, num_outputs) for _ in range(2))

    def on_fit_start(self) -> None:
        """Share the pairs of images out where there are several processes."""
        super().on_fit_start()
        self.recursion = replace(self.recursion, distributed=self.trainer.world_size > 1)

    def learned(self, predictor: ConvPredictor, index: int) -> tuple[Tensor, dict[str, Any]]:
        """The next transform."""
        return self.recursion.next_transform(predictor, index)

    @property
    def net(self) -> dict[str, Any]:
        """What builds `network` anew."""
        return {
            "_target_": "nfa.machines.conv_network.ConvKernelNetwork",
            "kernel": asdict(self.recursion.kernel),
            "shape": list(self.shape),
            "outputs": self.num_outputs,
        }
