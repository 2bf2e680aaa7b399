"""Recursive feature machine in the trainer: `nfa.RFM`, one round an epoch."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from models.recursive import RecursiveModule
from nfa.kernels import Metric
from nfa.machines.network import KernelNetwork
from nfa.machines.predictor import Predictor
from nfa.machines.recursion import Recursion


class RFM(RecursiveModule):
    """A recursive feature machine; epoch t fits round t - 1, the first with ``M = I``.

    `network` is ``radial(feature_map(x))``, whose linear layer has ``WᵀW = M``: the ansatz is measured on it
    as on the layers of a net. See `nfa.RFM` for the options.

    Args:
        input_shape: of one input; it is flattened.
        num_outputs: classes, or regression targets.
        task: ``classification`` or ``regression``.
        kernel: ``laplace``, ``gaussian``, ``matern`` or ``exponential``.
        bandwidth: a length, ``median``, or several of them, chosen from by the validation loss in each round.
        ridge: a number, or several of them, chosen from likewise.
        power: exponent of the AGOP that becomes M.
        centering: of the gradients: ``none``, ``output``, ``pooled``.
        normalization: of M: ``max``, ``trace``, ``none``.
        solver: ``auto``, ``cholesky``, ``cg``.
        agop_samples: training points the AGOP is taken over, drawn anew each round; None takes all.
        patience: stop when the validation loss was no lower for so many rounds.
        refit: at the end solve once more, with training and validation samples together, in the metric and
            with the bandwidth and the ridge of the best round.
        memory_gb: that a round may take beyond the data; None takes 80 % of what is free.
        seed: of these points, and of the solver.
        offset: ``mean`` fits regression targets less their mean; ``none`` as they are.
        kernel_options: ``nu`` of matern, ``q`` of exponential.
    """

    initial: ClassVar = Metric.identity()

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        task: str,
        kernel: str = "laplace",
        bandwidth: float | str | Sequence[float | str] = 10.0,
        ridge: float | Sequence[float] = 1e-3,
        power: float = 1.0,
        centering: str = "none",
        normalization: str = "max",
        solver: str = "auto",
        agop_samples: int | None = None,
        patience: int | None = None,
        refit: bool = False,
        memory_gb: float | None = None,
        seed: int = 0,
        offset: str = "mean",
        kernel_options: dict[str, Any] | None = None,
    ):
        super().__init__(task, num_outputs, patience, refit)
        self.save_hyperparameters()
        self.check_options()
        memory = None if memory_gb is None else memory_gb * 1e9
        self.recursion = Recursion(
            kernel, bandwidth, ridge, power, centering, normalization, solver, agop_samples, seed, memory,
            kernel_options or {}, offset,
        )  # fmt: skip
        self.width = math.prod(input_shape)
        options = kernel_options or {}
        self.network, self.spare = (
            KernelNetwork(kernel, self.width, num_outputs, **options) for _ in range(2)
        )

    def points(self, x: Tensor) -> Tensor:
        """Inputs (n, …) as (n, d)."""
        return x.flatten(1)

    def learned(self, predictor: Predictor, index: int) -> tuple[Metric, dict[str, Any]]:
        """The next metric."""
        return self.recursion.next_metric(predictor, index)

    @property
    def net(self) -> dict[str, Any]:
        """What builds `network` anew."""
        return {
            "_target_": "nfa.machines.network.KernelNetwork",
            "kernel": self.recursion.kernel,
            "in_features": self.width,
            "outputs": self.num_outputs,
            **self.recursion.kernel_options,
        }
