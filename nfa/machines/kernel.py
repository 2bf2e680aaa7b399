"""What a machine asks of its kernel: `Radial`, `InnerProduct` and `Patches` answer.

A kernel is a function of two inputs seen through a metric, ``k(W p(x), W p(z))`` with ``WᵀW = M``; the metric
holds ``F = Wᵀ``. A new one is a class with the methods here; tests/nfa/machines/conformance.py lets it in.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor

from nfa.kernels import Metric
from nfa.machines.kernel_agop import KernelAgop
from nfa.machines.maps import FeatureMap, PatchMap
from nfa.machines.normalization import factored_root
from nfa.machines.predictor import Predictor
from nfa.machines.stages import Stage
from nfa.machines.system import Solver, System
from nfa.machines.tails import KernelSum


class Kernel(ABC):
    """Coordinates, systems, products, gradients and modules of a kernel.

    Attributes:
        noun: what inputs are called in messages.
        tail: class of the module behind the feature map; see `nfa.machines.tails`.
        centred: whether the mean of the training data is taken off inputs before the metric.
        weighs: whether training data may count more or less than others.
        tells: what a progress line tells within a round: ``solving`` or ``kernel``.
    """

    noun: ClassVar[str] = "points"
    tail: ClassVar[type[KernelSum]]
    centred: ClassVar[bool] = False
    weighs: ClassVar[bool] = False
    tells: ClassVar[str] = "solving"

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Its own, as a machine takes them: plain values."""

    @property
    def chooses(self) -> bool:
        """Whether validation data are needed to choose among several of these."""
        return False

    # ---- inputs --------------------------------------------------------------------------------------------

    @abstractmethod
    def checked(self, X: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Inputs (n, …), detached, known to be finite.

        Raises:
            NfaError: something else, or inputs of another shape than those of the fit.
        """

    @abstractmethod
    def width(self, shape: Sequence[int]) -> int:
        """d, what W acts on, for inputs of this shape."""

    @abstractmethod
    def input_shape(self, predictor: Predictor) -> tuple[int, ...]:
        """Of one input of a predictor."""

    @abstractmethod
    def coordinates(self, metric: Metric, X: Tensor) -> Tensor:
        """Inputs, less the mean where that is taken off, in coordinates of the metric: equal ones alike."""

    def images(self, metric: Metric, X: Tensor) -> Tensor:
        """`coordinates` of training data, in one product where that is faster."""
        return self.coordinates(metric, X)

    # ---- fits ----------------------------------------------------------------------------------------------

    @abstractmethod
    def systems(
        self,
        metric: Metric,
        U: Tensor,
        outputs: int,
        solver: Solver,
        lap: Callable[[str], None],
        progress: Callable[..., None] | None,
    ) -> Iterator[System]:
        """The systems to choose from, one for each bandwidth.

        Args:
            metric: M.
            U: training data in its coordinates.
            outputs: columns of the targets.
            solver: its limits.
            lap: called with the name of a phase that ends.
            progress: report of what takes long.
        """

    @abstractmethod
    def product(self, predictor: Predictor, U: Tensor, memory: float | None) -> Tensor:
        """``Σ_j a_j k(u, u_j)`` (m, c) for inputs in coordinates of the metric."""

    @abstractmethod
    def agop(
        self,
        predictor: Predictor,
        points: Tensor | None,
        centering: str,
        solver: Solver,
        distances: Tensor | None = None,
    ) -> KernelAgop:
        """Mean gradient outer product of a predictor over its centers, or some of them (m,).

        Distances between the centers, where they are given, are overwritten.
        """

    def root(self, agop: KernelAgop, old: Metric, power: float, normalization: str) -> tuple[Tensor, int]:
        """F (d, k) with ``F Fᵀ = G^power``, rescaled, and its rank, for G in coordinates of the old metric.

        Raises:
            NfaError: G is zero.
        """
        F = factored_root(old.times(agop.root()), power, normalization)
        return F, F.shape[1]

    def told_of(self, agop: KernelAgop, predictor: Predictor) -> dict[str, Any]:
        """What a history tells of how an AGOP was found."""
        return {}

    # ---- modules -------------------------------------------------------------------------------------------

    @abstractmethod
    def feature_map(self, shape: Sequence[int]) -> FeatureMap | PatchMap:
        """W as a module whose ``weight`` an audit measures; at first the identity."""

    def run(self, maps: Callable[[Tensor], Tensor], tail: KernelSum, x: Tensor) -> Tensor:
        """Outputs (n, c) by way of a feature map and a tail."""
        return tail(maps(x))

    @abstractmethod
    def stage(self, shape: Sequence[int], lift: Any, unit_norm: bool, seed: int) -> Stage:
        """A layer of a deep machine, with what it hands on; see `nfa.machines.stages`."""

    def shape_behind(self, shape: Sequence[int], lift: Any) -> tuple[int, ...]:
        """Of what a layer hands on."""
        return lift.shape(shape)

    @abstractmethod
    def check_shape(self, shape: Sequence[int], index: int) -> None:
        """Refuse inputs of layer ``index`` that are smaller than what the kernel sees."""

    @abstractmethod
    def arranged(self, x: Tensor) -> Tensor:
        """Inputs (n, …) of a network in the shape that the kernel takes."""

    # ---- files ---------------------------------------------------------------------------------------------

    @abstractmethod
    def written(self, predictor: Predictor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values of a predictor."""

    @abstractmethod
    def expect_held(self, predictor: Predictor, stage: Stage) -> None:
        """Refuse the tensors of a predictor that do not belong to a layer of a network, or together.

        Raises:
            NfaError: a size is another.
        """

    @abstractmethod
    def read(self, tensors: dict[str, Tensor], state: dict[str, Any], outputs: int | None) -> Predictor:
        """The predictor that was written.

        Raises:
            NfaError: what is there does not belong together.
        """
