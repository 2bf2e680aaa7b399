"""Machines on points: kernels of an inner product, ``φ(xᵀ M z)``.

The quadratic kernel is that of the recursive feature machines that learn modular arithmetic (Mallinar,
Beaglehole, Zhu, Radhakrishnan, Pandit and Belkin, arXiv 2407.20199); with the linear one they are linear
predictors that learn which coordinates count (Radhakrishnan, Belkin and Drusvyatskiy, arXiv 2401.04553).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from nfa.checks import choice, settle
from nfa.errors import NfaError
from nfa.kernels import Metric, exact_products
from nfa.kernels.operator import wide_product
from nfa.machines.kernel_agop import KernelAgop, mean_to_remove, root_weights
from nfa.machines.points import Points
from nfa.machines.predictor import Predictor
from nfa.machines.system import DenseSystem, Solver, expect_matrix_room
from nfa.machines.tails import InnerSum

Function = Callable[[Tensor], Tensor]
FUNCTIONS: dict[str, tuple[Function, Function]] = {  # φ and its derivative
    "linear": (lambda s: s, torch.ones_like),
    "quadratic": (torch.square, lambda s: 2 * s),
}


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
    def value(self) -> Function:
        """φ."""
        return FUNCTIONS[self.kernel][0]

    @property
    def slope(self) -> Function:
        """φ'."""
        return FUNCTIONS[self.kernel][1]

    @exact_products()
    def matrix(self, U: Tensor, Z: Tensor) -> Tensor:
        """K (n, m) of points in coordinates of the metric."""
        return self.value(U @ Z.mT)

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
        expect_matrix_room("points", U, outputs, len(U) ** 2 * U.itemsize, budget)
        K = self.matrix(U, U)
        lap("kernel")
        yield DenseSystem(self, solver, K=K, budget=budget - K.nbytes)

    def product(self, predictor: Predictor, U: Tensor, memory: float | None) -> Tensor:
        """Some points at a time."""
        centers, a = predictor.centers, predictor.coefficients.to(U)
        rows = max(int(Solver(memory=memory).budget(U.device) / 2 / (len(centers) * U.itemsize)), 1)
        return torch.cat([wide_product(self.matrix(part, centers), a) for part in U.split(rows)])

    def agop(
        self,
        predictor: Predictor,
        points: Tensor | None,
        centering: str,
        solver: Solver,
        distances: Tensor | None = None,
    ) -> KernelAgop:
        """``G = Zᵀ [(SᵀS) ∘ (a aᵀ)] Z / m`` with ``S = φ'(U Zᵀ)`` for the points U among the centers Z.

        Where points are weighted, S is times the root of their weights.
        """
        Z, a = predictor.centers, predictor.coefficients.to(predictor.centers)
        S, weights = self.slope((Z if points is None else Z[points]) @ Z.mT), predictor.weights_at(points)
        D = S.new_ones(len(S)) if weights is None else root_weights(weights, float(weights.mean()), S)
        S = S * D[:, None]
        P = (S.mT @ S).mul_(a @ a.mT) / len(S)
        V = mean_to_remove((D @ S / len(S))[:, None] * a, centering)
        if V is not None:
            P.addmm_(V, V.mT, alpha=-1)
        G = Z.mT @ P @ Z
        if not bool(torch.isfinite(G).all()):
            raise NfaError("the AGOP is not finite: the coefficients are too large, raise the ridge")
        return KernelAgop("dual", (G + G.mT) / 2)
