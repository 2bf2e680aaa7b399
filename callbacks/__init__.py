"""Lightning callbacks and loggers: the ansatz monitor, the run folder, checkpoints, progress."""

from callbacks.ansatz import AnsatzMonitor
from callbacks.checkpoint import LastCheckpoint
from callbacks.progress import progress_options
from callbacks.run_folder import RunFolder

__all__ = ["AnsatzMonitor", "LastCheckpoint", "RunFolder", "progress_options"]
