"""The bundled digits of scikit-learn: 1797 grey images of 8 x 8 pixels, no download."""

import torch
from sklearn.datasets import load_digits

from datamodules.base import TensorDataModule
from datamodules.splits import Split, generator, stratified_order

TEST_FRACTION = 0.2


class Digits(TensorDataModule):
    """Handwritten digits (1, 8, 8) in 10 classes; one fixed stratified fifth is the test set for every seed.

    Pixels are float32, ``value / 16``: the 17 grey levels are exact there and would be rounded as uint8.
    """

    def load(self) -> tuple[Split, Split]:
        """All 1797 images, cut into 1438 for training and 359 for test."""
        bunch = load_digits()
        x = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
        digits = Split(x, torch.from_numpy(bunch.target).long())
        order = stratified_order(digits.y, generator("digits"))
        n_test = round(TEST_FRACTION * len(digits))
        return digits.take(order[n_test:]), digits.take(order[:n_test])
