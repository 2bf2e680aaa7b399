"""Run folders and checkpoints of a stranger that training goes on with."""

import copy
import shutil

import pytest
import torch

from nfa.files import replaced_whole, write_whole

OPTIONS = ("model=mlp", "model.width=4", "callbacks=none", "data.n_train=64", "data.n_test=20")


@pytest.fixture
def trained(run, tmp_path):
    """A run of one epoch in ``g``, and what its checkpoint holds."""
    done = run(*OPTIONS, "trainer.max_epochs=1", folder="g")
    assert done.code == 0, done.err
    return torch.load(tmp_path / "g" / "checkpoints" / "last.ckpt", weights_only=True)


DAMAGE = {
    "random states": lambda c: c["callbacks"]["LastCheckpoint"]["random_states"][0].update(
        torch=torch.zeros(3)
    ),
    "no random states": lambda c: c["callbacks"]["LastCheckpoint"].update(random_states=[]),
    "a random state": lambda c: c["callbacks"]["LastCheckpoint"]["random_states"][0].update(
        python=[3, [1], None]
    ),
    "words for numbers": lambda c: c["callbacks"]["RunFolder"]["rows"][0].update(epoch="x"),
    "no rows": lambda c: c["callbacks"]["RunFolder"].update(rows=[5]),
    "formulas for names": lambda c: c["callbacks"]["RunFolder"]["rows"][0].update({"=HYPERLINK(1)": 1.0}),
    "escapes for names": lambda c: c["callbacks"]["RunFolder"]["rows"][0].update({"\x1b]0;o\x07": 1.0}),
    "seconds": lambda c: c["callbacks"]["RunFolder"].update(fit_seconds="x"),
    "momentum of another size": lambda c: c["optimizer_states"][0]["state"][0].update(
        momentum_buffer=torch.zeros(3)
    ),
    "momentum without memory": lambda c: [
        state.update(momentum_buffer=torch.zeros(1).expand(state["momentum_buffer"].shape))
        for state in c["optimizer_states"][0]["state"].values()
    ],
    "a word for momentum": lambda c: [
        g.update(momentum="x") for g in c["optimizer_states"][0]["param_groups"]
    ],
    "rates": lambda c: c["lr_schedulers"][0].update(base_lrs=["x"], T_max=0, last_epoch="q"),
    "methods of the schedule": lambda c: c["lr_schedulers"][0].update(step=5, get_lr=7),
}


def test_damaged_states_are_one_line(run, tmp_path, trained):
    for name, damage in DAMAGE.items():
        content = copy.deepcopy(trained)
        damage(content)
        torch.save(content, tmp_path / "x.ckpt")
        done = run(*OPTIONS, "trainer.max_epochs=2", "ckpt_path=x.ckpt", folder=f"r {name}".replace(" ", "_"))
        assert done.code == 1, name
        assert done.err.startswith("error: "), (name, done.err)
        assert done.err.count("\n") == 1, (name, done.err)
        assert "\x1b" not in done.err


LINKS = (
    "metrics.csv",
    ".hydra/overrides.yaml",
    ".hydra/config.yaml",
    "train.log",
    "checkpoints/other.ckpt",
    "new",
)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("options", [True, False], ids=["with options", "without"])
def test_links_that_lead_elsewhere(run, tmp_path, trained, link, options):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "stranger"
    shutil.copytree(tmp_path / "g", folder)
    (folder / ".hydra" / ".signature").unlink()
    if not options:
        (folder / ".hydra" / "overrides.yaml").unlink()
    path = folder / link
    if link == ".hydra/overrides.yaml":  # a link to what it says today, which Hydra would write anew
        victim.write_text((tmp_path / "g" / link).read_text())
    before = victim.read_text()
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    given = () if options else OPTIONS
    done = run(*given, "ckpt_path=last", "trainer.max_epochs=2", folder="stranger", small=False)
    assert done.code == 1
    assert "leads out of" in done.err
    assert victim.read_text() == before


def test_own_folders_may_have_links(run, tmp_path, trained):
    shutil.move(tmp_path / "g" / "checkpoints", tmp_path / "elsewhere")
    (tmp_path / "g" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    done = run("ckpt_path=last", "trainer.max_epochs=2", folder="g", small=False)
    assert done.code == 0, done.err


def test_a_link_in_the_place_of_what_is_being_written(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "x.csv.partial").symlink_to(victim)
    write_whole(tmp_path / "x.csv", "new")
    with replaced_whole(tmp_path / "y.csv") as partial:
        partial.write_text("new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "x.csv").read_text() == (tmp_path / "y.csv").read_text() == "new"
