"""The main job end to end: run folder, own networks, multirun, resume, and training left untouched."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nfa.ansatz.row import TRAIN_COLUMNS

FILES = {"ansatz.csv", "metrics.csv", "summary.json", "report.html", "features.safetensors", "checkpoints"}


@pytest.fixture
def own(tmp_path):
    """Overrides that train `tests.nets.DropoutNet` from a user's own configuration folder."""
    folder = tmp_path / "mine" / "model"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text("_target_: tests.nets.DropoutNet\nwidth: 6\n")
    return ("--config-dir", str(tmp_path / "mine"), "model=own")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "vgg"])
def test_run_folder(run, model):
    small = {"mlp": "model.width=32", "cnn": "model.width=8"}.get(model, "model.width=4")
    done = run(f"model={model}", small)
    assert done.code == 0, done.err
    assert {path.name for path in done.folder.iterdir()} >= FILES
    assert (done.folder / "ansatz.csv").read_text().splitlines()[0] == ",".join(TRAIN_COLUMNS)
    assert [row.epoch for row in done.rows if row.layer == done.rows[0].layer] == [0, 1, 2]
    last_layer = done.rows[-1].layer
    assert all(row.status == ("trivial" if row.layer == last_layer else "ok") for row in done.rows)
    last = [row for row in done.rows if row.epoch == 2]
    first = [row for row in done.rows if row.epoch == 0]
    assert [row.init_cosine for row in last] == pytest.approx([row.cosine for row in first])
    assert all(0 < row.init_nfm_cosine <= 1 for row in last)
    summary = done.summary
    assert (summary["model"], summary["data"], summary["seed"]) == (model, "digits", 0)
    for key in ("test/accuracy", "fit_seconds", "peak_memory_mb", "num_parameters"):
        assert summary[key] > 0, key
    assert [row["epoch"] for row in done.metrics] == ["1", "2", "2"]
    assert float(done.metrics[-1]["test/accuracy"]) == pytest.approx(summary["test/accuracy"])
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= done.metrics[0].keys()
    assert "alignment" in done.out
    assert "report.html" in done.out
    assert "<svg" in (done.folder / "report.html").read_text()


def test_regression(run):
    done = run("model=mlp", "data=low_rank")
    assert done.code == 0, done.err
    assert {"test/mse", "test/r2"} <= done.summary.keys()


def test_measuring_does_not_change_training(run, own):
    """Weights after three epochs, optimizer steps and metrics, bit for bit, with dropout and BatchNorm."""
    epochs = "trainer.max_epochs=3"
    plain = run(*own, epochs, "callbacks=none", folder="plain")
    watched = run(*own, epochs, "callbacks.ansatz.every_n_steps=2", folder="watched")
    probed = run(*own, epochs, "callbacks.ansatz.probes=2", folder="probed")
    assert plain.code == watched.code == probed.code == 0
    assert not (plain.folder / "ansatz.csv").exists()
    assert len({row.epoch for row in watched.rows}) > 4
    assert same(plain.weights, watched.weights)
    assert same(plain.weights, probed.weights)
    assert [row["train/loss"] for row in plain.metrics] == [row["train/loss"] for row in watched.metrics]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_stopped_run_goes_on_to_the_same_weights(run, own, name, code):
    options = (*own, "trainer.max_epochs=3", "data.batch_size=50")  # 6 steps an epoch
    whole = run(*options, folder="whole")
    stop = f"+callbacks.stop={{_target_: tests.stoppers.SignalAt, step: 9, name: {name}}}"
    stopped = run(*options, stop, folder="stopped")
    assert stopped.code == code
    assert re.search(
        r"go on with: \S*python train.py --config-dir .* ckpt_path=last hydra.run.dir=stopped", stopped.err
    )
    assert len(stopped.metrics) == 1
    resumed = run(
        *options, "ckpt_path=last", "+callbacks.stop={_target_: pytorch_lightning.Callback}", folder="stopped"
    )
    assert resumed.code == 0, resumed.err
    assert same(whole.weights, resumed.weights)
    assert (whole.folder / "ansatz.csv").read_text() == (resumed.folder / "ansatz.csv").read_text()
    drop = ("seconds",)
    for a, b in zip(whole.metrics, resumed.metrics, strict=True):
        assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}


def test_stopped_in_the_first_epoch(run, own):
    whole = run(*own, folder="whole")
    stop = "+callbacks.stop={_target_: tests.stoppers.SignalAt, step: 1, name: SIGINT}"
    assert run(*own, stop, folder="stopped").code == 130
    resumed = run(
        *own, "ckpt_path=last", "+callbacks.stop={_target_: pytorch_lightning.Callback}", folder="stopped"
    )
    assert resumed.code == 0
    assert same(whole.weights, resumed.weights)


def test_last_takes_the_newest_run_and_its_options(run, tmp_path, monkeypatch):
    first = run("model=mlp", "model.width=12", folder="runs/a")
    assert first.code == 0
    monkeypatch.setattr(sys, "argv", ["train.py", "ckpt_path=last", "trainer.max_epochs=3"])
    import train

    train.main()
    summary = json.loads((tmp_path / "runs" / "a" / "summary.json").read_text())
    assert summary["epochs"] == 3
    assert summary["model"] == "mlp"


def test_seed_is_honoured_zero_too(run):
    options = ("model=mlp", "model.width=8", "trainer.max_epochs=1", "callbacks=none")
    a, b, c = (run(*options, f"seed={s}", folder=f"run{i}") for i, s in enumerate([0, 0, 1]))
    assert same(a.weights, b.weights)
    assert not same(a.weights, c.weights)


@pytest.fixture
def of_tests(tmp_path):
    """Function ``of_tests(net)``: the options that train a network of ``tests.nets``."""

    def options(net):
        folder = tmp_path / "mine" / "model"
        folder.mkdir(parents=True)
        (folder / "own.yaml").write_text(f"_target_: tests.nets.{net}\n")
        return "--config-dir", str(tmp_path / "mine"), "model=own"

    return options


def test_own_network_built_at_its_first_input(run, of_tests):
    done = run(*of_tests("LazyNet"))
    assert done.code == 0, done.err
    assert done.rows[-1].status == "trivial"


def test_of_several_outputs_none_is_taken_silently(run, of_tests):
    done = run(*of_tests("TupleNet"))
    assert done.code == 1
    assert done.err.startswith("error: the network returns 2 tensors")
    assert "let the forward return these alone, or name them logits" in done.err


def test_own_network_from_the_working_folder(run, tmp_path):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n\ndef tiny(hidden):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))\n"
    )
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("_target_: my_nets.tiny\nhidden: 7\n")
    done = run("--config-dir", "conf", "model=tiny", "model.hidden=9")
    assert done.code == 0, done.err
    assert done.rows[0].out_features == 9


def test_multirun(run, tmp_path):
    done = run(
        "-m", "model=mlp,cnn", "seed=0,1", "model.width=4", "hydra.sweep.dir=sweep", "trainer.max_epochs=1"
    )
    assert done.code == 0, done.err
    summaries = [json.loads(p.read_text()) for p in (tmp_path / "sweep").glob("*/summary.json")]
    assert sorted((s["model"], s["seed"]) for s in summaries) == [
        ("cnn", 0), ("cnn", 1), ("mlp", 0), ("mlp", 1)
    ]  # fmt: skip


def test_help_has_three_examples():
    done = subprocess.run([sys.executable, "train.py", "--help"], capture_output=True, text=True, cwd=".")
    assert done.returncode == 0
    examples = done.stdout.split("Also")[0]
    assert len(re.findall(r"^  python train\.py ", examples, re.MULTILINE)) == 3
    (models,) = re.findall(r"^ *model: (.*)$", done.stdout, re.MULTILINE)
    files = (Path(__file__).parent.parent / "configs" / "model").glob("*.yaml")
    assert models.split(", ") == sorted(file.stem for file in files)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_optimizers_and_schedules(run, optimizer, schedule):
    options = (f"training.optimizer={optimizer}", f"training.schedule={schedule}", "training.lr=0.01")
    done = run(
        "model=mlp",
        "model.width=32",
        "training.loss=mse",
        "training.init_scale=0.5",
        "callbacks=none",
        *options,
    )
    assert done.code == 0, done.err
    assert float(done.metrics[1]["train/loss"]) < float(done.metrics[0]["train/loss"])


def test_tensorboard(run):
    done = run("model=mlp", "model.width=8", "logger=tensorboard")
    assert done.code == 0, done.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(done.folder / "tensorboard")).Reload()
    assert {"nfa/alignment/hidden1", "val/accuracy"} <= set(events.Tags()["scalars"])


def test_no_validation_split(run):
    done = run("model=mlp", "model.width=8", "data.val_fraction=0")
    assert done.code == 0, done.err
    assert not any(k.startswith("val/") for k in done.metrics[0])


def test_features_hold_the_matrices_of_the_first_layer_and_the_input(run):
    from safetensors import safe_open

    done = run("model=cnn", "model.width=4")
    with safe_open(done.folder / "features.safetensors", "pt") as file:
        shapes = {k: tuple(file.get_tensor(k).shape) for k in file.keys()}  # noqa: SIM118
        assert file.metadata() == {
            "layer": "conv1", "kind": "conv2d", "patch": "1x3x3", "input_shape": "1x8x8"
        }  # fmt: skip
        inputs, covariance = file.get_tensor("inputs"), file.get_tensor("patch_covariance")
    patches = torch.nn.functional.unfold(inputs.unflatten(1, (1, 8, 8)), 3, padding=1)
    expected = patches.mT.reshape(-1, 9).T.cov(correction=0)
    torch.testing.assert_close(covariance, expected, rtol=1e-4, atol=1e-5)
    assert shapes == {
        "nfm": (9, 9), "agop": (9, 9), "patch_covariance": (9, 9), "input_agop": (64, 64), "inputs": (24, 64)
    }  # fmt: skip


def test_resume_with_more_epochs_stretches_the_schedule(run):
    assert run("model=mlp", "model.width=8", folder="a").code == 0
    done = run("model=mlp", "model.width=8", "ckpt_path=last", "trainer.max_epochs=4", folder="a")
    assert done.code == 0, done.err
    rates = [float(row["lr"]) for row in done.metrics[:4]]
    whole = run("model=mlp", "model.width=8", "trainer.max_epochs=4", folder="b")
    assert rates[1] == pytest.approx(0, abs=1e-6)  # a run that had ended
    assert rates[2] > 0
    assert rates[2:] == pytest.approx([float(row["lr"]) for row in whole.metrics[2:4]], abs=1e-9)


def test_finished_run_is_left_as_it_is(run):
    first = run("model=mlp", "model.width=8", folder="a")
    report, summary = (first.folder / "report.html").read_text(), first.summary
    done = run("model=mlp", "model.width=8", "ckpt_path=last", folder="a")
    assert done.code == 1
    assert "is complete (2 epochs)" in done.err
    assert (first.folder / "report.html").read_text() == report
    assert first.summary == summary


@pytest.mark.parametrize("change", ["seed=7", "training.lr=0.5"])
def test_resume_refuses_what_would_not_be_the_same_run(run, change):
    assert run("model=mlp", "model.width=8", folder="a").code == 0
    done = run("model=mlp", "model.width=8", "ckpt_path=last", "trainer.max_epochs=3", change, folder="a")
    assert done.code == 1
    assert "start a new run" in done.err
    again = run("ckpt_path=last", "trainer.max_epochs=3", folder="a")
    assert again.code == 0, again.err


def test_measuring_that_begins_on_resume_has_no_initial_values(run):
    assert run("model=mlp", "model.width=8", "callbacks=none", folder="a").code == 0
    done = run(
        "model=mlp",
        "model.width=8",
        "ckpt_path=last",
        "trainer.max_epochs=3",
        "callbacks=default",
        folder="a",
    )
    assert done.code == 0, done.err
    assert {row.epoch for row in done.rows} == {2, 3}
    assert all(row.init_cosine != row.init_cosine for row in done.rows)


def test_one_cycle_keeps_its_length(run):
    options = ("model=mlp", "model.width=8", "training.schedule=one_cycle")
    assert run(*options, folder="a").code == 0
    done = run(*options, "ckpt_path=last", "trainer.max_epochs=4", folder="a")
    assert done.code == 1
    assert "one_cycle was planned for" in done.err


def test_stop_by_steps_or_without_a_test(run):
    assert run("model=mlp", "model.width=8", "+trainer.max_steps=3").code == 0
    assert run("model=mlp", "model.width=8", "+trainer.limit_test_batches=0", folder="b").code == 0
