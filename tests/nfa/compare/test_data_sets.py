"""Runs of several data sets: a comparison each, told apart by what the runs hold and not by names alone."""

import csv
import re

import pytest

from nfa import NfaError
from nfa.command.cli import main
from nfa.compare import compare_each
from nfa.page.text import escape
from tests.nfa.run_folders import PATCH, make_run


def two_of(tmp_path, name, **facts):
    """Runs of two models on one data set."""
    prefix = re.sub(r"\W", "", name) + str(len(list(tmp_path.iterdir())))
    return [
        make_run(tmp_path / f"{prefix}_{model}", model, 0, score, **{"data": name} | facts)
        for model, score in (("mlp", 0.8), ("rfm", 0.9))
    ]


def sets_of(paths):
    found, left_out = compare_each(paths)
    return {one.data: sorted(run.path.name for run in one.runs) for one in found}, left_out


def test_each_data_set_is_compared_by_itself(tmp_path, capsys):
    digits = two_of(tmp_path, "digits")
    wine = two_of(tmp_path, "wine", test_split="0" * 16)
    error = {"test/accuracy": None, "test/mse": 0.5}
    housing = [make_run(tmp_path / m, m, 0, data="housing", **error) for m in ("mlp", "kernel")]
    lone = make_run(tmp_path / "lone", "cnn", 0, data="mnist")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    paths = [*digits, *wine, *housing, lone, tmp_path / "empty"]
    assert main(["compare", *map(str, paths), "--out", str(out)]) == 0
    told = capsys.readouterr()
    for name, metric in (("digits", "test/accuracy"), ("wine", "test/accuracy"), ("housing", "test/mse")):
        assert f"== {name}: 2 runs" in told.out
        assert f"comparison   {out / name / 'comparison.html'}" in told.out
        with (out / name / "comparison.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        assert [(row["data"], metric in row) for row in rows] == [(name, True)] * 2
        assert f"<h1>2 models on {name}</h1>" in (out / name / "comparison.html").read_text()
        assert (out / name / "similarity.csv").is_file()
    assert f"left out: {lone} is the only run on mnist" in told.err
    assert "empty holds no run" in told.err
    contents = (out / "comparison.html").read_text()
    links = re.findall(r'<a href="(.*?)">(.*?)</a>', contents)
    assert links == [(f"{name}/comparison.html", name) for name in ("digits", "wine", "housing")]
    assert contents.count("rfm has the highest test accuracy") == 2
    assert "lone is the only run on mnist" in contents
    assert f"all          {out / 'comparison.html'}" in told.out


def test_one_data_set_has_its_files_as_ever(tmp_path, capsys):
    out = tmp_path / "out"
    runs = two_of(tmp_path, "digits")
    lone = make_run(tmp_path / "lone", "cnn", 0, data="mnist")
    assert main(["compare", *map(str, [*runs, lone]), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.csv", "comparison.html", "similarity.csv"
    ]  # fmt: skip
    told = capsys.readouterr()
    assert "==" not in told.out
    assert "lone is the only run on mnist" in told.err
    assert "lone is the only run on mnist" in (out / "comparison.html").read_text()
    more = two_of(tmp_path, "wine")
    assert main(["compare", *map(str, [*runs, *more]), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.html",
        "digits",
        "wine",
    ]  # no old table


def test_one_name_with_other_test_samples_is_another_data_set(tmp_path):
    """Of one seed: so a file that was edited between the runs, or other options of the data."""
    before = two_of(tmp_path, "tabular", test_split="a" * 16)
    after = two_of(tmp_path, "tabular", test_split="b" * 16)
    found, left_out = sets_of([*before, *after])
    assert found == {
        f"tabular (test samples {letter * 16})": sorted(path.name for path in paths)
        for letter, paths in (("a", before), ("b", after))
    }
    assert left_out == []


def test_what_tells_two_of_one_name_apart_is_in_their_names(tmp_path):
    small, large = (
        two_of(tmp_path, "star", test_split=f"{size:x}" * 8, settings={"data.size": size, "data.noise": 1})
        for size in (10, 15)
    )
    found, _ = sets_of([*small, *large])
    assert found.keys() == {"star (size=10)", "star (size=15)"}


def test_inputs_of_another_shape_are_another_data_set(tmp_path):
    """Also where no two runs of one seed tell."""
    first = two_of(tmp_path, "photos")
    other = [
        make_run(tmp_path / f"wide{m}", m, 1, data="photos", facts=PATCH | {"input_shape": "1x2x2"})
        for m in ("mlp", "rfm")
    ]
    for path in other:
        (path / "features.safetensors").unlink()
    found, _ = sets_of([*first, *other])
    assert len(found) == 1  # nothing is known of it
    from safetensors.torch import save_file

    from tests.nfa.run_folders import spd

    for path in other:
        save_file({"nfm": spd(4, 1)}, path / "features.safetensors", PATCH | {"input_shape": "1x2x2"})
    found, _ = sets_of([*first, *other])
    assert found.keys() == {"photos (inputs 1x3x3)", "photos (inputs 1x2x2)"}


def test_one_data_set_with_splits_of_seeds_and_folds_stays_one(tmp_path):
    paths = [
        make_run(tmp_path / f"{m}{s}{n}", m, s, 0.9, test_split=f"split{s}", options=[f"data.n_train={n}"])
        for m in ("mlp", "rfm")
        for s in (0, 1)
        for n in (10, 20)
    ]
    found, _ = sets_of(paths)
    assert [len(runs) for runs in found.values()] == [8]


def test_seeds_go_with_the_samples_they_share(tmp_path):
    """A data set with a fixed test set: other seeds are known by it, whatever their options."""
    paths = {
        letter: [
            make_run(
                tmp_path / f"{letter}{s}", "mlp", s, test_split=letter * 16, options=[f"data.n_train={9 + s}"]
            )
            for s in (0, 1)
        ]
        for letter in "ab"
    }
    found, _ = sets_of([*paths["a"], *paths["b"]])
    assert sorted(found.values()) == [["a0", "a1"], ["b0", "b1"]]


def test_a_data_set_that_cannot_be_compared_leaves_the_others(tmp_path, capsys):
    good = two_of(tmp_path, "digits")
    twice = [make_run(tmp_path / folder, "mlp", 0, data="wine") for folder in ("a", "b")]
    assert main(["compare", *map(str, [*good, *twice]), "--out", str(tmp_path / "out")]) == 0
    assert "left out: wine is not compared: mlp with seed 0 is there twice" in capsys.readouterr().err
    with pytest.raises(NfaError, match="mlp with seed 0 is there twice"):
        compare_each(twice)


def test_one_run_of_each_data_set_is_refused(tmp_path):
    paths = [make_run(tmp_path / name, "mlp", 0, data=name) for name in ("digits", "wine")]
    with pytest.raises(NfaError, match=r"no two of these runs are of one data set .*wine is of wine"):
        compare_each(paths)


@pytest.mark.parametrize("name", ["../../etc", "comparison.html", "a/b", "<b>", "wandb", "….", "run"])
def test_folders_are_named_after_data_and_stay_inside(tmp_path, name):
    paths = [*two_of(tmp_path, name), *two_of(tmp_path, name.upper() + " "), *two_of(tmp_path, "other")]
    out = tmp_path / "out"
    taken = make_run(out / "run", "mlp", 0)
    before = sorted(taken.iterdir())
    assert main(["compare", *map(str, paths), "--out", str(out)]) == 0
    folders = [path for path in out.iterdir() if path.is_dir() and path != taken]
    assert len({path.name.lower() for path in folders}) == 3
    assert all((path / "comparison.html").is_file() for path in folders)
    assert sorted(taken.iterdir()) == before
    contents = (out / "comparison.html").read_text()
    assert f">{escape(name)}</a>" in contents
    for address in re.findall(r'<a href="(.*?)"', contents):
        assert (out / address).is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["out", *(p.name for p in paths)])


def test_each_comparison_is_logged_with_its_own_files_and_name(tmp_path, capsys, monkeypatch):
    pytest.importorskip("wandb")
    logged = []

    def log(project, name, group, comparison, files, *, directory, mode):
        logged.append((project, name, group, comparison.data, mode))
        assert directory == tmp_path / "out"
        inside = directory / comparison.data if len(paths) > 2 else directory
        assert sorted(files) == sorted(
            inside / n for n in ("comparison.csv", "similarity.csv", "comparison.html")
        )
        assert all(file.is_file() for file in files)
        return directory, f"where {comparison.data} is"

    monkeypatch.setattr("nfa.integrations.wandb_sink.log_comparison", log)
    digits, wine = two_of(tmp_path, "digits"), two_of(tmp_path, "wine", test_split="0" * 16)
    options = ("--out", str(tmp_path / "out"), "--wandb", "p", "--group", "g")
    for paths, names in ((digits + wine, ("out digits", "out wine")), (digits, ("out",))):
        logged.clear()
        assert main(["compare", *map(str, paths), *options]) == 0
        told = capsys.readouterr().out
        known = ("digits", "wine")[: len(names)]
        assert sorted(logged) == [("p", n, "g", d, "auto") for n, d in zip(names, known, strict=True)]
        for data in known:
            assert f"W&B          where {data} is" in told


def test_sets_that_fail_all_are_told_together(tmp_path):
    for name, split in (("digits", "f" * 16), ("wine", "0" * 16)):
        for number in (0, 1):  # one seed of one model
            make_run(tmp_path / f"{name}{number}", "mlp", 0, data=name, test_split=split)
    with pytest.raises(
        NfaError, match=r"digits is not compared: mlp .* is there twice.*; wine is not"
    ) as refused:
        compare_each([tmp_path])
    assert "\n" not in str(refused.value)
