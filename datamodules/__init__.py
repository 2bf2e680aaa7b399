"""Data sets that fit in memory, as Lightning datamodules that yield batches of whole tensors."""

from datamodules.base import Split, TensorBatches, TensorDataModule
from datamodules.digits import Digits
from datamodules.image_folder import ImageFolderData
from datamodules.local_signal import Bars, PastedDigits, Star
from datamodules.modular import Modular
from datamodules.synthetic import LowRank, SparseParity, Staircase
from datamodules.tabular import Tabular
from datamodules.torchvision_sets import TorchvisionSet
from datamodules.two_clusters import TwoClusters

__all__ = [
    "Bars",
    "Digits",
    "ImageFolderData",
    "LowRank",
    "Modular",
    "PastedDigits",
    "SparseParity",
    "Split",
    "Staircase",
    "Star",
    "Tabular",
    "TensorBatches",
    "TensorDataModule",
    "TorchvisionSet",
    "TwoClusters",
]
