"""Deep convolutional machine in the trainer: `nfa.DeepConvRFM`, one round of one layer an epoch."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from models.checks import image_shape
from models.deep import DeepModule
from nfa.kernels.conv import ConvKernel
from nfa.machines.conv_rfm import ConvRecursion
from nfa.machines.deep_conv_network import ConvFeatures
from nfa.machines.deep_conv_round import DeepConvFit, DeepConvRecursion
from nfa.machines.targets import TargetCode


class DeepConvRFM(DeepModule):
    """Layers of a learned T on patches and random filters, fitted one after the other.

    An epoch fits one round of one layer, ``layers · (rounds + 1)`` epochs fit all. The ansatz is measured
    on the maps of all layers up to the one being fitted. See `nfa.DeepConvRFM` for the options.

    Args:
        input_shape: (channels, height, width).
        num_outputs: classes, or regression targets.
        task: ``classification`` or ``regression``.
        patch_size: side of all windows, in pixels.
        depth: convolutions of the kernel of the first layer; each further layer has one less.
        layers: number of layers; None takes as many as the kernel has convolutions.
        width: random filters of each layer but the last.
        activation: between layers: ``none``, as published, or ``relu``.
        conv_padding: of the random convolutions, ``none`` or ``zero``; None takes that of the kernel.
        conv_stride: of the random convolutions.
        pool: side of the squares that are averaged between layers.
        ridge: a number, beside a kernel matrix whose largest entry is 1; or several of them, chosen from by
            the validation loss in each round.
        rounds: updates of M in each layer.
        agop_images: training images the AGOP is taken over; None takes all.
        agop_draw: ``random``, or the ``first`` ones, as published.
        power: exponent of the AGOP that becomes M.
        padding: of the kernels, ``none`` or ``zero``.
        solver: ``auto``, ``cholesky``, ``cg``.
        patience: stop when the validation loss was no lower for so many epochs.
        memory_gb: that a round may take beyond the data; None takes 80 % of what is free.
        seed: of the random filters, of the images of the AGOP, and of the solver.
        offset: ``mean`` fits regression targets less their mean; ``none`` as they are.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        task: str,
        patch_size: int = 3,
        depth: int = 3,
        layers: int | None = None,
        width: int = 64,
        activation: str = "relu",
        conv_padding: str | None = None,
        conv_stride: int = 1,
        pool: int = 1,
        ridge: float | Sequence[float] = 1e-3,
        rounds: int = 1,
        agop_images: int | None = 20,
        agop_draw: str = "random",
        power: float = 1.0,
        padding: str = "none",
        solver: str = "auto",
        patience: int | None = None,
        memory_gb: float | None = None,
        seed: int = 0,
        offset: str = "mean",
    ):
        super().__init__(task, num_outputs, patience)
        self.save_hyperparameters()
        self.check_options()
        self.shape = image_shape(input_shape, "deep_conv_rfm")
        memory = None if memory_gb is None else memory_gb * 1e9
        kernel = ConvKernel(patch_size, depth, padding=padding)
        recursion = ConvRecursion(
            kernel, ridge, power, agop_images, agop_draw, "mse", solver, seed, memory, offset=offset
        )
        features = ConvFeatures(width, activation, conv_padding or padding, conv_stride, pool)
        self.options = DeepConvRecursion(recursion, features, depth if layers is None else layers, rounds)
        self.network, self.spare = (self.options.network(self.shape, num_outputs) for _ in range(2))

    def on_fit_start(self) -> None:
        """Share the pairs of images out where there are several processes."""
        super().on_fit_start()
        recursion = replace(self.options.recursion, distributed=self.trainer.world_size > 1)
        self.options = replace(self.options, recursion=recursion)

    def begin(
        self, x: Tensor, y: Tensor, targets: TargetCode, validation: tuple[Tensor, Tensor] | None
    ) -> DeepConvFit:
        """Inputs are images as they are."""
        return DeepConvFit(self.options, self.network, x, y, targets, validation)

    @property
    def net(self) -> dict[str, Any]:
        """What builds `network` anew."""
        return {
            "_target_": "nfa.machines.deep_conv_network.DeepConvNetwork",
            "kernel": asdict(self.options.recursion.kernel),
            "shape": list(self.shape),
            "outputs": self.num_outputs,
            "layers": self.options.layers,
            "features": asdict(self.options.features),
            "seed": self.options.recursion.seed,
        }

    @property
    def num_learned(self) -> int:
        """Numbers that are learned: T of the layers in use, and the coefficients."""
        layers = self.network.layers[: int(self.network.position[0]) + 1]
        predictor = self.network.predictor()
        coefficients = 0 if predictor is None else predictor.coefficients.numel()
        return sum(layer.feature_map.weight.numel() for layer in layers) + coefficients
