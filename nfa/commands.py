"""Commands that are printed for a user to type."""

import os
import shutil
import sys
from pathlib import Path


def typed(program: str) -> str:
    """How to type a program of this environment: its name where the shell finds that one, else its path.

    Args:
        program: ``python``, ``wandb``, ….
    """
    here = Path(sys.executable).parent / program
    found = shutil.which(program)
    if not here.exists() or (found and Path(found).parent.resolve() == here.parent.resolve()):
        return program
    relative = os.path.relpath(here)
    return relative if not relative.startswith(os.pardir) else str(here)
