"""All outputs of a linear head from as many backwards as it has inputs.

With ``f = V h + b`` every map below sees ``Σ_k δ_k δ_kᵀ = Jᵀ VᵀV J``, J the Jacobian of the head's input h.
With ``VᵀV = Σ_i λ_i e_i e_iᵀ`` the same sum is ``Σ_i`` over backwards that start at h from ``√λ_i e_i``: at
most ``features`` of them instead of one an output, and the leading ones carry nearly everything.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.layers.maps import LinearMap
from nfa.sweep.under_way import Call


@dataclass(frozen=True)
class Head:
    """The last linear map of a network, whose output is the network's.

    Attributes:
        lmap: the map.
        directions: (r, features) rows ``√λ_i e_i``, strongest first.
        outputs: rows of V.
        neglected: share of ``Σ λ_i`` that the directions leave out.
    """

    lmap: LinearMap
    directions: Tensor
    outputs: int
    neglected: float

    def lines(self, h: Tensor) -> int:
        """Backwards for head inputs h (n, *positions, features)."""
        return h[0].numel() // h.shape[-1] * len(self.directions)

    def seeds(self, h: Tensor, lines: list[int]) -> Tensor:
        """What the backwards ``lines`` start from at h: (len(lines), *h.shape)."""
        seeds = h.new_zeros(len(lines), len(h), h[0].numel() // h.shape[-1], h.shape[-1])
        for i, line in enumerate(lines):
            position, direction = divmod(line, len(self.directions))
            seeds[i, :, position] = self.directions[direction].to(h)
        return seeds.reshape(len(lines), *h.shape)


def find_head(
    last: Call | None, raw: Tensor, outputs: int, neglect: float = 0.0, known: Head | None = None
) -> Head | None:
    """The head of a network, if its output is the very tensor that a linear layer returned and it saves work.

    Args:
        last: the last call of a linear layer in the forward pass.
        raw: the output of the network.
        outputs: scalar outputs a sample.
        neglect: greatest share of ``Σ λ_i`` to leave out.
        known: what was found for an earlier batch.
    """
    if last is None or last.output is not raw or not last.inputs.requires_grad:
        return None
    if not last.unchanged or last.inputs.dim() < 2:
        return None
    if last.lmap.out_features <= last.lmap.in_features and neglect == 0:
        return None
    head = known if known is not None and known.lmap is last.lmap else _decompose(last.lmap, neglect)
    return head if head.lines(last.inputs) < outputs else None


def _decompose(lmap: LinearMap, neglect: float) -> Head:
    V = lmap.weight()[0].double()
    values, vectors = torch.linalg.eigh(V.mT @ V)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    left = 1 - values.cumsum(0) / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    floor = max(V.shape) * torch.finfo(values.dtype).eps
    keep = max(int((values > floor * values[0]).sum()), 1)
    if neglect > 0:
        keep = min(keep, int((left > neglect).sum()) + 1)
    directions = (vectors[:, :keep] * values[:keep].sqrt()).mT
    full = keep == len(values) or bool(values[keep] <= floor * values[0])
    return Head(lmap, directions, len(V), 0.0 if full else max(float(left[keep - 1]), 0.0))
