"""Features by what a stationary point of a regularised loss makes of them, in the place of the AGOP."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nfa.errors import NfaError
from nfa.machines.kernel import Kernel
from nfa.machines.kernel_agop import KernelAgop
from nfa.machines.points import Points
from nfa.machines.predictor import Predictor
from nfa.machines.system import Solver
from nfa.machines.update import Learned


@dataclass(frozen=True)
class Fact(Learned):
    """``M ← (FACT FACTᵀ)^power``, rescaled, for what M is where a regularised predictor is stationary.

    ``FACT = 1/n Σ_i Σ_c a_ic ∂f_c(x_i) x_iᵀ``: at a stationary point of a loss with weight decay a linear
    layer has ``WᵀW = FACT`` (arXiv 2507.05644), and in kernel ridge regression ``y - f = ridge · a`` takes
    the place of the gradient of the loss. For kernels of inner products it is ``M ← (FACT M)^power``, which
    is semi-definite as it stands. Half the power, 1/4, no longer finds the support of a sparse parity.

    Args:
        power: exponent, 1/2 for ``auto``.
        normalization: of M: ``max`` divides by the largest entry, ``trace`` by the trace, ``none``.
        metric: ``full``, or ``diagonal``, which keeps the diagonal alone.

    Raises:
        NfaError: an option is out of range.
    """

    name: ClassVar = "fact"
    usual_power: ClassVar = 0.5
    without: ClassVar = {"centering": "none", "agop_samples": None}  # it is a sum over all of the data

    def check_kernel(self, kernel: Kernel) -> None:
        """Refuse kernels of patches, which have no such form."""
        if not isinstance(kernel, Points):
            raise NfaError("learn='fact' is for kernels of points: for those of patches choose 'agop'")

    def learned(
        self, predictor: Predictor, index: int, solver: Solver, distances: Tensor | None
    ) -> KernelAgop:
        """FACT FACTᵀ, or FACT M."""
        assert isinstance(predictor.kernel, Points)  # as it was checked
        return predictor.kernel.fact(predictor, solver)
