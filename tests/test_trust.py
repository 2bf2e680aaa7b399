"""A stranger's run folder: what is in it runs no code, and what is wrong in it is one line."""

import os
import time
from pathlib import Path

import pytest
import yaml

from lab.trust.harmless import naming_code
from lab.trust.signature import is_signed, sign

MLP = ("model=mlp", "model.width=8", "trainer.max_epochs=1")

CODE = [
    "model._target_=evil.build",
    "+model._target_=evil.build",
    "++model._target_=evil.build",
    "model.activation._target_=evil.build",
    "+callbacks.x._target_=evil.build",
    "+callbacks.x={_target_: evil.build}",
    "+callbacks.x={a: [{_target_: evil.build}]}",
    "+callbacks={x: {_target_: evil.build}}",
    "+callbacks.x={'_target_': evil.build}",
    "data._target_=evil.build",
    "logger._target_=evil.build",
    "trainer._target_=evil.build",
    "+trainer.plugins=[{_target_: evil.build}]",
    "+model._args_=[evil]",
    "+model._partial_=true",
    "+model[_target_]=evil.build",
    "model=evil",
    "model=../../evil",
    "model='../evil'",
    "+model@callbacks.x=rfm",
    "model=mlp,evil",
    "model={_target_: evil.build}",
    "+experiment=evil",
    "+other=evil",
    "+audit.spec=evil:build",
    "audit.spec=evil:build",
    "hydra.searchpath=[file://evil]",
    "hydra/launcher=evil",
    "hydra.launcher._target_=evil.build",
    "hydra/sweeper=evil",
    "+hydra.callbacks.x._target_=evil.build",
    "hydra.job_logging.handlers.x.class=evil.build",
    "hydra/job_logging=evil",
    "model.width=${oc.env:HOME}",
    "+callbacks.x=${model}",
    "model.width=${evil}",
    "trainer.default_root_dir=/somewhere",
    "model.width=glob(*)",
    "model=glob(*)",
    "model.width=[1",
    "=x",
    "",
    "+callbacks.x={" * 2000,
]

HARMLESS = [
    "model=rfm", "model=mlp,rfm", "data=digits", "callbacks=none", "+experiment=side_by_side", "seed=null",
    "model.width=8", "model.width=8,16", "training.lr=1e-3", "seed=0", "model.bandwidth=[1,2.5,median]",
    "callbacks.ansatz.layers='hidden*'", "+trainer.limit_test_batches=0", "data.root=photos", "seed=range(3)",
    "trainer.precision=64-true", "+model.kernel_options={nu: 1.5}", "hydra.run.dir='runs/a'",
    "ckpt_path=last", "~callbacks.ansatz",
]  # fmt: skip


@pytest.mark.parametrize("override", CODE, ids=lambda text: text[:40])
def test_options_that_could_name_code(override):
    assert naming_code([override]) == [override]


@pytest.mark.parametrize("override", HARMLESS)
def test_options_that_are_plain_values_or_the_projects_own(override):
    assert naming_code([override]) == []


@pytest.fixture
def stranger(tmp_path, monkeypatch, run):
    """Function that lays out a folder as a stranger may send it; a module tells when it is imported."""
    (tmp_path / "evil.py").write_text("open('RAN', 'w').write('x')\n\ndef build(**options):\n    raise 1\n")
    first = run(*MLP, folder="runs/stranger")
    assert first.code == 0, first.err
    (first.folder / ".hydra" / ".signature").write_text("0" * 64)

    def lay_out(*overrides):
        saved = first.folder / ".hydra" / "overrides.yaml"
        saved.write_text(yaml.safe_dump([*yaml.safe_load(saved.read_text()), *overrides]))
        return first.folder

    return lay_out


def one_line(done, words):
    assert done.code == 1
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert not Path("RAN").exists()


@pytest.mark.parametrize("override", [text for text in CODE if len(text) < 100 and "${" not in text])
def test_a_strangers_folder_runs_nothing(run, stranger, override):
    stranger(override)
    done = run("ckpt_path=last", "trainer.max_epochs=2", folder="runs/stranger", small=False)
    one_line(done, "counts only when it is typed")


def test_what_is_said_is_what_to_type(run, stranger):
    stranger("+callbacks.x._target_=evil.build")
    done = run("ckpt_path=last", "trainer.max_epochs=2", folder="runs/stranger", small=False)
    one_line(done, "if you trust it, add +callbacks.x._target_=evil.build to the command")
    plain = ("ckpt_path=last", "trainer.max_epochs=2", "+callbacks.x._target_=pytorch_lightning.Callback")
    assert run(*plain, folder="runs/stranger", small=False).code == 0


def test_plain_options_of_a_stranger_are_followed(run, stranger):
    stranger("callbacks.ansatz.pictures=0")
    done = run("ckpt_path=last", "trainer.max_epochs=2", folder="runs/stranger", small=False)
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 2


def test_the_signature_of_other_options_is_none(tmp_path):
    sign(tmp_path, ["model=mlp"])
    assert is_signed(tmp_path, ["model=mlp"])
    assert not is_signed(tmp_path, ["model=mlp", "model._target_=evil"])
    assert not is_signed(tmp_path / "other", ["model=mlp"])


def test_another_user_does_not_trust_it(tmp_path, monkeypatch):
    sign(tmp_path, ["model=mlp"])
    monkeypatch.setattr("lab.trust.signature.ROOT", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert not is_signed(tmp_path, ["model=mlp"])
    assert not (tmp_path / "elsewhere").exists()  # a look makes no secret


def test_without_a_home_the_checkout_keeps_the_secret(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("lab.trust.signature.ROOT", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "below"))
    sign(tmp_path, ["model=mlp"])
    assert is_signed(tmp_path, ["model=mlp"])
    assert (tmp_path / ".state" / "secret").stat().st_mode & 0o077 == 0


def test_without_any_place_for_a_secret_runs_go_on(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("lab.trust.signature.ROOT", tmp_path / "file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "below"))
    sign(tmp_path, ["model=mlp"])
    assert not is_signed(tmp_path, ["model=mlp"])


def test_own_code_goes_on_without_typing_it_again(run, tmp_path):
    (tmp_path / "my_signed_nets.py").write_text(
        "from torch import nn\n\ndef tiny():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    without = [f"~model.{name}" for name in ("width", "depth", "activation", "bias")]
    first = run("model=mlp", *without, "model._target_=my_signed_nets.tiny", folder="a")
    assert first.code == 0, first.err
    done = run("ckpt_path=last", "trainer.max_epochs=3", folder="a", small=False)
    assert done.code == 0, done.err
    assert done.summary["epochs"] == 3


# ---- sweeps ------------------------------------------------------------------------------------------------


def test_sweeps_likewise(run, tmp_path):
    options = ("-m", *MLP, "seed=0,1", "hydra.sweep.dir=s")
    assert run(*options).code == 0
    again = ("-m", "ckpt_path=last", "hydra.sweep.dir=s", "+callbacks.x._target_=pytorch_lightning.Callback")
    own = run(*again[:-1], small=False)
    assert own.out.count("finished before") == 2
    path = tmp_path / "s" / "multirun.yaml"
    path.write_text(
        path.read_text().replace("- model=mlp\n", "- model=mlp\n    - +callbacks.x._target_=evil.build\n")
    )
    (tmp_path / "evil.py").write_text("open('RAN', 'w').write('x')\n")
    one_line(run(*again[:-1], small=False), "add +callbacks.x._target_=evil.build to the command")
    path.write_text(path.read_text().replace("+callbacks.x._target_=evil.build", "hydra/launcher=evil"))
    one_line(run(*again[:-1], small=False), "add hydra/launcher=evil to the command")


# ---- malformed ---------------------------------------------------------------------------------------------

MALFORMED = {
    "cut": "- model=mlp\n- 'model.wid",
    "no list": "model: mlp",
    "nothing": "",
    "numbers in a list": "- [1, 2]\n",
    "a mapping in a list": "- a: b\n",
    "tabs": "\t- x",
    "another document": "- a=1\n---\n- b=2\n",
    "an object": "!!python/object/apply:os.system ['touch RAN']",
    "objects in a list": "- !!python/object/apply:os.system ['touch RAN']",
    "references": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]",
    "deep": "[" * 5000,
    "not UTF-8": b"- model=\xff\xfe",
    "zeros": b"\0" * 100,
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_malformed_options_are_one_line(run, tmp_path, content, sweep):
    path = tmp_path / "a" / ("multirun.yaml" if sweep else ".hydra/overrides.yaml")
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if sweep:
        done = run("-m", "ckpt_path=last", "hydra.sweep.dir=a", small=False)
    else:
        done = run("ckpt_path=last", folder="a", small=False)
    one_line(done, "start a new run")


def test_a_folder_in_the_place_of_the_options(run, tmp_path):
    (tmp_path / "a" / ".hydra" / "overrides.yaml").mkdir(parents=True)
    done = run("ckpt_path=last", folder="a", small=False)
    one_line(done, "the options in a/.hydra/overrides.yaml cannot be read")


# ---- the newest --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dated", ["checkpoints/last.ckpt", "."])
def test_what_is_dated_in_the_future_is_not_the_newest_run(run, tmp_path, dated, monkeypatch, capsys):
    for name in ("mine", "theirs"):
        assert run(*MLP, folder=f"runs/{name}").code == 0
    later = time.time() + 10**6
    os.utime(tmp_path / "runs" / "theirs" / dated, (later, later))
    import sys

    import train

    monkeypatch.setattr(sys, "argv", ["train.py", "ckpt_path=last", "trainer.max_epochs=2"])
    train.main()
    assert "runs/theirs is dated in the future, and not taken for the newest" in capsys.readouterr().err
    assert "test/accuracy" in (tmp_path / "runs" / "mine" / "summary.json").read_text()
    assert '"epochs": 2' in (tmp_path / "runs" / "mine" / "summary.json").read_text()
    assert '"epochs": 1' in (tmp_path / "runs" / "theirs" / "summary.json").read_text()
