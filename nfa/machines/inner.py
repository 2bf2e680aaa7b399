"""Machines on points: kernels of an inner product, ``φ(xᵀ M z)``.

The quadratic kernel is that of the recursive feature machines that learn modular arithmetic (Mallinar,
Beaglehole, Zhu, Radhakrishnan, Pandit and Belkin, arXiv 2407.20199); with the linear one they are linear
predictors that learn which coordinates count (Radhakrishnan, Belkin and Drusvyatskiy, arXiv 2401.04553).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nfa.checks import choice, settle
from nfa.errors import NfaError
from nfa.kernels import Metric, exact_products
from nfa.kernels.distances import tile_entries
from nfa.kernels.halving import Halving, needs
from nfa.kernels.operator import wide_product
from nfa.machines.inner_functions import CLASS_NUMBERS, FUNCTIONS, InnerFunction
from nfa.machines.kernel_agop import KernelAgop
from nfa.machines.points import Points
from nfa.machines.predictor import Predictor
from nfa.machines.system import DenseSystem, Solver, expect_matrix_room
from nfa.machines.tails import InnerSum


@dataclass(frozen=True)
class InnerProduct(Points):
    """``φ(⟨Wx, Wz⟩)`` of points (n, d).

    Args:
        kernel: ``linear`` or ``quadratic``.

    Raises:
        NfaError: another one.
    """

    kernel: str = "quadratic"

    tail: ClassVar = InnerSum

    def __post_init__(self):
        settle(self, kernel=choice("kernel", self.kernel, tuple(FUNCTIONS)))

    @property
    def options(self) -> dict[str, Any]:
        """The name."""
        return {"kernel": self.kernel}

    @property
    def function(self) -> InnerFunction:
        """φ."""
        return FUNCTIONS[self.kernel]

    @exact_products()
    def matrix(self, U: Tensor, Z: Tensor) -> Tensor:
        """K (n, m) of points in coordinates of the metric."""
        return self.function.value(U @ Z.mT)

    def gram(self, U: Tensor) -> Tensor:
        """Of all inner products."""
        return self.matrix(U, U)

    # ---- fits ----------------------------------------------------------------------------------------------

    def systems(
        self,
        metric: Metric,
        U: Tensor,
        outputs: int,
        solver: Solver,
        lap: Callable[[str], None],
        progress: Callable[..., None] | None,
    ) -> Iterator[DenseSystem]:
        """One, with the whole kernel matrix as it is."""
        budget = solver.budget(U.device)
        need = len(U) ** 2 * U.itemsize
        expect_matrix_room("points", U, outputs, need, budget)
        with needs(need, f"the kernel matrix of {len(U)} points", "give fewer, or another device", U.device):
            K = self._whole(U)
        lap("kernel")
        yield DenseSystem(self, solver, K=K, budget=budget - K.nbytes)

    def _whole(self, U: Tensor) -> Tensor:
        """K (n, n), some rows at a time: what comes before φ is not held beside it."""
        K = U.new_empty(len(U), len(U))

        def work(rows: slice) -> None:
            K[rows] = self.matrix(U[rows], U)

        Halving(U.device).rows(work, len(U), max(8 * tile_entries(U.device) // len(U), 1))
        return K

    def product(self, predictor: Predictor, U: Tensor, memory: float | None) -> Tensor:
        """Some points at a time."""
        centers, a = predictor.centers, predictor.coefficients.to(U)
        rows = max(int(Solver(memory=memory).budget(U.device) / 2 / (len(centers) * U.itemsize)), 1)
        product = a.new_empty(len(U), a.shape[1])

        def work(part: slice) -> None:
            product[part] = wide_product(self.matrix(U[part], centers), a)

        Halving(U.device).rows(work, len(U), max(min(rows, len(U)), 1))
        return product

    def agop(
        self,
        predictor: Predictor,
        points: Tensor | None,
        centering: str,
        solver: Solver,
        distances: Tensor | None = None,
    ) -> KernelAgop:
        """In float64: coefficients are large, and cancel in the sums that gradients depend on."""
        with self._sums(predictor, "AGOP"):
            Z, a = predictor.centers.double(), predictor.coefficients.double()
            U, weights = Z if points is None else Z[points], predictor.weights_at(points)
            share = U.new_full((len(U),), 1 / len(U)) if weights is None else weights.to(U) / weights.sum()
            return self._finite(self.function.agop(Z, a, U, share, centering))

    def fact(self, predictor: Predictor, solver: Solver) -> KernelAgop:
        """``FACT M``, which is ``Zᵀ [(a aᵀ) ∘ φ'(Z Zᵀ)] Z / n`` in these coordinates."""
        n = len(predictor.centers) if predictor.weights is None else float(predictor.weights.sum())
        with self._sums(predictor, "FACT"):
            found = self.function.fact(predictor.centers.double(), predictor.coefficients.double())
            return self._finite(KernelAgop("fact", found / n))

    @staticmethod
    def _sums(predictor: Predictor, name: str) -> AbstractContextManager[None]:
        """Says what they take where they do not fit: centers and their products in float64."""
        n, k = predictor.centers.shape
        number = 8 * (2 * n * k + 4 * k * k + CLASS_NUMBERS)
        what = f"the {name} of {n} points × {k} in float64"
        return needs(number, what, "give fewer of either, or another device", predictor.centers.device)

    @staticmethod
    def _finite(found: KernelAgop) -> KernelAgop:
        if not bool(torch.isfinite(found.dense()).all()):
            raise NfaError("what is learned is not finite: the coefficients are too large, raise the ridge")
        return found
