"""Weights & Biases: offline without an account, read back from disk, and never a reason to fail."""

import json
import os
import subprocess
import sys
import textwrap
import warnings

import pytest

from callbacks.loggers import LabWandbLogger, finish_wandb
from nfa import NfaError
from tests.callbacks.offline_runs import only_run, read

pytestmark = [
    pytest.mark.filterwarnings("default"),  # what wandb warns of on its own account
    pytest.mark.usefixtures("no_account"),
]
WANDB = ("model=mlp", "model.width=8", "logger=wandb")
TRAINED = ("train/*", "val/*", "test/*", "features/*", "round/*")


def told(recorded):
    """Warnings of ours."""
    return [str(w.message) for w in recorded if str(w.message).startswith("W&B")]


def measured_epochs(offline):
    """The epochs of the measurements, in the order in which they were logged."""
    return [row["epoch"] for row in offline.rows if "nfa/alignment/median" in row]


# ---- what a run holds --------------------------------------------------------------------------------------


def test_offline_run_holds_what_was_measured_and_written(run):
    done = run(*WANDB)
    assert done.code == 0, done.err
    assert "wandb sync run/wandb/offline-run-" in done.out
    offline = only_run(done.folder)
    assert {"nfa/alignment/hidden1", "nfa/cosine/median", "val/accuracy", "nfa/layers"} <= offline.keys
    assert {f"nfa/pictures/{kind}" for kind in ("matrices", "filters", "eigenvectors")} <= offline.keys
    (captions,) = offline.column("nfa/pictures/matrices.captions")
    assert captions[:3] == ["hidden1: NFM", "hidden1: AGOP", "hidden2: NFM"]
    assert measured_epochs(offline)[:3] == [0, 1, 2]
    assert offline.run.display_name == "mlp digits s0"
    assert list(offline.run.tags) == ["mlp", "digits", "net", *done.summary["options"]]

    media = done.folder / "wandb" / "latest-run" / "files" / "media"
    last = offline.column("nfa/layers.path")[-1]
    assert len(json.loads((media.parent / last).read_text())["data"]) == len(done.rows)
    (page,) = [media.parent / path for path in offline.column("report.path")]
    assert page.read_bytes() == (done.folder / "report.html").read_bytes()
    (artifact,) = offline.artifacts["features"]
    assert artifact.name == f"features-{offline.run.run_id}"
    assert json.loads(artifact.metadata) == {"model": "mlp", "data": "digits", "seed": 0}
    (content,) = artifact.manifest.contents
    assert content.local_path == str(done.folder / "features.safetensors")

    numbers = ("test/accuracy", "fit_seconds", "peak_memory_mb", "num_parameters", "ansatz/layers_above_null")
    assert {n: offline.summary[n] for n in numbers} == {n: done.summary[n] for n in numbers}
    assert offline.config["model"]["width"] == 8
    assert offline.config["model_name"] == "mlp"


def test_spectra_are_charts(run):
    done = run(*WANDB, "trainer.max_epochs=1")
    tables = done.folder.glob("wandb/latest-run/files/media/table/*/nfa/spectrum/*.table.json")
    found = {path.name.split("_table")[0]: json.loads(path.read_text()) for path in tables}
    assert found.keys() == {"layers"}
    lines = found["layers"]["data"]
    assert {key.split()[0] for _, key, _ in lines} == {"hidden1", "hidden2", "hidden3"}
    for kind in ("hidden2 NFM", "hidden2 AGOP"):
        line = [(x, y) for x, key, y in lines if key == kind]
        assert [x for x, _ in line] == list(range(1, len(line) + 1))
        logs = [y for _, y in line]
        assert logs[0] == 0
        assert logs == sorted(logs, reverse=True)


@pytest.mark.parametrize(
    "model", [("model=mlp", "model.width=8"), ("model=rfm", "data.n_train=100")], ids=["net", "kernel"]
)
def test_each_name_has_one_axis(run, model):
    """The step that W&B itself puts beside a value tells its axis; of two patterns that fit it takes any."""
    done = run("logger=wandb", *model)
    offline = only_run(done.folder)
    assert offline.axes == dict.fromkeys((*TRAINED, "nfa/*"), "epoch")
    names = {k.split("/")[0] for k in offline.keys}
    assert {"train", "val", "test", "nfa"} <= names
    assert ("round" in names) == (model[0] == "model=rfm")
    for row in offline.rows:
        kinds = {key.split("/")[0] for key in row}
        if kinds & {"train", "val", "test", "round", "features"}:
            assert "epoch" in row
            assert "nfa" not in kinds
        if "nfa" in kinds:
            assert "epoch" in row
            assert "trainer/global_step" not in row
    assert offline.column("test/accuracy") == [pytest.approx(done.summary["test/accuracy"])]


def test_large_features_stay_where_they_are(run, recwarn):
    done = run(*WANDB, "trainer.max_epochs=1", "logger.max_artifact_mb=0.01")
    assert done.code == 0, done.err
    offline = only_run(done.folder)
    assert "features" not in offline.artifacts
    assert offline.column("report.path")
    assert any("logger.max_artifact_mb is 0.01" in str(w.message) for w in recwarn)


# ---- group and job type ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        ({}, "net", ("train", "my_sweep")),
        ({}, "kernel", ("kernel", "my_sweep")),
        ({"group": None, "name": None}, "net", ("train", "my_sweep")),  # as the configuration has it
        ({"group": "mine", "job_type": "probe"}, "kernel", ("probe", "mine")),
    ],
)
def test_job_type_and_group_are_those_of_model_and_sweep(tmp_path, options, kind, expected):
    logger = LabWandbLogger(str(tmp_path / "model=mlp_seed=1"), **options)
    logger.file_under(kind, "my_sweep")
    logger.log_metrics({"val/loss": 1.0, "epoch": 0})
    finish_wandb()
    offline = only_run(tmp_path / "model=mlp_seed=1")
    assert (offline.run.job_type, offline.run.run_group) == expected
    assert offline.run.display_name == "model=mlp_seed=1"


def test_long_name_of_a_folder_is_shortened(tmp_path):
    name = LabWandbLogger(str(tmp_path / ("model=mlp_" * 20 + "seed=1")))._wandb_init["name"]
    assert len(name) == 128
    assert name.startswith("model=mlp_")
    assert name.endswith("_seed=1")


DESCRIPTION = {"model": "resnet", "data": "digits", "seed": 0, "options": ["model.width=8"]}


@pytest.mark.parametrize(
    ("options", "group", "told", "expected"),
    [
        ({}, None, {}, "resnet digits s0"),
        ({}, "my_sweep", {}, "resnet digits s0 width=8"),
        ({"name": "mine"}, "my_sweep", {}, "mine"),
        ({}, None, {"seed": None}, "resnet digits"),
    ],
)
def test_names_are_short(tmp_path, options, group, told, expected):
    logger = LabWandbLogger(str(tmp_path / "2026-01-01_12-00-00_resnet_digits"), **options)
    logger.file_under("net", group, DESCRIPTION | told)
    assert logger._wandb_init["name"] == expected


@pytest.mark.parametrize("given", [None, ["mine"]])
def test_tags_tell_what_the_run_is(tmp_path, given):
    logger = LabWandbLogger(str(tmp_path), tags=given)
    logger.file_under("net", None, DESCRIPTION | {"options": ["model.width=8", "data.root=" + "x" * 99]})
    *tags, long = logger._wandb_init["tags"]
    if given:
        assert (tags, long) == ([], "mine")
    else:
        assert tags == ["resnet", "digits", "net", "model.width=8"]
        assert len(long) == 64  # W&B takes no longer ones


@pytest.mark.parametrize(
    ("model", "unused"),
    [
        (("model=mlp", "model.width=8", "training.optimizer=adam"), {"training.momentum"}),
        (("model=kernel", "model.learn=none"), {"training", "model.power", "model.metric", "model.patience"}),
    ],
    ids=["net", "kernel"],
)
def test_configuration_has_no_option_that_the_model_does_not_use(run, model, unused):
    done = run("logger=wandb", *model, "data.n_train=100", "trainer.max_epochs=1", "callbacks=none")
    assert done.code == 0, done.err
    config = only_run(done.folder).config
    names = {f"{part}.{name}" for part in config if isinstance(config[part], dict) for name in config[part]}
    assert not unused & (names | set(config))
    assert not {"lr", "momentum", "bandwidth", "net"} & set(config)  # of Lightning, a second time
    assert config["model"]["_target_"]


def test_ten_runs_at_once_are_ten_runs(tmp_path):
    """Ten processes with one folder, started within a second."""
    script = """
        import os, sys
        import wandb, wandb.sdk.launch  # the latter is what every run imports when it starts
        from callbacks.loggers import LabWandbLogger, finish_wandb

        children = []
        for number in range(10):
            child = os.fork()
            if child == 0:
                try:
                    logger = LabWandbLogger(sys.argv[1])
                    logger.log_metrics({"val/loss": float(number), "epoch": number})
                    finish_wandb()
                    wandb.teardown()
                finally:
                    os._exit(logger.broken)
            children.append(child)
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folders = list(tmp_path.glob("wandb/offline-run-*"))
    assert len(folders) == 10
    runs = [read(folder) for folder in folders]
    assert len({offline.run.run_id for offline in runs}) == 10
    assert sorted(offline.column("val/loss") for offline in runs) == [[float(i)] for i in range(10)]


# ---- what goes wrong ---------------------------------------------------------------------------------------


def test_wandb_lost_in_the_middle_is_one_warning(run, recwarn):
    done = run(*WANDB, "+callbacks.stop={_target_: tests.stoppers.LoseWandb, step: 3}")
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 2
    assert {row.epoch for row in done.rows} == {0, 1, 2}
    (message,) = told(recwarn)
    assert message.startswith("W&B stopped working (Connection lost)")


def test_folder_lost_in_the_middle_is_one_warning(run, recwarn):
    done = run(*WANDB, "+callbacks.stop={_target_: tests.callbacks.disturb.BlockMedia, step: 3}")
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 2
    (message,) = told(recwarn)
    assert "the run goes on without it" in message
    offline = only_run(done.folder)  # and what was written before is there
    assert measured_epochs(offline) == [0, 1]
    assert len(offline.column("val/accuracy")) == 1


def test_full_disk_is_one_warning(run, recwarn, monkeypatch):
    import wandb

    make, free = wandb.Table.__init__, [True]  # for one table

    def full(*arguments, **options):
        if not free:
            raise OSError(28, "No space left on device")
        free.pop()
        make(*arguments, **options)

    monkeypatch.setattr(wandb.Table, "__init__", full)
    done = run(*WANDB, "trainer.max_epochs=1")
    assert done.code == 0, done.err
    (message,) = told(recwarn)
    assert "No space left on device" in message
    assert measured_epochs(only_run(done.folder)) == [0, 1]


def test_folder_that_cannot_be_made_is_one_warning(run, tmp_path, recwarn):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").write_text("in the way")
    done = run(*WANDB, "trainer.max_epochs=1")
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 1
    assert "wandb sync" not in done.out
    (message,) = told(recwarn)
    assert "Not a directory" in message


def test_wandb_that_raises_is_told_once():
    logger = LabWandbLogger(".", mode="disabled")

    def unreachable(run):
        raise ConnectionError("network is down\nmore")

    with pytest.warns(UserWarning, match=r"W&B stopped working \(network is down\); the run goes on"):
        logger.send(unreachable)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.send(unreachable)


# ---- online or offline -------------------------------------------------------------------------------------


def test_online_without_a_server_goes_offline(run, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    done = run(*WANDB, "logger.mode=online", "trainer.max_epochs=1")
    assert done.code == 0, done.err
    assert only_run(done.folder).column("val/accuracy")


def test_online_without_an_account_goes_offline_and_asks_nothing(tmp_path):
    logger = LabWandbLogger(str(tmp_path), mode="online")
    with pytest.warns(UserWarning, match="no API key; logging offline"):
        logger.log_metrics({"val/loss": 1.0})
    finish_wandb()
    assert only_run(tmp_path).column("val/loss") == [1.0]


def test_disabled_writes_nothing(run):
    done = run(*WANDB, "logger.mode=disabled", "trainer.max_epochs=1")
    assert done.code == 0, done.err
    assert "wandb sync" not in done.out
    assert not (done.folder / "wandb").exists()


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), ("x" * 40, "online")])
def test_auto_mode_depends_on_the_account(monkeypatch, key, mode):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    assert LabWandbLogger(".")._wandb_init["mode"] == mode


def test_unknown_mode_is_named(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "airplane")
    with pytest.raises(NfaError, match="auto, online, offline, disabled, got 'airplane'"):
        LabWandbLogger(".")


def test_netrc_counts_as_an_account(tmp_path):
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert LabWandbLogger(".")._wandb_init["mode"] == "online"
