"""What measuring costs is said, and a budget for it chooses the cadence of a run, but not of a sweep's."""

import re

import yaml

NET = ("model=mlp", "model.width=8", "trainer.max_epochs=3")
TIGHT = "callbacks.ansatz.budget=1e-9"  # nothing but the beginning and the end can be afforded


def measured(done):
    return sorted({row.epoch for row in done.rows})


def test_a_run_says_what_measuring_costs(run):
    done = run(*NET)
    assert measured(done) == [0, 1, 2, 3]
    assert (
        len(re.findall(r"^measuring takes .* of an epoch of training; once every epoch", done.out, re.M)) == 1
    )
    seconds = done.summary["ansatz_seconds"]
    assert re.search(rf"s of training, {seconds:.1f} s of measuring\)", done.out)
    assert "ansatz_every_n_epochs" not in done.summary


def test_a_budget_is_kept_when_a_run_goes_on(run):
    done = run(*NET, TIGHT)
    assert measured(done) == [0, 3]
    assert done.summary["ansatz_every_n_epochs"] == 3
    assert "once every 3 epochs keeps it to" in done.out
    longer = run(*NET, TIGHT, "trainer.max_epochs=7", "ckpt_path=last")
    assert measured(longer) == [0, 3, 6, 7]
    assert longer.summary["ansatz_every_n_epochs"] == 3


def test_a_cadence_that_is_given_stands(run):
    assert measured(run(*NET, TIGHT, "callbacks.ansatz.every_n_epochs=1")) == [0, 1, 2, 3]


def test_jobs_of_a_sweep_are_measured_alike(run, tmp_path):
    done = run("-m", *NET, TIGHT, "seed=0,1", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.err
    folders = [path.parent for path in (tmp_path / "sweep").glob("*/ansatz.csv")]
    assert len(folders) == 2
    for folder in folders:
        text = (folder / "ansatz.csv").read_text().splitlines()[1:]
        assert sorted({float(line.split(",")[0]) for line in text}) == [0, 1, 2, 3]
        config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
        assert config["callbacks"]["ansatz"]["budget"] == 1e-9
    assert "measuring takes" not in done.out
