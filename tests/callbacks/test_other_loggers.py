"""``logger=csv`` and ``logger=tensorboard`` lose nothing but the pictures."""

import math

import pytest

from nfa.ansatz.row import AUDIT_COLUMNS

SMALL = ("model=mlp", "model.width=8")
NO_STATISTIC = {"layer", "kind", "in_features", "out_features", "groups", "power", "status"}
STATISTICS = [column for column in AUDIT_COLUMNS if column not in NO_STATISTIC]


def events(folder):
    """Tag to a list of (step, value), and the hyperparameters, of the event files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    kinds = {name: value.WhichOneof("kind") for name, value in hparams.items()}
    return scalars, {name: getattr(hparams[name], kind) for name, kind in kinds.items() if kind}


@pytest.mark.parametrize(
    ("model", "target", "layers"),
    [
        (SMALL, "nfa.nets.MLP", {"hidden1", "hidden2", "hidden3"}),
        (("model=rfm", "data.n_train=100"), "models.RFM", {"feature_map"}),
    ],
    ids=["net", "kernel"],
)
def test_tensorboard_has_all_numbers_and_options(run, model, target, layers):
    done = run(*model, "logger=tensorboard", "trainer.max_epochs=3")
    assert done.code == 0, done.err
    scalars, options = events(done.folder / "tensorboard")

    step_of = {epoch: step for step, epoch in scalars["nfa/epoch"]}
    assert list(step_of) == [0, 1, 2, 3]
    assert {epoch for _, epoch in scalars["epoch"]} == {1, 2, 3}  # as is what the trainer logs
    expected = {
        (f"nfa/{name}/{row.layer}", step_of[row.epoch]): getattr(row, name)
        for row in done.rows
        if row.measured
        for name in STATISTICS
        if not math.isnan(getattr(row, name))
    }
    assert {tag.split("/")[2] for tag, _ in expected} == layers
    assert {tag.split("/")[1] for tag, _ in expected} >= {"cosine", "z", "null_std"}
    written = {(tag, step): value for tag, series in scalars.items() for step, value in series}
    assert {key: written.get(key) for key in expected} == pytest.approx(expected, rel=1e-5)

    curves = [name for name in done.metrics[0] if name.startswith("nfa/")]
    assert {"nfa/alignment/median", "nfa/above_chance/all"} <= set(curves)
    for name in curves:  # the same ones, but for those of the network at initialisation
        rows = {step_of[float(row["epoch"])]: float(row[name]) for row in done.metrics if row[name]}
        assert {step: value for step, value in scalars[name] if step in rows} == pytest.approx(rows, rel=1e-5)
    for name in (name for name in done.metrics[0] if "/" in name and name not in curves):
        rows = [float(row[name]) for row in done.metrics if row[name]]
        assert [v for _, v in scalars[name] if not math.isnan(v)] == pytest.approx(rows, rel=1e-5), name
    assert len(scalars["train/loss"]) == len(scalars["val/accuracy"]) == 3
    assert options["seed"] == 0
    assert options["model/_target_"] == target
    assert options["trainer/max_epochs"] == 3


def test_without_a_logger_the_files_have_everything(run):
    done = run(*SMALL)
    assert done.code == 0, done.err
    *epochs, test = done.metrics
    names = {f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "accuracy")}
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert all(row[name] for row in epochs for name in (*names, "lr", "seconds"))
    assert float(test["test/accuracy"]) == done.summary["test/accuracy"]
    assert {row.epoch for row in done.rows} == {0, 1, 2}
    measured = [row for row in done.rows if row.measured and row.epoch == 2]
    assert all(
        not math.isnan(getattr(row, name)) for row in measured for name in ("cosine", "z", "init_cosine")
    )
    assert {
        "fit_seconds",
        "peak_memory_mb",
        "num_parameters",
        "ansatz/layers_above_null",
        "seed",
        "options",
    } <= set(done.summary)
    assert not (done.folder / "wandb").exists()
    assert (done.folder / ".hydra" / "config.yaml").is_file()
