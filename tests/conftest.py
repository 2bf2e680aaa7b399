"""Run ``train.py`` in this process, as the command line would."""

import csv
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # the tests share two cores; must be set before torch is loaded

import pytest

from nfa.ansatz.row import read_csv

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = (
    "trainer.accelerator=cpu",
    "logger=csv",
    "data.n_train=300",
    "data.n_test=100",
    "trainer.max_epochs=2",
)
PROBE = ("callbacks.ansatz.samples=24", "callbacks.ansatz.nulls=4")


@dataclass
class Run:
    """What a run left behind."""

    folder: Path
    code: int
    out: str
    err: str

    @property
    def rows(self):
        return read_csv(self.folder / "ansatz.csv")

    @property
    def metrics(self):
        with (self.folder / "metrics.csv").open() as handle:
            return list(csv.DictReader(handle))

    @property
    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def weights(self):
        import torch

        return torch.load(self.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(autouse=True, scope="session")
def _state_folder(tmp_path_factory):
    """What the lab keeps of a user, the user of the tests keeps elsewhere."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Function ``run(*overrides, folder="run") -> Run``; works in an empty folder, on small digits."""
    import train  # here: tests of the library run where the lab's packages are not installed

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def start(*overrides, folder="run", small=True):
        measured = not any(o.startswith("callbacks=") for o in overrides)
        common = [*(SMALL if small else ()), *(PROBE if small and measured else ())]
        arguments = [*common, f"hydra.run.dir={folder}", *overrides]
        given = [a.split("=")[0] for a in overrides]
        arguments = [a for i, a in enumerate(arguments) if i >= len(common) or a.split("=")[0] not in given]
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        handler = signal.getsignal(signal.SIGINT)
        code = 0
        try:
            train.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning ignores further Ctrl-C after the first
        captured = capsys.readouterr()
        return Run(tmp_path / folder, code, captured.out, captured.err)

    return start
