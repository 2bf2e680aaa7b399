"""The ``nfa`` command: what it writes, what it refuses, and how it is interrupted."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import nfa
from nfa.ansatz.row import AUDIT_COLUMNS, read_csv
from nfa.command.cli import main
from nfa.command.console import clock, parse_size
from tests.waiting import HANGS

ROOT = Path(__file__).parents[3]

NETS = '''
import torch
from torch import nn

class Small(nn.Sequential):
    def __init__(self, outputs=3):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, outputs),
        )

def small():
    return Small()

def wide():
    return Small(200)

def without_maps():
    return nn.ReLU()

class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.ones(len(x), 4)).tanh()

def half():
    return Small().half()

def complex_valued():
    return nn.Sequential(nn.Flatten(), nn.Linear(432, 3).to(torch.complex64))

def quantised():
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear})

def grey():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 2))

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(20, 6), nn.Linear(6, 8), nn.Linear(8, 20)

    def forward(self, input_ids, attention_mask=None):
        return self.head(self.body(self.embed(input_ids)).tanh())
'''  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "cli_nets.py").write_text(NETS)
    generator = torch.Generator().manual_seed(0)
    for folder, channels in (("photos", 3), ("greys", 1)):
        for label in ("cat", "dog"):
            path = tmp_path / folder / label
            path.mkdir(parents=True)
            for i in range(10):
                pixels = torch.randint(0, 256, (12, 12, channels), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.squeeze(-1).numpy()).save(path / f"{i}.png")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("cli_nets", None)


PLAIN = ("--mean", "0.5", "--std", "0.25")


def audit(*arguments, spec="cli_nets:small", data="photos", out="out"):
    return main(["audit", spec, "--data", data, "--out", out, *arguments])


def rows_of(folder="out"):
    return {row.layer: row for row in read_csv(Path(folder) / "audit.csv")}


def test_folder_of_an_audit(place, capsys):
    assert audit(*PLAIN, "--exact", "--power", "1") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["audit.csv", "audit.html", "audit.json"]
    with open("out/audit.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == AUDIT_COLUMNS
    content = json.loads(Path("out/audit.json").read_text())
    meta = content["meta"]
    assert meta["samples"] == 20
    assert meta["mode"] == "exact"
    assert meta["versions"]["torch"] == torch.__version__
    assert {"command", "seed", "sweep_seconds", "statistics_seconds", "covered"} <= set(meta)
    assert [row["verdict"] for row in content["rows"]][-1] == "trivial"
    printed = capsys.readouterr().out
    assert "alignment" in printed
    assert "Covered: 100.0 %" in printed
    assert "out/audit.html" in printed


def test_numbers_are_those_of_the_library(place):
    from nfa.inputs import load_inputs
    from nfa.inputs.preprocessing import Preprocessing
    from nfa.zoo import load

    audit(*PLAIN, "--exact", "--seed", "3")
    inputs = load_inputs("photos", preprocessing=Preprocessing((0.5,), (0.25,)), seed=3, batch_size=2)
    report = nfa.audit(load("cli_nets:small", seed=3).model, inputs, seed=3)
    for row in report.rows:
        mine = rows_of()[row.layer]
        assert mine.cosine == pytest.approx(row.cosine, rel=1e-5)
        assert mine.null_mean == pytest.approx(row.null_mean, rel=1e-5)
        assert mine.stderr == pytest.approx(row.stderr, rel=1e-3, nan_ok=True)


def test_twin_gives_initial_values_but_no_difference_to_them(place):
    torch.manual_seed(5)
    from cli_nets import Small

    torch.save({"state_dict": {f"module.{k}": v for k, v in Small().state_dict().items()}}, "w.pth")
    assert audit(*PLAIN, "--exact", "--weights", "w.pth", "--init") == 0
    row = rows_of()["3"]
    assert row.init_cosine == row.init_cosine != row.cosine
    assert row.init_nfm_cosine != row.init_nfm_cosine  # the twin's weights are not the ones it began with
    assert row.cnfc != row.cnfc


def test_probes_tolerance_and_head(place):
    assert audit(*PLAIN, "--probes", "3", spec="cli_nets:wide") == 0
    assert json.loads(Path("out/audit.json").read_text())["meta"]["mode"] == "3 probes"
    assert audit(*PLAIN, "--exact", spec="cli_nets:wide") == 0
    exact = json.loads(Path("out/audit.json").read_text())["meta"]
    assert exact["mode"] == "exact through the head: 48 backwards for 200 outputs"
    truth = rows_of()
    assert audit(*PLAIN, "--tolerance", "0.05", spec="cli_nets:wide") == 0
    for name, row in rows_of().items():
        assert row.cosine == pytest.approx(truth[name].cosine, abs=0.2)


def test_layers_and_pictures(place):
    assert audit(*PLAIN, "--layers", "0", "7", "--pictures", "1") == 0
    assert list(rows_of()) == ["0", "7"]
    assert Path("out/audit.html").read_text().count('<section class="layer"') == 1


def test_ready_inputs_and_tokens(place):
    import numpy

    numpy.savez("x.npz", x=numpy.random.default_rng(0).normal(size=(8, 3, 12, 12)))
    assert audit(data="x.npz") == 0
    ids = numpy.random.default_rng(0).integers(0, 20, (8, 5))
    numpy.savez("ids.npz", input_ids=ids, attention_mask=numpy.ones((8, 5), dtype=numpy.int64))
    assert audit(spec="cli_nets:Tokens", data="ids.npz") == 0
    rows = rows_of()
    assert rows["embed"].status.startswith("skipped: its input is an index")
    assert rows["head"].status == "trivial"


def test_digits_and_a_run_of_the_lab(place, run, monkeypatch):
    done = run("model=mlp", "data=digits", "model.width=16", "trainer.max_epochs=2")
    assert done.code == 0
    monkeypatch.chdir(ROOT)
    out = str(place / "lab")
    assert audit(spec=f"file:{done.folder}", data="digits", out=out) == 0
    rows = rows_of(out)
    trained = {row.layer: row for row in done.rows if row.epoch == 2}
    for name, row in rows.items():
        assert row.init_nfm_cosine == pytest.approx(trained[name].init_nfm_cosine, abs=1e-5)
        assert row.alignment == pytest.approx(trained[name].alignment, abs=0.2, nan_ok=True)


def test_list(place, capsys):
    pytest.importorskip("torchvision")
    assert main(["list", "torchvision:resnet*"]) == 0
    assert "torchvision:resnet18@IMAGENET1K_V1" in capsys.readouterr().out.split()
    with pytest.raises(SystemExit) as status:
        main(["list", "nothing-like-this"])
    assert status.value.code == 2


def test_wandb(place, monkeypatch, capsys):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert audit(*PLAIN, "--wandb", "my-project") == 0
    assert "wandb sync" in capsys.readouterr().out
    assert list(Path("out").glob("wandb/offline-run-*"))


def truncated():
    torch.save({"a": torch.zeros(100)}, "whole.pth")
    Path("w.pth").write_bytes(Path("whole.pth").read_bytes()[:200])


def of_another_net():
    torch.save(nn.Linear(3, 4).state_dict(), "w.pth")


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("broken-in",))


def malicious():
    torch.save({"state_dict": Evil()}, "w.pth")


def complex_weights():
    from cli_nets import Small

    torch.save({k: v.to(torch.complex64) for k, v in Small().state_dict().items()}, "w.pth")


MISTAKES = {
    "missing weights": ({}, ["--weights", "nowhere.pth"], "no file nowhere.pth"),
    "truncated weights": ({"make": truncated}, ["--weights", "w.pth"], "w.pth is cut off or damaged"),
    "weights of another net": ({"make": of_another_net}, ["--weights", "w.pth"], "does not fit the network"),
    "malicious weights": ({"make": malicious}, ["--weights", "w.pth"], "would run code"),
    "complex weights file": ({"make": complex_weights}, ["--weights", "w.pth"], "complex"),
    "folder without images": ({"data": "empty"}, [], "empty"),
    "no such folder": ({"data": "photoz"}, [], "photos"),
    "grey images": ({"data": "greys"}, [], "grey"),
    "colour into grey": ({"spec": "cli_nets:grey"}, [], "RGB"),
    "no linear map": ({"spec": "cli_nets:without_maps"}, [], "no linear map"),
    "blind": ({"spec": "cli_nets:Blind"}, [], "does not depend on its input"),
    "half": ({"spec": "cli_nets:half"}, [], "float16"),
    "complex": ({"spec": "cli_nets:complex_valued"}, [], ""),
    "quantised": ({"spec": "cli_nets:quantised"}, [], "quantised"),
    "no such layer": ({}, ["--layers", "conv9"], "matches none of the 3 weights"),
    "no such function": ({"spec": "cli_nets:smal"}, [], "small"),
    "no such net": ({"spec": "torchvision:resnet81@none"}, [], "resnet"),
    "no scheme": ({"spec": "resnet18"}, [], "torchvision:resnet18"),
    "wrong size": ({}, ["--size", "2"], "cannot be called"),
    "no preprocessing": ({"plain": False}, [], "--mean"),
    "bad number": ({}, ["--power", "-1"], "expected a positive number"),
    "bad memory": ({}, ["--memory", "much"], "expected a size like 2GB"),
    "little memory": ({}, ["--memory", "1KB"], "raise the memory"),
    "two ways": ({}, ["--exact", "--probes", "3"], "not allowed with"),
    "no such device": ({}, ["--device", "abacus"], "--device abacus cannot be used"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*quantiz.*:UserWarning")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence_and_write_nothing(place, capsys, mistake):
    given, options, words = MISTAKES[mistake]
    given = dict(given)
    if make := given.pop("make", None):
        make()
    plain = PLAIN if given.pop("plain", True) else ()
    with pytest.raises(SystemExit) as status:
        audit(*plain, *options, **given)
    assert status.value.code == 2
    captured = capsys.readouterr()
    error = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert words in error[0], error[0]
    assert "Traceback" not in captured.err
    assert not Path("out").exists() or not any(Path("out").iterdir())
    assert not Path("broken-in").exists()


def test_earlier_results_survive_a_mistake(place):
    assert audit(*PLAIN) == 0
    before = Path("out/audit.csv").read_text()
    with pytest.raises(SystemExit):
        audit(*PLAIN, "--layers", "nothing")
    assert Path("out/audit.csv").read_text() == before


def test_output_that_cannot_be_written(place, capsys):
    Path("file").write_text("")
    with pytest.raises(SystemExit) as status:
        audit(*PLAIN, out="file/out")
    assert status.value.code == 2
    assert "cannot write to --out" in capsys.readouterr().err


STOPPED = """
class Stopped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.calls = Small(), 0

    def forward(self, x):
        import os, signal
        self.calls += 1
        if self.calls == 12:  # Ctrl-C, some samples later
            os.kill(os.getpid(), signal.SIGINT)
        return self.net(x)
"""


def test_interrupt_writes_what_was_seen_marked_partial(place):
    (place / "cli_nets.py").write_text(NETS + STOPPED)
    command = [sys.executable, "-m", "nfa", "audit", "cli_nets:Stopped", "--data", "photos", "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--exact", "--batch-size", "1", *PLAIN],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 130, err
    meta = json.loads(Path("out/audit.json").read_text())["meta"]
    assert meta["stopped"] is True
    assert 0 < meta["samples"] < 20
    assert f"Partial: stopped after {meta['samples']} of 20 samples." in out
    assert "Partial: " in Path("out/audit.html").read_text()
    assert "Traceback" not in err


def test_library_half_needs_neither_lab_nor_zoo():
    """``import nfa`` and its command line load torch and nothing beyond."""
    code = (
        "import sys, nfa, nfa.command.cli, nfa.command.audit_command, nfa.zoo, nfa.inputs, nfa.page\n"
        "heavy = {'pytorch_lightning', 'hydra', 'wandb', 'torchvision', 'timm', 'transformers', 'sklearn',"
        " 'PIL', 'models', 'datamodules', 'callbacks'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_sizes_and_clocks():
    assert (parse_size("2GB"), parse_size("500 MB"), parse_size("1.5"), parse_size("3GiB")) == (
        2e9,
        5e8,
        1.5e9,
        3e9,
    )
    for wrong in ("", "much", "-1GB", "0"):
        with pytest.raises(ValueError):
            parse_size(wrong)
    assert (clock(5), clock(75), clock(3725)) == ("0:05", "1:15", "1:02:05")
