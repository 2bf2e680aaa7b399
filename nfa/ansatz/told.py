"""What is asked of C̃ as numbers, brought to the CPU at once: each move from a device waits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.ansatz.basis import Basis, Spectrum, basis_squares, traceless_part
from nfa.ansatz.forms import Form
from nfa.ansatz.group_sums import stacked


@dataclass(frozen=True)
class Told:
    """Of C̃ (g, r, r) on the range of W, float64 on the CPU.

    Attributes:
        diagonals: (g, r).
        powers: ``tr c′²`` and ``tr c′⁴`` of each group of the map, (2, g).
        sizes: Frobenius norms of C̃, and of it without a multiple of the identity, one for all groups; (2,).
        basis: how far C̃ is diagonal in the eigenbasis of WWᵀ.
        spectrum: gives the eigenvalues (g, k) that need not be zero, descending.
    """

    diagonals: Tensor
    powers: Tensor
    sizes: Tensor
    basis: Basis
    spectrum: Callable[[], Tensor]

    @classmethod
    def of(cls, C: Form, spectrum: Spectrum, values: Callable[[], Tensor]) -> "Told":
        """Of a sensitivity, seen from a weight with that spectrum; ``values`` gives its own."""
        diagonal, c = C.diagonal(), traceless_part(C, spectrum.keep)
        sizes = [C.norm(), C.traceless_norm(spectrum.keep), *basis_squares(spectrum, stacked([C]))]
        parts = [diagonal, c.power(2), c.power(4), *sizes]
        found = torch.cat([part.flatten() for part in parts]).cpu().split([part.numel() for part in parts])
        norm, traceless, square, above, room = torch.cat(found[3:]).tolist()
        basis = Basis(above, room) if max(square, 0.0) > (spectrum.noise * norm) ** 2 else Basis()
        ends = torch.tensor([norm, traceless], dtype=torch.float64)
        return cls(found[0].view(diagonal.shape), torch.stack(found[1:3]), ends, basis, values)

    def diagonal(self) -> Tensor:
        """As that of `Form`."""
        return self.diagonals

    def norm(self) -> Tensor:
        """As that of `Form`."""
        return self.sizes[0]

    def traceless_norm(self, keep: Tensor) -> Tensor:
        """As that of `Form`, for the directions that it was told for."""
        return self.sizes[1]
