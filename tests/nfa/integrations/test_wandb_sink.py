"""An audit in a W&B run of its own: offline, silent, and with everything in it."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfa import NfaError
from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import AnsatzRow
from nfa.compare import Comparison, Run
from nfa.compare.comparison import Group
from nfa.compare.similarity import FeatureSpace, Member
from nfa.integrations.wandb_sink import has_account, log_audit, log_comparison
from tests.callbacks.offline_runs import leave_accounts, read

ROW = AnsatzRow("conv1", "conv2d", 27, 16, alignment=0.5, z=9.0, cosine=0.9)
ROWS = [
    ROW,
    replace(ROW, layer="head", status="trivial", cosine=1.0),
    replace(ROW, layer="rnn", status="skipped: fused"),
]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No account, no mode, and nothing of W&B outside ``tmp_path``."""
    leave_accounts(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_account_is_found_in_environment_or_netrc(alone, monkeypatch):
    assert not has_account()
    (alone / "netrc").write_text("machine api.wandb.ai login user password not-a-key\n")
    assert has_account()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_account()
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    assert has_account()


def test_audit_is_logged_offline_and_silently(alone, capfd):
    pytest.importorskip("wandb")
    files = [alone / "audit.csv", alone / "audit.html"]
    for file in files:
        file.write_text("content of " + file.name)
    noise = torch.randn(27, 27)
    pictures = [LayerPicture("conv1", nfm=noise, agop=noise, filters=torch.randn(16, 3, 3, 3))]
    meta = {"samples": 96, "versions": {"torch": torch.__version__}, "seconds": math.nan}
    folder, command = log_audit(
        "nfa", "resnet 50 / photos", ROWS, pictures, meta, files, directory=alone, group="my_sweep"
    )
    assert capfd.readouterr() == ("", "")
    assert command.endswith(f"wandb sync wandb/{folder.name}")
    assert folder.name.startswith("offline-run-")
    offline = read(folder)
    assert (offline.run.job_type, offline.run.run_group) == ("audit", "my_sweep")
    assert offline.config["samples"] == 96
    assert offline.config["seconds"] is None
    assert offline.summary["nfa/alignment/median"] == 0.5
    assert offline.summary["nfa/above_chance/all"] == 1
    assert not any("head" in name for name in offline.summary)
    (artifact,) = offline.artifacts["audit"]
    assert artifact.name == "audit-resnet-50-photos"
    assert {content.path for content in artifact.manifest.contents} == {"audit.csv", "audit.html"}
    media = folder / "files" / "media"
    assert {path.name.partition("_")[0] for path in media.rglob("*.png")} == {"matrices", "filters"}
    (table,) = media.rglob("*.table.json")
    assert [row[-1] for row in json.loads(table.read_text())["data"]] == ["above null", "trivial", "skipped"]
    (page,) = media.rglob("*.html")
    assert page.read_text() == "content of audit.html"


def compared():
    """Two runs each of a net and of a kernel machine, of which the second has learned nothing."""
    numbers = {"fit_seconds": 2.0, "fit_memory_mb": 100.0, "num_parameters": 5, "test/accuracy": 0.9}
    row = replace(ROW, epoch=2.0, null_mean=0.7)

    def run(model, seed, kind, **other):
        summary = {"model": model, "data": "digits", "seed": seed, "kind": kind, **numbers, **other}
        return Run(Path(f"{model}_{seed}"), summary, [], [row], {}, {})

    nets = Group("mlp", (run("mlp", 0, "net"), run("mlp", 1, "net", **{"test/accuracy": 0.7})))
    machines = Group("rfm", (run("rfm", 0, "kernel", fit_seconds=None), run("rfm", 1, "kernel")))
    members = [Member(g.label, r.replicate, is_flat=g is machines) for g in (nets, machines) for r in g.runs]
    cosine = torch.tensor([[1.0, 0.5, 0.2, 0.3], [0.5, 1, 0.4, 0.4], [0.2, 0.4, 1, 0.9], [0.3, 0.4, 0.9, 1]])
    alignment = torch.where(cosine > 0.45, cosine, math.nan)
    small = FeatureSpace("input AGOP", 64, members, cosine, cosine / 2, cosine / 10, alignment)
    large = replace(small, name="first layer, patches 1x3x3", members=members[:2])
    large = replace(
        large, **{k: getattr(large, k)[:2, :2] for k in ("cosine", "null_mean", "null_std", "alignment")}
    )
    return Comparison("digits", "test/accuracy", [nets, machines], [], [small, large])


def test_comparison_is_logged_with_tables_heatmaps_and_files(alone, capfd):
    pytest.importorskip("wandb")
    files = [alone / "comparison.csv", alone / "comparison.html"]
    for file in files:
        file.write_text("content of " + file.name)
    folder, command = log_comparison("nfa", "mlp, rfm", "my_sweep", compared(), files, directory=alone)
    assert capfd.readouterr() == ("", "")
    assert command.endswith(f"wandb sync wandb/{folder.name}")
    offline = read(folder)
    assert (offline.run.job_type, offline.run.run_group) == ("compare", "my_sweep")
    assert offline.run.display_name == "mlp, rfm"
    assert offline.config["runs"] == ["mlp_0", "mlp_1", "rfm_0", "rfm_1"]

    media = folder / "files" / "media"
    groups, similar = (json.loads(next(media.glob(f"table/comparison/{name}_*.json")).read_text())
                       for name in ("groups", "similarity"))  # fmt: skip
    net, machine = (dict(zip(groups["columns"], row, strict=True)) for row in groups["data"])
    assert (net["label"], net["kind"], net["runs"]) == ("mlp", "net", 2)
    assert (net["test/accuracy"], net["sd"]) == pytest.approx((0.8, math.sqrt(0.02)))
    expected = {"fit_seconds": 2, "fit_memory_mb": 100, "num_parameters": 5, "alignment": 0.5,
                "cosine": 0.9, "null_mean": 0.7, "layers_above_null": 1, "layers_with_z": 1}  # fmt: skip
    assert {name: machine[name] for name in expected} == pytest.approx(expected)

    pairs = {(space, a, b): values for space, a, b, *values in similar["data"]}
    assert set(pairs) == {
        ("input AGOP", "mlp", "mlp"),
        ("input AGOP", "mlp", "rfm"),
        ("input AGOP", "rfm", "rfm"),
        ("first layer, patches 1x3x3", "mlp", "mlp"),
    }
    assert pairs["input AGOP", "mlp", "rfm"][:3] == pytest.approx([0.35, 0.175, 0.035])  # of different seeds
    assert pairs["input AGOP", "mlp", "rfm"][3] is None  # undefined: no NaN, which would make it text
    assert pairs["input AGOP", "rfm", "rfm"][0] == pytest.approx(0.9)

    assert {"similarity/cosine", "similarity/alignment", "comparison"} <= offline.keys
    (captions,) = offline.column("similarity/cosine.captions")
    assert captions[0] == "input AGOP: mlp seed 0, mlp seed 1, rfm seed 0, rfm seed 1"
    assert captions[1] == "first layer, patches 1x3x3: mlp seed 0, mlp seed 1"
    (width,), (height,) = (
        offline.column("similarity/cosine.width"),
        offline.column("similarity/cosine.height"),
    )
    assert (width, height) == (256, 256)
    assert len(list(media.glob("images/similarity/*.png"))) == 4
    (page,) = media.rglob("*.html")
    assert page.read_text() == "content of comparison.html"
    (artifact,) = offline.artifacts["comparison"]
    assert {content.path for content in artifact.manifest.contents} == {"comparison.csv", "comparison.html"}


def test_mode_of_the_runs_is_that_of_their_comparison(alone, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder, command = log_comparison("nfa", "a", None, compared(), directory=alone, mode="offline")
    assert "wandb sync " in command
    assert read(folder).run.run_group == ""


def test_full_disk_is_a_warning(alone, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wandb, "Table", full)
    with pytest.warns(UserWarning, match=r"W&B run of the audit is not complete.*No space left"):
        folder, _ = log_audit("nfa", "a", [ROW], directory=alone)
    assert read(folder).summary["nfa/alignment/median"] == 0.5


def test_online_without_an_account_falls_back(alone, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.warns(UserWarning, match="no API key"):
        folder, command = log_audit("nfa", "a", [ROW], directory=alone)
    assert folder.is_dir()
    assert "wandb sync " in command


def test_disabled_logs_nothing(alone, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert log_audit("nfa", "a", [ROW], directory=alone)[1] == ""
    assert log_comparison("nfa", "a", None, compared(), directory=alone)[1] == ""
    assert not (alone / "wandb").exists()


def test_what_is_missing_is_named(alone, monkeypatch):
    with pytest.raises(NfaError, match=r"no such file: .*gone\.csv"):
        log_audit("nfa", "a", [ROW], files=["gone.csv"], directory=alone)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NfaError, match="pip install wandb"):
        log_audit("nfa", "a", [ROW], directory=alone)
