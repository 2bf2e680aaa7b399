"""Which of several tensors that a network returns is differentiated: one, all, or the one meant for it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.sweep.batches import OutputFn
from nfa.sweep.returned import listed, tensors, words

KNOWN = ("logits", "out")  # of the networks of transformers; of torchvision's for segmentation


@dataclass(frozen=True)
class Choice:
    """What the command line says on outputs.

    Attributes:
        index: position of one among the floating tensors.
        key: name of one: a key of a dictionary, an attribute, the place in a tuple, joined by dots.
        everything: all of them, side by side.
        known: finds the outputs of the networks of a zoo.
    """

    index: int | None = None
    key: str | None = None
    everything: bool = False
    known: OutputFn | None = None

    def __call__(self, raw: object) -> Tensor:
        """The outputs in what a network returned.

        Raises:
            NfaError: it returned several tensors and nothing says which is meant, or not the one asked for.
        """
        found = dict(tensors(raw))
        if not found:
            raise NfaError(f"the network returns no floating tensor: it returned {words(raw)}")
        if self.everything:
            return _side_by_side(found)
        if self.index is not None:
            if self.index >= len(found):
                raise NfaError(f"--output-index {self.index}: the network returns {listed(found)}")
            return list(found.values())[self.index]
        if self.key is not None:
            if self.key not in found:
                raise NfaError(f"--output-key {self.key}: the network returns {listed(found)}")
            return found[self.key]
        return self._unambiguous(raw, found)

    def _unambiguous(self, raw: object, found: Mapping[str, Tensor]) -> Tensor:
        if isinstance(raw, Tensor):
            return raw
        known = self.known(raw) if self.known else None
        if isinstance(known, Tensor) and known.is_floating_point():
            return known
        for key in KNOWN:
            if key in found:
                return found[key]
        if len(found) > 1:
            raise NfaError(
                f"the network returns {len(found)} tensors, {listed(found)}: choose one with --output-index "
                "N or --output-key NAME, or measure them together with --outputs all"
            )
        return next(iter(found.values()))


def _side_by_side(found: Mapping[str, Tensor]) -> Tensor:
    """All tensors as (samples, k)."""
    samples = {len(t) if t.dim() else 0 for t in found.values()}
    if len(samples) > 1 or 0 in samples:
        raise NfaError(
            f"--outputs all: expected tensors whose first dimension counts samples, the network returns "
            f"{listed(found)}: choose one with --output-index N or --output-key NAME"
        )
    return torch.cat([t.flatten(1) if t.dim() > 1 else t[:, None] for t in found.values()], 1)
