"""What of a checkpoint does not fit the run that goes on from it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nfa import NfaError

_OPTIMIZERS = Path(torch.optim.__file__).parent


@contextmanager
def restoring(checkpoint: str | None) -> Iterator[None]:
    """Context that says in one line what does not fit while a checkpoint is restored.

    Raises:
        NfaError: what the checkpoint holds is not what the trainer, its callbacks or the model saved.
    """
    try:
        yield
    except (NfaError, OSError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        restored = any("checkpoint_connector" in frame.filename for frame in frames)
        stepped = (
            _OPTIMIZERS in Path(frames[-1].filename).parents
        )  # with a state that is not of its parameters
        if checkpoint is None or not (restored or stepped):
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise NfaError(
            f"{checkpoint} does not fit this run ({type(error).__name__}: {reason}): go on with the options "
            "it was trained with, or start a new run"
        ) from error
