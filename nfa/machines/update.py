"""How a round becomes the next metric: an update takes a fitted predictor and gives the M to come.

A new one is a class with `Update.__call__`, or of `Learned` with `Learned.learned`, and its name in
`nfa.machines.updates`, by which files remember it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nfa.checks import choice, positive, settle, whole_or_none
from nfa.kernels import Metric, exact_products
from nfa.machines.kernel_agop import CENTERINGS, KernelAgop
from nfa.machines.normalization import NORMALIZATIONS, cosine_of_metrics, diagonal_root
from nfa.machines.predictor import Predictor
from nfa.machines.progress import Clock
from nfa.machines.system import Solver, seed_for

if TYPE_CHECKING:
    from nfa.machines.kernel import Kernel

AUTO = "auto"
DRAWS = ("random", "first")
METRICS = ("full", "diagonal")


@dataclass(frozen=True)
class Update(ABC):
    """From a predictor to the next metric.

    Attributes:
        name: in `UPDATES`.
        learns: whether there is anything to be learned: else one round is all.
        without: options of machines that it has no use for, and what they then must be.
    """

    name: ClassVar[str]
    learns: ClassVar[bool] = True
    without: ClassVar[Mapping[str, object]] = {}

    def check_kernel(self, kernel: "Kernel") -> None:  # noqa: B027  any will do
        """Refuse a kernel that it is not made for.

        Raises:
            NfaError: it is one.
        """

    @abstractmethod
    def __call__(
        self, predictor: Predictor, index: int, solver: Solver, distances: Tensor | None = None
    ) -> tuple[Metric, dict[str, object]]:
        """The next metric, and what a history tells of it.

        Args:
            predictor: of the fit.
            index: of the round, which with the seed chooses what is drawn.
            solver: limits, and the seed.
            distances: between its centers (n, n), where they are known; they are overwritten.

        Raises:
            NfaError: what was learned is zero or not finite.
        """


@dataclass(frozen=True)
class Fixed(Update):
    """Nothing is learned: the plain kernel."""

    name: ClassVar = "none"
    learns: ClassVar = False

    def __call__(
        self, predictor: Predictor, index: int, solver: Solver, distances: Tensor | None = None
    ) -> tuple[Metric, dict[str, object]]:
        """The metric there is."""
        return predictor.metric, {}


@dataclass(frozen=True)
class Learned(Update):
    """``M ← G^power``, rescaled, for a semi-definite G that a predictor gives.

    Args:
        power: exponent of G; ``auto`` for the one that the update is published with, `usual_power`.
        normalization: of M: ``max`` divides by the largest entry, ``trace`` by the trace, ``none``.
        metric: ``full``, or ``diagonal``, which keeps the diagonal of G alone.

    Raises:
        NfaError: an option is out of range.
    """

    usual_power: ClassVar[float]

    power: float | str = AUTO
    normalization: str = "max"
    metric: str = "full"

    def __post_init__(self):
        auto = isinstance(self.power, str) and self.power == AUTO
        settle(
            self,
            power=positive("power", self.usual_power if auto else self.power),
            normalization=choice("normalization", self.normalization, NORMALIZATIONS),
            metric=choice("metric", self.metric, METRICS),
        )

    @abstractmethod
    def learned(
        self, predictor: Predictor, index: int, solver: Solver, distances: Tensor | None
    ) -> KernelAgop:
        """G in the coordinates of the centers; arguments are those of a call."""

    @exact_products()
    def __call__(
        self, predictor: Predictor, index: int, solver: Solver, distances: Tensor | None = None
    ) -> tuple[Metric, dict[str, object]]:
        """The metric of a root of ``G^power``."""
        clock, kernel, old = Clock(), predictor.kernel, predictor.metric
        power = float(self.power)
        G = self.learned(predictor, index, solver, distances)
        if self.metric == "diagonal":
            root = diagonal_root(old.times(G.root()), power, self.normalization)
            rank = int((root > 0).sum())
        else:
            root, rank = kernel.root(G, old, power, self.normalization)
        root = root.to(predictor.centers)
        clock.lap("agop")
        row = kernel.told_of(G, predictor) | {
            "self_consistency": cosine_of_metrics(
                None if old.root is None else _matrix(old.root), _matrix(root)
            ),
            "rank": rank,
            "agop_seconds": clock.seconds["agop"],
        }
        return Metric(root, "diagonal" if root.dim() == 1 else "factored"), row


@dataclass(frozen=True)
class Agop(Learned):
    """``M ← G^power``, rescaled, for the average gradient outer product G of the predictor.

    Gradients are taken at training data (Radhakrishnan, Beaglehole, Pandit and Belkin, arXiv 2212.13881; of
    patches: Beaglehole, Radhakrishnan, Pandit and Belkin, arXiv 2309.00570).

    Args:
        power: exponent of the AGOP that becomes M, 1 for ``auto``; for patches 1 means ``T ∝ G^½``, 2 means
            ``T ∝ G``.
        normalization: of M: ``max`` divides by the largest entry, ``trace`` by the trace, ``none``.
        metric: ``full``, or ``diagonal``, which keeps the diagonal of G alone.
        centering: of the gradients: ``none``, ``output`` (its own mean for each output), ``pooled``.
        agop_samples: take the AGOP over so many training samples; None takes all.
        agop_draw: these ``random`` ones, anew each round without replacement, or the ``first``, as published
            for images.

    Raises:
        NfaError: an option is out of range.
    """

    name: ClassVar = "agop"
    usual_power: ClassVar = 1.0

    centering: str = "none"
    agop_samples: int | None = None
    agop_draw: str = "random"

    def __post_init__(self):
        super().__post_init__()
        settle(
            self,
            centering=choice("centering", self.centering, CENTERINGS),
            agop_samples=whole_or_none("agop_samples", self.agop_samples, 1),
            agop_draw=choice("agop_draw", self.agop_draw, DRAWS),
        )

    def learned(
        self, predictor: Predictor, index: int, solver: Solver, distances: Tensor | None
    ) -> KernelAgop:
        """The AGOP at these points."""
        points = self.points(len(predictor.centers), index, solver.seed, predictor.centers.device)
        return predictor.kernel.agop(predictor, points, self.centering, solver, distances)

    def points(self, n: int, index: int, seed: int, device: torch.device) -> Tensor | None:
        """The training samples, ascending, that the AGOP of a round is taken over; None for all."""
        if self.agop_samples is None or self.agop_samples >= n:
            return None
        if self.agop_draw == "first":
            return torch.arange(self.agop_samples, device=device)
        generator = torch.Generator().manual_seed(seed_for(seed, index))
        return torch.randperm(n, generator=generator)[: self.agop_samples].sort().values.to(device)


def _matrix(root: Tensor) -> Tensor:
    return root.diag() if root.dim() == 1 else root
