"""Deep recursive feature machine in the trainer: `nfa.DeepRFM`, one round of one layer an epoch."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from models.deep import DeepModule
from nfa.machines.deep_round import DeepFit, DeepRecursion
from nfa.machines.random_features import RandomFeatures
from nfa.machines.recursion import Recursion
from nfa.machines.targets import TargetCode


class DeepRFM(DeepModule):
    """Layers of a learned map M^½ and random features, fitted one after the other.

    An epoch fits one round of one layer; ``depth · (rounds + 1)`` epochs fit them all. `network` predicts
    by the layer that is being fitted; the ansatz is measured on the feature maps of all layers up to it. See
    `nfa.DeepRFM` for the options.

    Args:
        input_shape: of one input; it is flattened.
        num_outputs: classes, or regression targets.
        task: ``classification`` or ``regression``.
        depth: number of layers.
        width: random features of each layer.
        activation: ``relu``, or ``laplace`` for cosine features of the Laplace kernel.
        kernel: ``laplace``, ``gaussian``, ``matern`` or ``exponential``.
        bandwidth: a length, ``median``, or several of them, chosen from by the validation loss in each round.
        ridge: a number, or several of them, chosen from likewise.
        rounds: updates of M in each layer.
        power: exponent of the AGOP that becomes M.
        centering: of the gradients: ``none``, ``output``, ``pooled``.
        normalization: of M: ``max``, ``trace``, ``none``.
        gamma: of cosine features, the inverse of a length.
        unit_norm: scale the points that come into a layer to unit length.
        solver: ``auto``, ``cholesky``, ``cg``.
        agop_samples: training points the AGOP is taken over; None takes all.
        patience: stop when the validation loss was no lower for so many epochs.
        memory_gb: that a round may take beyond the data; None takes 80 % of what is free.
        seed: of the random features, of these points, and of the solver.
        offset: ``mean`` fits regression targets less their mean; ``none`` as they are.
        kernel_options: ``nu`` of matern, ``q`` of exponential.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        task: str,
        depth: int = 3,
        width: int = 512,
        activation: str = "relu",
        kernel: str = "laplace",
        bandwidth: float | str | Sequence[float | str] = 2.0,
        ridge: float | Sequence[float] = 1e-3,
        rounds: int = 1,
        power: float = 1.0,
        centering: str = "none",
        normalization: str = "max",
        gamma: float = 0.1,
        unit_norm: bool = True,
        solver: str = "auto",
        agop_samples: int | None = None,
        patience: int | None = None,
        memory_gb: float | None = None,
        seed: int = 0,
        offset: str = "mean",
        kernel_options: dict[str, Any] | None = None,
    ):
        super().__init__(task, num_outputs, patience)
        self.save_hyperparameters()
        self.check_options()
        memory = None if memory_gb is None else memory_gb * 1e9
        recursion = Recursion(
            kernel, bandwidth, ridge, power, centering, normalization, solver, agop_samples, seed, memory,
            kernel_options or {}, offset,
        )  # fmt: skip
        features = RandomFeatures(activation, width, gamma)
        self.options = DeepRecursion(recursion, features, depth, rounds, unit_norm, labels="one_hot")
        self.in_features = math.prod(input_shape)
        self.network, self.spare = (self.options.network(self.in_features, num_outputs) for _ in range(2))

    def begin(
        self, x: Tensor, y: Tensor, targets: TargetCode, validation: tuple[Tensor, Tensor] | None
    ) -> DeepFit:
        """Inputs are flattened."""
        if validation is not None:
            validation = validation[0].flatten(1), validation[1]
        return DeepFit(self.options, self.network, x.flatten(1), y, targets, validation)

    @property
    def net(self) -> dict[str, Any]:
        """What builds `network` anew."""
        recursion, features = self.options.recursion, self.options.features
        return {
            "_target_": "nfa.machines.deep_network.DeepKernelNetwork",
            "kernel": recursion.kernel,
            "in_features": self.in_features,
            "outputs": self.num_outputs,
            "depth": self.options.depth,
            "features": asdict(features),
            "seed": recursion.seed,
            "unit_norm": self.options.unit_norm,
            **recursion.kernel_options,
        }

    @property
    def num_learned(self) -> int:
        """Numbers that are learned: the roots of M in the layers in use, and the coefficients."""
        layers = self.network.layers[: int(self.network.position[0]) + 1]
        maps = sum(layer.feature_map.weight.numel() for layer in layers)
        return maps + self.network.radial.coefficients.numel()
