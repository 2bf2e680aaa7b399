"""Lightning callbacks and loggers: the ansatz monitor, the run folder, checkpoints, epochs, progress."""

from callbacks.ansatz import AnsatzMonitor
from callbacks.catapults import Catapults
from callbacks.checkpoint import LastCheckpoint
from callbacks.epochs import EpochNumbers
from callbacks.feature_statistics import FeatureStatistics
from callbacks.progress import progress_options
from callbacks.run_folder import RunFolder

__all__ = [
    "AnsatzMonitor",
    "Catapults",
    "EpochNumbers",
    "FeatureStatistics",
    "LastCheckpoint",
    "RunFolder",
    "progress_options",
]
