"""What of the last sweep of this process did not finish."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Unfinished:
    """Folders of the jobs that did not finish, and how many of them failed in this process."""

    jobs: list[Path] = field(default_factory=list)
    failures: int = 0

    def forget(self) -> None:
        """A new sweep begins."""
        self.jobs, self.failures = [], 0

    def __bool__(self) -> bool:
        return bool(self.jobs or self.failures)


LAST_SWEEP = Unfinished()  # Hydra makes its callbacks itself, and keeps them to itself
