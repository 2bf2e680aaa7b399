"""Weights & Biases: offline without an account, read back from disk, and never a reason to fail."""

import json
import warnings

import pytest

from callbacks.loggers import LabWandbLogger, finish_wandb

pytestmark = pytest.mark.filterwarnings("default")  # what wandb warns of on its own account
WANDB = ("model=mlp", "model.width=8", "logger=wandb")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    finish_wandb()


def records(path):
    """Records of a ``.wandb`` file: a 7-byte head, then a LevelDB log of 32 KiB blocks."""
    data, position, parts = path.read_bytes(), 7, []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def history(folder):
    """All rows that an offline run logged, and the axis of each metric that has one."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows, axes = [], {}
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.history.item:
            rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item})
        if record.metric.step_metric:
            axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    return rows, axes


def test_offline_run_holds_metrics_axis_table_and_pictures(run):
    done = run(*WANDB)
    assert done.code == 0, done.err
    assert "wandb sync run/wandb/offline-run-" in done.out
    rows, axes = history(done.folder)
    keys = set().union(*rows)
    assert {"nfa/alignment/hidden1", "nfa/cosine/hidden2", "val/accuracy", "nfa/table"} <= keys
    assert {"nfa/nfm/hidden1", "nfa/agop/hidden1", "nfa/filters/hidden1"} <= keys
    assert axes["nfa/*"] == "nfa/epoch"
    assert [row["nfa/epoch"] for row in rows if "nfa/alignment/hidden1" in row] == [0, 1, 2]
    (table,) = done.folder.glob("wandb/offline-run-*/files/media/table/nfa/table_*.table.json")
    content = json.loads(table.read_text())
    assert len(content["data"]) == len(done.rows)


def test_wandb_lost_in_the_middle_is_a_warning(run):
    done = run(*WANDB, "+callbacks.stop={_target_: tests.stoppers.LoseWandb, step: 3}")
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 2
    assert {row.epoch for row in done.rows} == {0, 1, 2}


def test_wandb_that_raises_is_told_once():
    logger = LabWandbLogger(".", mode="disabled")

    def unreachable(run):
        raise ConnectionError("network is down\nmore")

    with pytest.warns(UserWarning, match=r"W&B stopped working \(network is down\); the run goes on"):
        logger.send(unreachable)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.send(unreachable)


def test_online_without_a_server_goes_offline(run, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    done = run(*WANDB, "logger.mode=online", "trainer.max_epochs=1")
    assert done.code == 0, done.err
    assert list(done.folder.glob("wandb/offline-run-*"))


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), ("x" * 40, "online")])
def test_auto_mode_depends_on_the_account(monkeypatch, key, mode):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    assert LabWandbLogger(".")._wandb_init["mode"] == mode


def test_netrc_counts_as_an_account(tmp_path):
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert LabWandbLogger(".")._wandb_init["mode"] == "online"
