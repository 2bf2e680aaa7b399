"""The bundled digits of scikit-learn: 1797 grey images of 8 x 8 pixels, no download."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from nfa.inputs.stratify import generator, stratified_order

TEST_FRACTION = 0.2


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Read 1438 training and 359 test samples; one fixed stratified fifth is the test set.

    Returns:
        (x, y) for training and (x, y) for test: x float32 (n, 1, 8, 8), ``value / 16``, since the 17 grey
        levels are exact there and would be rounded as uint8; y int64 (n,).
    """
    bunch = load_digits()
    x = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    y = torch.from_numpy(bunch.target).long()
    order = stratified_order(y, generator("digits"))
    n_test = round(TEST_FRACTION * len(y))
    train, test = order[n_test:], order[:n_test]
    return (x[train], y[train]), (x[test], y[test])
