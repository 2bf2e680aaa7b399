"""Rows of tables to inputs: as on training rows, from JSON alone, or refused in one line."""

import copy
import csv
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nfa
from nfa.command.cli import main
from nfa.errors import NfaError
from nfa.inputs.tables import (
    Notation,
    Outputs,
    Table,
    TableEncoder,
    encoder,
    load_encoder,
    missing,
    objects,
    read_table,
)

NUMBERS = st.one_of(st.none(), st.floats(-100, 100).map(lambda v: round(v, 2)), st.integers(-3, 3).map(float))
TEXTS = st.one_of(st.none(), st.sampled_from(("red", "green", "", "NA", "1", "é\ud800")), st.text(max_size=3))
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw):
    """Columns of numbers and of text, with gaps, of equal length."""
    n = draw(st.integers(4, 12))
    kinds = draw(st.lists(st.booleans(), min_size=1, max_size=5))
    columns = {}
    for i, numeric in enumerate(kinds):
        cells = draw(st.lists(NUMBERS if numeric else TEXTS, min_size=n, max_size=n))
        if numeric:
            columns[f"c{i}"] = np.array([math.nan if v is None else v for v in cells])
        else:
            columns[f"c{i}"] = objects(cells)
    return Table(columns, "drawn")


def slow(train, rows, standardize):
    """The same in plain loops, float64 (n, features)."""
    made = []
    for name, values in train.columns.items():
        gaps, new = missing(values), rows.columns[name]
        known = values[~gaps]
        if not len(known):
            continue
        if values.dtype == np.float64:
            median = np.median(known)
            filled = np.where(gaps, median, values)
            mean, std = filled.mean(), filled.std()
            if std > 1e-12 * abs(mean):
                scale = (mean, std) if standardize else (0.0, 1.0)
                made.append((np.where(np.isnan(new), median, new) - scale[0]) / scale[1])
            if gaps.any():
                made.append(np.isnan(new))
        elif len(set(known)) + gaps.any() >= 2 and len(set(known)) < 0.9 * len(known):
            levels = [*sorted(set(known)), *([None] if gaps.any() else [])]
            made += [np.array([value == level for value in new]) for level in levels]
    return np.stack(made, 1).astype(float) if made else None


@SLOW
@given(tables(), st.booleans())
def test_the_same_as_in_plain_loops_and_from_json(tmp_path, table, standardize):
    train, rows = table.take(np.arange(len(table)) % 4 != 1), table
    expected = slow(train, rows, standardize)
    if expected is None:
        with pytest.raises(NfaError, match="no input column is left"):
            TableEncoder.fit(train, standardize=standardize)
        return
    fitted = TableEncoder.fit(train, standardize=standardize)
    x = fitted.transform(rows)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(fitted._encode(fitted._checked(rows)), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)
    assert len(fitted.feature_names) == x.shape[1]
    fitted.save(tmp_path / "table.json")
    again = load_encoder(tmp_path)
    assert again == fitted
    assert torch.equal(again.transform(rows), x)
    turned = Table({"more": objects([None] * len(rows)), **dict(reversed(rows.columns.items()))}, "turned")
    assert torch.equal(again.transform(turned), x)


def mixed(n=40):
    generator = np.random.default_rng(0)
    size = generator.normal(size=n)
    size[3] = math.nan
    colours = objects(("red", "green", None)[i % 3] for i in range(n))
    return Table({"size": size, "age": generator.uniform(20, 60, n), "colour": colours}, "made up")


def test_unknown_texts_and_gaps_that_training_had_none_of():
    fitted = TableEncoder.fit(mixed())
    assert fitted.feature_names == (
        "size", "size missing", "age", "colour=green", "colour=red", "colour missing",
    )  # fmt: skip
    nan = math.nan
    new = {"age": np.array([nan, 30.0]), "size": np.array([nan, nan]), "colour": objects(["blue", None])}
    x = fitted.transform(Table(new, "new"))
    medians = [(column.median - column.mean) / column.std for column in fitted.columns[:2]]
    torch.testing.assert_close(x[0], torch.tensor([medians[0], 1, medians[1], 0, 0, 0]))
    assert x[1, 3:].tolist() == [0, 0, 1]


def test_many_rows_are_encoded_in_blocks(monkeypatch):
    fitted = TableEncoder.fit(mixed())
    whole = fitted.transform(mixed(100))
    monkeypatch.setattr(encoder, "_BLOCK", 50)
    assert torch.equal(fitted.transform(mixed(100)), whole)


def test_a_setting_of_scikit_learn_changes_nothing():
    from sklearn import config_context

    whole = TableEncoder.fit(mixed()).transform(mixed())
    with config_context(transform_output="pandas"):
        assert torch.equal(TableEncoder.fit(mixed()).transform(mixed()), whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"age": None, "colour": None}, "it has no age, colour: add what is missing"),
        ({"age": objects(["x", "9"])}, "column 'age' of new holds texts such as 'x', and held numbers"),
        ({"age": np.array([1.0, math.inf])}, "column 'age' of new has infinite values"),
        ({"age": np.array([1.0, 1e300])}, "column 'age' of new has a number in row 2 that is too far from"),
    ],
)
def test_other_columns_are_refused(change, said):
    good = {"size": np.zeros(2), "age": np.zeros(2), "colour": objects(["red", "green"])}
    columns = {name: values for name, values in {**good, **change}.items() if values is not None}
    with pytest.raises(NfaError, match=said) as error:
        TableEncoder.fit(mixed()).transform(Table(columns, "new"))
    assert "\n" not in str(error.value)


# ---- files ------------------------------------------------------------------------------------------------


def write(path, columns):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=";")
        writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def test_files_are_read_as_those_of_training(tmp_path):
    columns = {
        "temp": [f"{i % 7},5" for i in range(40)],
        "share": [f"{i} %" for i in range(40)],
        "code": ["05", "5", "A", "-999"] * 10,
        "kind": ["1", "2,0"] * 20,
    }
    how = Notation(decimal=",", gaps=(-999,))
    path = write(tmp_path / "a.csv", columns)
    train = read_table(path, how=how).with_text(["kind"])
    fitted = TableEncoder.fit(train)
    x = fitted.transform(train)
    fitted.save(tmp_path / "e.json")
    again = load_encoder(tmp_path / "e.json")
    assert torch.equal(again.transform(path), x)
    names = fitted.feature_names
    new = write(
        tmp_path / "b.csv",
        {"kind": ["1", "2"], "code": ["05", "05"], "temp": [1, 2], "share": ["9%", "8%"]},
    )
    x = again.transform(new)
    assert x[:, names.index("code=05")].tolist() == [1, 1]
    assert x[:, [names.index("kind=1"), names.index("kind=2")]].tolist() == [[1, 0], [0, 1]]
    write(new, {**{name: values[:2] for name, values in columns.items()}, "share": [1, 2]})
    with pytest.raises(NfaError, match=r"'share' of .* holds numbers, and held numbers in % in training"):
        again.transform(new)
    write(new, {**{name: values[:2] for name, values in columns.items()}, "temp": ["1.5", "2.5"]})
    with pytest.raises(NfaError, match=r"written like '1.5', which data.decimal=comma does not"):
        again.transform(new)


OUTPUTS = Outputs("y", ("no", "yes"))


@pytest.fixture
def state(tmp_path):
    replace(TableEncoder.fit(mixed()), outputs=OUTPUTS).save(tmp_path / "table.json")
    return json.loads((tmp_path / "table.json").read_text())


def test_nothing_in_the_file_names_code(state):
    assert not {"sklearn", "Scaler", "Encoder", "_target_"} & set(json.dumps(state))
    assert state["outputs"] == {"name": "y", "class_names": ["no", "yes"], "mean": 0.0, "std": 1.0}
    assert all("levels" in column or "median" in column for column in state["columns"])


WRONG = [None, True, -1, 0, "text", [], {}, [None, None], math.nan, math.inf, 10**400, ["b", "a"], [[]]]


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def outcome(folder, rows):
    """What is said of an encoder; None where it encodes rows."""
    try:
        found = load_encoder(folder)
        x = found.transform(rows)
    except NfaError as error:
        return str(error)
    assert x.isfinite().all()
    assert x.shape == (len(rows), len(found.feature_names))
    return None


def test_any_wrong_value_is_one_line(tmp_path, state):
    """An encoder from a file with another value works, or is refused in one line."""
    rows, file = mixed(4), tmp_path / "table.json"
    for path in places(state):
        for wrong in [*WRONG, ...]:
            other = {"": copy.deepcopy(state)}
            at = other
            for key in ("", *path[:-1]) if path else ():
                at = at[key]
            key = path[-1] if path else ""
            if wrong is ...:
                del at[key]
            else:
                at[key] = wrong
            file.write_text(json.dumps(other.get("")))
            assert not (said := outcome(tmp_path, rows)) or "\n" not in said, (path, wrong)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, "\0", '{"format": 2}', "[1]", "NaN"])
def test_no_encoder(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(NfaError, match=r"table\.json") as error:
        load_encoder(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(NfaError, match=r"expected table.json of a run on a table at .*nowhere, found none"):
        load_encoder(tmp_path / "nowhere")


# ---- runs -------------------------------------------------------------------------------------------------

SMALL = ("model=mlp", "model.width=8", "callbacks=none", "logger=csv", "trainer.max_epochs=2")


@pytest.fixture
def done(run, tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 2)).round(3)
    columns = {
        "a": [str(v).replace(".", ",") for v in rows[:, 0]],
        "b": ["" if i % 9 == 2 else v for i, v in enumerate(rows[:, 1].round(0).astype(int))],
        "site": ["x", "y", "z"] * 20,
        "y": [("no", "yes")[int(v > 0)] for v in rows[:, 0]],
    }
    write(tmp_path / "t.csv", columns)
    options = ("data=tabular", "data.path=t.csv", "data.target=y", "data.decimal=comma")
    return run(*SMALL, *options, "trainer.accelerator=cpu", small=False)


def test_a_run_leaves_what_predicts_for_a_new_table(done, tmp_path):
    assert done.code == 0
    assert "table.json" in done.summary["files"]
    found = load_encoder(done.folder)
    assert found.outputs == Outputs("y", ("no", "yes"))
    assert done.summary["n_one_hot"] == found.num_one_hot == 3
    (tmp_path / "new.csv").write_text("site;b;a\nx;3;-0,25\nnew;;1,5\n")
    x = found.transform(tmp_path / "new.csv")
    assert x.shape == (2, 6)
    assert x[1, 3:].tolist() == [0, 0, 0]
    network = nfa.zoo.load(f"file:{done.folder}").model
    assert network(x).shape == (2, 2)


def test_a_run_is_audited_on_a_new_table(done, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("site;b;a\n" + "x;3;-0,25\ny;;1,5\nz;2;0,5\n" * 8)
    audit = ["audit", f"file:{done.folder}", "--out", str(tmp_path / "audit"), "--pictures", "0"]
    assert main([*audit, "--data", str(tmp_path / "new.csv")]) == 0
    assert "new.csv: 24 rows" in capsys.readouterr().err
    for data, said in (
        ("--mean 0.5", "holds ready inputs"),
        ("--split test", "not divided into train and test"),
    ):
        with pytest.raises(SystemExit):
            main([*audit, "--data", str(tmp_path / "new.csv"), *data.split()])
        assert said in capsys.readouterr().err
    (done.folder / "table.json").unlink()
    with pytest.raises(SystemExit):
        main([*audit, "--data", str(tmp_path / "new.csv")])
    assert "is a table, and nothing says how its rows become inputs" in capsys.readouterr().err


def test_a_run_on_other_data_leaves_none(run):
    first = run(*SMALL, "data=wine", small=False, folder="both")
    assert (first.folder / "table.json").is_file()
    again = run(*SMALL, "data=low_rank", small=False, folder="both")
    assert again.code == 0
    assert not (again.folder / "table.json").exists()


def test_without_the_packages(tmp_path):
    """The library is imported without numpy, pandas and scikit-learn, and says what to install."""
    code = (
        "import sys; sys.modules.update({MODULES})\n"
        "import nfa\n"
        "try:\n"
        "    from nfa.inputs.tables import Table, TableEncoder\n"
        "    import numpy\n"
        "    TableEncoder.fit(Table({'a': numpy.arange(9.0)}, 'made up'))\n"
        "except nfa.NfaError as error:\n"
        "    print(error)\n"
    )
    for modules, said in (
        ("numpy=None", 'tables need numpy: pip install "neural-feature-ansatz[tables]"'),
        ("pandas=None, sklearn=None", "encoding tables needs scikit-learn: install it (pip install"),
    ):
        asked = [sys.executable, "-c", code.replace("{MODULES}", modules)]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert said in done.stdout
