"""Misspelt options and groups: one line with what was meant, and never the advice to add a plus."""

import json
import sys

import pytest

import nfa
import train


def line(run, *overrides):
    """What a run with a mistake says, which is one line, and leaves, which is nothing."""
    done = run(*overrides, small=False)
    assert done.code == 1, done.out
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("error: ")
    assert "HYDRA_FULL_ERROR" not in done.err
    assert not done.folder.exists() or not list(done.folder.iterdir())
    return done.err.removeprefix("error: ").strip()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["training.learning_rate=1"], "training.lr"),
        (["training.lrr=1"], "training.lr"),
        (["training.weight-decay=1"], "training.weight_decay"),
        (["training.Momentum=1"], "training.momentum"),
        (["lr=1"], "training.lr"),
        (["LR=1"], "training.lr"),
        (["learning_rate=1"], "training.lr"),
        (["optimizer=adam"], "training.optimizer"),
        (["epochs=3"], "trainer.max_epochs"),
        (["trainer.epochs=3"], "trainer.max_epochs"),
        (["max_epochs=3"], "trainer.max_epochs"),
        (["batch_size=3"], "data.batch_size"),
        (["data.batchsize=3"], "data.batch_size"),
        (["training.batch_size=3"], "data.batch_size"),
        (["samples=3"], "callbacks.ansatz.samples"),
        (["callbacks.ansatz.sample=3"], "callbacks.ansatz.samples"),
        (["model=mlp", "model.depht=3"], "model.depth"),
        (["model=mlp", "model.hidden=3"], "model.width"),
        (["model=mlp", "+model.depht=3"], "model.depth"),
        (["model=mlp", "++model.depht=3"], "model.depth"),
        (["model.depth=50"], "model.arch=resnet50"),
        (["model.depht=50"], "model.arch=resnet50"),
        (["+model.depth=34"], "model.arch=resnet34"),
        (["model=vgg", "model.depth=16"], "model.arch=vgg16"),
        (["+trainer.limit_tst_batches=3"], "trainer.limit_test_batches"),
        (["trainer.precison=64-true"], "trainer.precision"),
        (["+training.lrr=3"], "training.lr"),
        (["+data.btch_size=3"], "data.batch_size"),
        (["+epochs=3"], "trainer.max_epochs"),
        (["+lr=3"], "training.lr"),
        (["seeed=3"], "seed"),
        (["~training.lrr"], "training.lr"),
        (["--lr=3"], "training.lr=3"),
        (["--epochs", "3"], "trainer.max_epochs=VALUE"),
        (["-m", "training.learning_rate=1,2"], "training.lr"),
        (["-m", "model=mlp,cnn", "+training.lrr=1"], "training.lr"),
    ],
)
def test_misspelt_options(run, typed, meant):
    said = line(run, *typed)
    assert said.endswith(f"did you mean {meant}?")
    assert "+" not in said.rpartition("did you mean")[2]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("model=resnt", "model=resnet"),
        ("model=ResNet", "model=resnet"),
        ("model=resnet50", "model=resnet model.arch=resnet50"),
        ("model=ResNet-50", "model=resnet model.arch=resnet50"),
        ("model=vgg16", "model=vgg model.arch=vgg16"),
        ("model=convrfm", "model=conv_rfm"),
        ("data=cifar", "data=cifar10"),
        ("data=CIFAR-10", "data=cifar10"),
        ("data=fashion", "data=fashion_mnist"),
        ("data=californa", "data=california_housing"),
        ("trainer=cpus", "trainer=cpu"),
        ("logger=wanb", "logger=wandb"),
        ("+experiment=side_by_sid", "+experiment=side_by_side"),
    ],
)
def test_misspelt_choices(run, typed, meant):
    assert f": did you mean {meant}?" in line(run, typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["training"], "options are written NAME=VALUE, got 'training'"),
        (["training.lr=[1"], "the value of training.lr cannot be read, got '[1'"),
        (["training.lr='1"], "the value of training.lr cannot be read"),
        (["training.lr=a b(c"], "the value of training.lr cannot be read"),
        (["=3"], "options are written NAME=VALUE"),
        (["seed=1,2"], "seed=1,2 asks for several runs: add -m"),
        (["seed=range(1,3)"], "seed=range(1,3) asks for several runs: add -m"),
        (["model=null"], "model must be one of cnn, "),
        (["model=[mlp,cnn]"], "model must be one choice"),
        (["model=transformer"], "there is no model=transformer: there are cnn, "),
        (["experiment=low_rank"], "choose one with +experiment=low_rank"),
        (["experiment=low_rnk"], "did you mean +experiment=low_rank?"),
        (
            ["model=mlp", "model.kernel=laplace"],
            "no option model.kernel with model=mlp: there are act",
        ),
        (["zebra=1"], "there is no option zebra: python train.py --help shows all there are"),
        (
            ["callbacks=none", "callbacks.ansatz.samples=3"],
            "no option callbacks.ansatz.samples with callbacks=none",
        ),
        (["+trainer.max_epochs=3"], "write trainer.max_epochs=VALUE, without the +"),
        (["trainer.limit_test_batches=0"], "add it with +trainer.limit_test_batches=0"),
        (["+trainer.callbacks=3"], "trainer.callbacks is set by train.py"),
        (["~training"], "training must be given"),
        (["training=3"], "training"),
        (["data._target_=null"], "data._target_ must be the dotted path of a class, got null"),
        (["training.lr=${nothing}"], "training.lr=${nothing} cannot be resolved"),
        (["training.lr=${oc.env:NO_SUCH_VARIABLE}"], "cannot be resolved"),
        (["data=image_folder"], "data.root must be given: data.root=VALUE"),
        (["--config-dir", "nowhere"], "nowhere' not found"),
        (["--nonsense"], "no flag is called --nonsense"),
        (["--experimental-rerun", "x.pickle"], "no flag is called --experimental-rerun"),
        (["hydra.run.dri=x"], "dri"),
    ],
)
def test_other_mistakes(run, typed, said):
    assert said in line(run, *typed)


def test_folders_and_tables_given_as_data(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "prices.csv").touch()
    assert "did you mean data=image_folder data.root=photos?" in line(run, "data=photos")
    assert "did you mean data=tabular data.path=prices.csv data.target=COLUMN?" in line(
        run, "data=prices.csv"
    )


def test_what_other_options_refer_to_may_be_added(run):
    done = run("+width=5", "model=mlp", "model.width=${width}", "trainer.max_epochs=1", "callbacks=none")
    assert done.code == 0, done.err
    assert done.summary["settings"]["model.width"] == 5


def test_options_of_a_class_of_ones_own_are_free(run, tmp_path):
    (tmp_path / "depht_nets.py").write_text(
        "from torch import nn\n\ndef tiny(depht):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, depht), nn.Tanh(), nn.Linear(depht, 10))\n"
    )
    swap = ["model._target_=depht_nets.tiny", "+model.depht=4", *(f"~model.{k}" for k in MLP)]
    done = run("model=mlp", *swap, "trainer.max_epochs=1", "callbacks=none")
    assert done.code == 0, done.err


MLP = ("depth", "width", "activation", "bias")


def test_a_job_with_a_mistake_does_not_take_the_others_along(run, tmp_path):
    done = run("-m", "training.lr=-1,0.1", "model=mlp", "callbacks=none", "hydra.sweep.dir=s")
    assert done.code == 1
    assert "training.lr must be a number of at least 0, got -1" in done.err
    assert len(list((tmp_path / "s").glob("*/summary.json"))) == 1


def test_what_a_sweep_has_in_common_is_checked_before_it(run, tmp_path):
    done = run("-m", "seed=0,1", "training.lr=abc", "hydra.sweep.dir=s")
    assert done.code == 1
    assert done.err == "error: training.lr must be a number of at least 0, got 'abc'\n"
    assert not list((tmp_path / "s").glob("*"))


@pytest.mark.parametrize("option", ["trainer.precision=64-true", "+trainer.precision=64-true"])
def test_precision_needs_no_plus_and_may_have_one(run, option):
    done = run("model=mlp", "model.width=4", "callbacks=none", option)
    assert done.code == 0, done.err
    assert done.summary["settings"]["trainer.precision"] == "64-true"


def test_options_without_a_default_leave_no_trace_in_the_settings(run):
    """Runs of before there were these options have the same settings, and go on."""
    done = run("model=mlp", "model.width=4", "callbacks=none")
    assert (
        not {"trainer.precision", "trainer.max_steps", "trainer.max_time"} & done.summary["settings"].keys()
    )
    again = run("model=mlp", "model.width=4", "callbacks=none", "trainer.precision=null", folder="b")
    assert again.summary["config"] == done.summary["config"]


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--version"])
    train.main()
    said = capsys.readouterr().out
    assert said.startswith(f"nfa {nfa.__version__}, torch ")
    assert said.count("\n") == 1


def test_someone_who_wants_all_of_it_gets_it(run, monkeypatch):
    from hydra.errors import ConfigCompositionException

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException):
        run("training.lrr=1")


def test_the_digest_of_a_run_is_that_of_before(run):
    """Of fixed options, as the version before the options of the trainer had defaults wrote it."""
    done = run("model=mlp", "model.width=4", "callbacks=none", "data.batch_size=50")
    assert json.loads((done.folder / "summary.json").read_text())["config"] == DIGEST


DIGEST = "355907826ce1a862"


AUDIT = ("+experiment=pretrained_audit", "audit.spec=torchvision:resnet18@none", "audit.data=digits")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["+experiment=pretrained_audit"], "audit.data must be given: audit.data=VALUE"),
        (
            [*AUDIT, "audit.max_samples=0"],
            "audit.max_samples must be a whole number of at least 1",
        ),
        ([*AUDIT, "audit.tolerance=2"], "audit.tolerance must be a number between 0 and 1, or null, got 2"),
        ([*AUDIT, "+audit.max_sampels=3"], "did you mean audit.max_samples?"),
    ],
)
def test_options_of_an_audit(run, typed, said):
    assert said in line(run, *typed)


def test_an_audit_that_fails_says_so_once(run):
    done = run(
        "+experiment=pretrained_audit", "audit.spec=torchvision:nothing", "audit.data=digits", small=False
    )
    assert done.code != 0
    assert done.err.count("error: ") == 1
