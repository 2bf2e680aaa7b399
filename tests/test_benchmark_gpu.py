"""benchmarks/gpu: it imports and runs with torch and the library alone; what is cut short is kept."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import benchmarks.gpu as benchmark
from benchmarks.gpu import networks, parts
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import Part
from benchmarks.gpu.round_trips import counted

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
ABSENT = (
    "hydra",
    "omegaconf",
    "wandb",
    "pytorch_lightning",
    "lightning",
    "torchmetrics",
    "torchvision",
    "xrfm",
)
BARE = f"""
import sys

class Installed:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in {ABSENT}
        return None if absent else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Installed(finder) for finder in sys.meta_path]
"""


def test_it_imports_with_torch_and_the_library_alone():
    code = BARE + "import benchmarks.gpu.__main__"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_whole_runs_with_torch_and_the_library_alone(tmp_path):
    out = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--scale", "0.001", "--untimed", "--out", str(out)]
    code = BARE + f"from benchmarks.gpu.__main__ import main; sys.exit(main({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    told = json.loads(out.read_text())["parts"]
    assert list(told) == [part.name for part in benchmark.PARTS]
    assert told.pop("lab")["ended"].startswith("skipped: hydra, pytorch_lightning, torchvision")
    assert {part["ended"] for part in told.values()} == {"done"}
    assert "xrfm is not installed" in told["rfm"]["rows"][-1]["what"]


def test_a_part(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert main(["--device", "cpu", "--scale", "0.001", "--only", "rfm", "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    assert list(told["parts"]) == ["floors", "rfm"]
    assert told["card"] == "no card: CPU"
    assert told["versions"]["torch"] == torch.__version__
    kernels = [row for row in told["parts"]["rfm"]["rows"] if row["what"] == "  kernel"]
    assert all(row["over_floor"] == pytest.approx(row["seconds"] / row["floor"]) for row in kernels)
    assert "RFM, 100 × 64 → 10" in capsys.readouterr().out


def test_the_budgets_leave_the_run_its_eight_minutes():
    assert sum(part.seconds for part in benchmark.PARTS) <= 8 * 60


def run(tmp_path, *some, seconds=60.0):
    out = tmp_path / "found.json"
    told = parts.run(list(some), CPU, 1.0, seconds, out)
    assert json.loads(out.read_text()) == told
    return told["parts"]


def test_what_a_part_had_is_kept_when_it_is_cut(tmp_path):
    def endless(bench):
        bench.row("first", number=1.5)
        try:
            while True:
                time.sleep(0.01)
        except Exception:  # the end of its time is none of its errors
            bench.row("caught")

    found = run(tmp_path, Part("endless", 1.2, endless), Part("next", 9, lambda bench: bench.row("second")))
    assert found["endless"]["rows"] == [{"what": "first", "number": 1.5}]
    assert found["endless"]["ended"].startswith("cut")
    assert found["next"]["ended"] == "done"


def test_an_end_that_is_lost_comes_again(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "AGAIN", 0.1)
    lost = []

    def deaf(bench):
        while True:
            try:
                time.sleep(0.01)
            except parts.OutOfTime:  # as a finalizer does
                if lost:
                    raise
                lost.append(1)

    assert run(tmp_path, Part("deaf", 1.1, deaf))["deaf"]["ended"].startswith("cut")
    assert lost


def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path):
    def failing(bench):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    found = run(tmp_path, Part("failing", 5, failing), Part("next", 5, lambda bench: None))
    assert found["failing"]["ended"] == "failed: OutOfMemoryError: CUDA out of memory. Tried to allocate"
    assert found["next"]["ended"] == "done"


def test_parts_without_time_or_packages_are_left_out(tmp_path):
    needy = Part("needy", 5, lambda bench: None, needs=("torch", "no_such_package"))
    assert run(tmp_path, needy)["needy"]["ended"] == "skipped: no_such_package not installed"
    assert run(tmp_path, Part("late", 5, lambda bench: None), seconds=0.5)["late"]["ended"].startswith(
        "skipped"
    )


def test_scale_and_arguments_are_checked(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "cpu", "--scale", "2"])
    assert "--scale must be above 0 and at most 1, got 2.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "parameters", "maps"),
    [
        (networks.resnet50, 25_557_032, 54),
        (lambda: networks.VisionTransformer(224), 86_567_656, 74),
        (networks.resnet18, 11_173_962, 21),
    ],
    ids=["ResNet-50", "ViT-B/16", "ResNet-18"],
)
def test_networks_are_the_published_ones(make, parameters, maps):
    from nfa.layers.maps import find_maps

    with torch.device("meta"):
        net = make()
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(find_maps(net)[0]) == maps


def test_round_trips_are_counted():
    a = torch.randn(3)
    with counted(CPU) as told:
        float(a[0]), bool(torch.equal(a, a)), a.nonzero()
    assert told.operations == 3
