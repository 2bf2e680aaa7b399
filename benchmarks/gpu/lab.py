"""Runs of the lab on a card: one training with a measurement each epoch, and what they leave behind."""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.parts import Bench

NEEDS = ("hydra", "pytorch_lightning", "torchvision", "sklearn")
ROOT = Path(__file__).parents[2]
MODELS = ("resnet", "rfm")


def measure(bench: Bench) -> None:
    trainer = "gpu" if bench.device.type == "cuda" else "cpu"
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            extra = [f"model.width={bench.width(64)}"] if model == "resnet" else []
            command = [
                sys.executable, "train.py", f"model={model}", f"trainer={trainer}", "logger=csv",
                f"hydra.run.dir={folder}", "data=digits", *extra, f"data.n_train={bench.size(1400, 100)}",
                f"data.n_test={bench.size(300, 50)}", "trainer.max_epochs=2",
            ]  # fmt: skip
            seconds, done = bench.timed(
                lambda command=command: subprocess.run(
                    command, cwd=ROOT, capture_output=True, text=True, check=False
                )
            )
            if done.returncode:
                bench.row(
                    f"train.py model={model}",
                    status=done.returncode,
                    said=(done.stderr or done.stdout)[-300:],
                )
                continue
            summary = json.loads((Path(folder) / "summary.json").read_text())
            with (Path(folder) / "ansatz.csv").open() as rows:
                measured = sum(1 for _ in csv.DictReader(rows))
        bench.row(
            f"train.py model={model} trainer={trainer}",
            seconds=seconds,
            fit_seconds=summary["fit_seconds"],
            accuracy=summary.get("test/accuracy"),
            rows=measured,
        )
