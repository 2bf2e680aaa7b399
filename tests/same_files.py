"""Whether two run folders hold the same files, byte by byte but for time, memory, and what names a run."""

import csv
import json
import re

import torch

ENDS = {"metrics.csv", "ansatz.csv", "features.safetensors", "report.html", "summary.json", "checkpoints"}
_OF_A_RUN = {"run", "files", "fit_seconds", "ansatz_seconds", "peak_memory_mb", "fit_memory_mb"}


def assert_same_files(mine, theirs):
    """Two folders whose names have the same length; ``theirs`` was never stopped."""
    names = [{path.name for path in folder.iterdir()} for folder in (mine, theirs)]
    assert names[0] == names[1]
    for name in ("ansatz.csv", "features.safetensors"):
        if (theirs / name).exists():
            assert (mine / name).read_bytes() == (theirs / name).read_bytes(), name
    assert metrics(mine) == metrics(theirs)
    assert summary(mine) == summary(theirs)
    assert report(mine) == report(theirs)
    assert_same_weights(mine, theirs)


def assert_same_weights(mine, theirs):
    a, b = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (mine, theirs))
    for part in ("state_dict", "trained_state_dict"):
        assert a.get(part, {}).keys() == b.get(part, {}).keys()
        assert all(torch.equal(value, b[part][name]) for name, value in a.get(part, {}).items())


def metrics(folder):
    with (folder / "metrics.csv").open(newline="") as handle:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(handle)]


def summary(folder):
    return {k: v for k, v in json.loads((folder / "summary.json").read_text()).items() if k not in _OF_A_RUN}


def report(folder):
    """The page without its times and sizes in memory, and without the names of run and folder."""
    found = json.loads((folder / "summary.json").read_text())
    times = r"\w+_seconds|\w+_memory_mb|seconds|training|measuring"
    page = re.sub(rf"<dt>({times})</dt><dd>[^<]*</dd>", "", (folder / "report.html").read_text())
    return page.replace(folder.name, "FOLDER").replace(found["run"], "RUN")
