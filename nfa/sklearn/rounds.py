"""How many rounds to learn for, by folds that are held out."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from nfa.errors import NfaError
from nfa.machines.loop import Steps
from nfa.machines.rfm import RFM
from nfa.machines.target_code import TargetCode

Folds = Iterable[tuple[np.ndarray, np.ndarray]]


def held_out_errors(
    machine: RFM, X: Tensor, Y: Tensor, targets: TargetCode, weights: Tensor | None, folds: Folds
) -> list[float]:
    """The error of each round on samples that it was not fitted to, by the criterion of the machine.

    A mean over the folds, each with the weight of what is held out. It ends with the first round that could
    not be fitted in one of them.

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
    totals, shares = [], []
    for fitted, held in folds:
        if not len(fitted) or not len(held):
            raise NfaError(
                "cv has a fold with nothing to fit to, or nothing that is held out: give fewer folds"
            )
        own, out = (torch.from_numpy(np.asarray(rows)).to(X.device) for rows in (fitted, held))
        own_weights, out_weights = (None if weights is None else weights[rows] for rows in (own, out))
        layer = targets.suited(machine.stack[0])
        steps = Steps(machine.stack, X[own], Y[own], targets, (X[out], Y[out]), weights=own_weights)
        share = len(held) if out_weights is None else float(out_weights.sum())
        totals.append(
            [
                share * layer.error(found.fit.val_scores, Y[out], out_weights)
                for found in steps.after()
                if found.failed is None
            ]
        )
        shares.append(share)
    if not totals:
        raise NfaError("cv has no fold: give two or more")
    common = min(map(len, totals))
    return [sum(total[index] for total in totals) / sum(shares) for index in range(common)]
