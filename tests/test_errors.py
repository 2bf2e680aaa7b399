"""Bad input: one clear line, an exit code other than 0, and nothing lost of what was written before."""

import numpy
import pytest
import torch
from PIL import Image

MLP = ("model=mlp", "model.width=8")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("training.lrr=1",), "no option training.lrr: did you mean training.lr?"),
        (("model=resnext",), "no model=resnext: did you mean model=resnet?"),
        (("model.widht=8",), "did you mean model.width?"),
        (("model=mlp", "+model.colour=red"), "no option model.colour: there are activation, bias"),
        (("model._target_=models.Nothing",), "cannot import model._target_=models.Nothing"),
        (("model._target_=nowhere.Net",), "cannot import model._target_=nowhere.Net"),
        ((*MLP, "callbacks.ansatz.layers=conv9"), "layer pattern 'conv9' matches none of the 4 weights"),
        (
            (*MLP, "callbacks.ansatz.samples=0"),
            "ansatz.samples must be a whole number of at least 1, got 0",
        ),
        ((*MLP, "callbacks.ansatz.power=-1"), "callbacks.ansatz.power must be a number above 0, got -1"),
        ((*MLP, "training.loss=hinge"), "training.loss must be one of"),
        ((*MLP, "training.optimizer=lion"), "training.optimizer must be one of"),
        ((*MLP, "training.schedule=saw"), "training.schedule must be one of"),
        (("model=mlp", "model.depth=0"), "model.depth must be a whole number from 1 to 10000, got 0"),
        (("model=mlp", "model.activation=sine"), "activation must be one of"),
        (("model=cnn", "model.depth=9", "model.padding=none"), "has no position left"),
        (("model=cnn", "model.padding=mirror"), "model.padding must be one of"),
        (("model=resnet", "model.arch=resnet19"), "model.arch must be one of"),
        (("model=vgg", "model.arch=vgg12"), "model.arch must be one of"),
        (("model=cnn", "data=low_rank"), "CNN needs images"),
        ((*MLP, "data=low_rank", "training.loss=cross_entropy"), "needs class targets"),
        ((*MLP, "data.batch_size=0"), "data.batch_size"),
        ((*MLP, "data.n_train=99999"), "data.n_train of at most"),
        (
            ("model=resnet", "model.width=2", "data.batch_size=1"),
            "BatchNorm cannot train on a batch of 1 sample",
        ),
        pytest.param(
            (*MLP, "trainer=gpu", "trainer.accelerator=gpu"),
            "error: No supported gpu backend found",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ((*MLP, "data=image_folder"), "data.root must be given"),
        ((*MLP, "data._target_=nowhere.Data"), "cannot import nowhere.Data"),
        ((*MLP, "trainer.max_epochs=-1", "+trainer.max_time=00:00:00:03"), "needs to know the end"),
        ((*MLP, "logger=wandb", "logger.mode=foo"), "logger.mode must be one of"),
        ((*MLP, "ckpt_path=nowhere.ckpt"), "no checkpoint at nowhere.ckpt"),
        ((*MLP, "data=cifar10", "data.root=nodata", "data.download=false"), "nodata"),
    ],
)
def test_one_clear_line(run, overrides, message):
    done = run(*overrides)
    assert done.code != 0
    assert message in done.err
    assert "Traceback" not in done.err


def test_batch_of_one_trains_without_batch_norm(run):
    done = run(*MLP, "data.batch_size=1", "data.n_train=40", "trainer.max_epochs=1")
    assert done.code == 0, done.err


# ---- data -------------------------------------------------------------------------------------------------


def photos(root, classes=("cat", "dog"), count=12):
    rng = numpy.random.default_rng(0)
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: root.mkdir(), "photos"),
        (lambda root: None, "photos"),
        (lambda root: photos(root, classes=("cat",)), "two classes or more"),
        (lambda root: (photos(root), (root / "train/cat/3.png").write_bytes(b"no picture")), "3.png"),
    ],
    ids=["empty folder", "no folder", "one class", "corrupt image"],
)
def test_image_folders(run, tmp_path, prepare, message):
    prepare(tmp_path / "photos")
    done = run(*MLP, "data=image_folder", "data.root=photos", "data.n_train=null", "data.n_test=null")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_image_folder_trains(run, tmp_path):
    photos(tmp_path / "photos")
    done = run(*MLP, "data=image_folder", "data.root=photos", "data.n_train=null", "data.n_test=null")
    assert done.code == 0, done.err


def test_nan_in_the_data(run, tmp_path):
    (tmp_path / "holes.py").write_text(
        "import torch\nfrom datamodules import Split, TensorDataModule\n\n"
        "class Holes(TensorDataModule):\n"
        "    def load(self):\n"
        "        x, y = torch.randn(40, 4), torch.arange(40) % 2\n"
        "        x[3, 1] = float('nan')\n"
        "        return Split(x, y), Split(x[10:], y[10:])\n"
    )
    data = ("data._target_=holes.Holes", "data.n_train=null", "data.n_test=null")
    done = run(*MLP, *data)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "finite" in done.err


# ---- training ---------------------------------------------------------------------------------------------


def test_nan_loss_stops_the_run_and_keeps_what_was_written(run):
    options = (*MLP, "trainer.max_epochs=4", "data.batch_size=50")  # 6 steps an epoch
    done = run(*options, "+callbacks.stop={_target_: tests.stoppers.BreakAt, step: 9}")
    assert done.code == 1
    assert "the training loss became nan in epoch 1, step 3" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert [row["epoch"] for row in done.metrics] == ["1"]
    assert {row.epoch for row in done.rows} == {0, 1}
    assert all(bool(torch.isfinite(v).all()) for v in done.weights.values() if v.is_floating_point())


def test_diverging_learning_rate(run):
    done = run(*MLP, "training.lr=1e30", "training.schedule=constant", "callbacks=none")
    assert done.code == 1
    assert "lower training.lr" in done.err


def test_checkpoint_of_another_model(run):
    first = run(*MLP)
    resume = ("ckpt_path=run/checkpoints/last.ckpt", "trainer.max_epochs=3")
    done = run("model=mlp", "model.width=9", *resume, folder="other")
    assert done.code == 1
    assert "the checkpoint is of another model" in done.err
    assert "network.hidden1.weight: (8, 64) in the file, (9, 64) here" in done.err
    assert first.summary


def test_checkpoint_of_another_optimizer(run):
    assert run(*MLP).code == 0
    resume = ("ckpt_path=run/checkpoints/last.ckpt", "trainer.max_epochs=3")
    done = run(*MLP, *resume, "training.optimizer=adam", folder="other")
    assert done.code == 1
    assert "the checkpoint was trained with training.optimizer=sgd" in done.err


def test_file_that_is_no_checkpoint(run, tmp_path):
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    done = run(*MLP, "ckpt_path=broken.ckpt")
    assert done.code == 1
    assert "error: broken.ckpt cannot be read as a checkpoint" in done.err


def test_run_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = run(*MLP, folder="taken/run")
    assert done.code == 1
    assert "error: cannot write to the run folder taken/run (Not a directory)" in done.err
    assert (tmp_path / "taken").read_text() == "a file"


def test_run_folder_that_vanishes_under_the_run(run):
    stop = "+callbacks.stop={_target_: tests.stoppers.ReplaceFolder, path: run/checkpoints, step: 9}"
    done = run(*MLP, "trainer.max_epochs=4", "data.batch_size=50", stop)
    assert done.code == 1
    assert "error: cannot write" in done.err
    assert [row["epoch"] for row in done.metrics] == ["1", "2"]


def test_last_without_any_run(run, monkeypatch, capsys):
    import sys

    import train

    monkeypatch.setattr(sys, "argv", ["train.py", "ckpt_path=last"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 1
    assert "found no run with a checkpoint" in capsys.readouterr().err
