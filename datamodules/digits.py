"""The bundled digits of scikit-learn: 1797 grey images of 8 x 8 pixels, no download."""

from datamodules.base import TensorDataModule
from datamodules.splits import Split
from nfa.inputs.digits import digits


class Digits(TensorDataModule):
    """Handwritten digits (1, 8, 8) in 10 classes; one fixed stratified fifth is the test set."""

    def load(self) -> tuple[Split, Split]:
        """All 1797 images, float32 in [0, 1], cut into 1438 for training and 359 for test."""
        train, test = digits()
        return Split(*train), Split(*test)
