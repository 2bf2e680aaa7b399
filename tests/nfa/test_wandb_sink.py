"""An audit in a W&B run of its own: offline, silent, and with everything in it."""

import json
import math
import sys
import time
from dataclasses import replace

import pytest
import torch

from nfa import NfaError
from nfa.report import LayerPicture
from nfa.rows import AnsatzRow
from nfa.wandb_sink import has_account, log_audit, metrics_of

ROW = AnsatzRow("conv1", "conv2d", 27, 16, alignment=0.5, z=9.0, cosine=0.9)
ROWS = [
    ROW,
    replace(ROW, layer="head", status="trivial", cosine=1.0),
    replace(ROW, layer="rnn", status="skipped: fused"),
]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No account, no mode, and nothing of W&B outside ``tmp_path``."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_metrics_are_those_of_measured_layers():
    assert metrics_of(ROWS) == {"nfa/alignment/conv1": 0.5, "nfa/z/conv1": 9.0, "nfa/cosine/conv1": 0.9}


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
    folder, command = log_audit("nfa", "resnet 50 / photos", ROWS, pictures, meta, files, directory=alone)
    assert capfd.readouterr() == ("", "")
    assert command == f"wandb sync wandb/{folder.name}"
    assert folder.name.startswith("offline-run-")
    (log,) = folder.glob("run-*.wandb")
    deadline = time.monotonic() + 20
    while log.stat().st_size < 100 and time.monotonic() < deadline:  # written by W&B's own process
        time.sleep(0.05)
    content = log.read_bytes()
    for part in (b"nfa/alignment/conv1", b"audit-resnet-50-photos", b"audit.html", b"above null", b"samples"):
        assert part in content or any(part in f.read_bytes() for f in folder.rglob("*.json")), part
    assert b"nfa/z/head" not in content
    media = folder / "files" / "media"
    assert {path.parent.name for path in media.rglob("*.png")} == {"nfm", "agop", "filters"}
    (table,) = media.rglob("*.table.json")
    assert [row[-1] for row in json.loads(table.read_text())["data"]] == ["above null", "trivial", "skipped"]


def test_online_without_an_account_falls_back(alone, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.warns(UserWarning, match="no API key"):
        folder, command = log_audit("nfa", "a", [ROW], directory=alone)
    assert folder.is_dir()
    assert command.startswith("wandb sync ")


def test_disabled_logs_nothing(alone, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert log_audit("nfa", "a", [ROW], directory=alone)[1] == ""
    assert not (alone / "wandb").exists()


def test_what_is_missing_is_named(alone, monkeypatch):
    with pytest.raises(NfaError, match=r"no such file: .*gone\.csv"):
        log_audit("nfa", "a", [ROW], files=["gone.csv"], directory=alone)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NfaError, match="pip install wandb"):
        log_audit("nfa", "a", [ROW], directory=alone)
