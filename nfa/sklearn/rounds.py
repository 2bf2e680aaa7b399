"""What folds that are held out tell of the rounds."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.machines.loop import Steps
from nfa.machines.rfm import RFM
from nfa.machines.target_code import TargetCode

Folds = Iterable[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class HeldOut:
    """What the rounds of a machine predict of samples that it was not fitted to.

    Attributes:
        errors: of each round, by the criterion: a mean over the folds, each with the weight of what it holds
            out.
        scores: of each round, outputs (m, c) of all that was held out.
        samples: which ones these are (m,).
    """

    errors: list[float]
    scores: list[Tensor]
    samples: Tensor

    @property
    def best_round(self) -> int:
        """Of the least error, the first."""
        return int(np.argmin(self.errors))


def held_out(
    machine: RFM, X: Tensor, Y: Tensor, targets: TargetCode, weights: Tensor | None, folds: Folds
) -> HeldOut:
    """Fit to all folds but one, and predict that one, for each fold and with every round.

    It ends with the first round that could not be fitted in one of them.

    Args:
        machine: whose options are taken; it is not fitted. Several bandwidths or ridges it chooses among as
            it will when it is: by leaving one out.
        X: points (n, d).
        Y: their targets (n, c).
        targets: what kind these are.
        weights: (n,); None where all count the same.
        folds: indices of the samples that are fitted to, and of those that are held out.

    Raises:
        NfaError: there is no fold, or one that holds out nothing or all.
    """
    layer = targets.suited(machine.stack[0])
    samples: list[Tensor] = []
    shares: list[float] = []
    scores: list[list[Tensor]] = []
    for fitted, held in folds:
        if not len(fitted) or not len(held):
            raise NfaError("cv has a fold with nothing to fit to, or nothing held out: give fewer folds")
        own, out = (torch.from_numpy(np.asarray(rows)).to(X.device) for rows in (fitted, held))
        own_weights = None if weights is None else weights[own]
        steps = Steps(machine.stack, X[own], Y[own], targets, (X[out], Y[out]), weights=own_weights)
        fits = [found.fit for found in steps.after() if found.fit is not None]
        scores.append([fit.val_scores for fit in fits if fit.val_scores is not None])
        samples.append(out)
        shares.append(len(held) if weights is None else float(weights[out].sum()))
    if not samples:
        raise NfaError("cv has no fold: give two or more")
    rounds = list(zip(*scores, strict=False))  # as many as all folds have
    errors = [
        sum(
            share * layer.error(part, Y[out], None if weights is None else weights[out])
            for share, part, out in zip(shares, parts, samples, strict=True)
        )
        / sum(shares)
        for parts in rounds
    ]
    return HeldOut(errors, [torch.cat(parts) for parts in rounds], torch.cat(samples))
