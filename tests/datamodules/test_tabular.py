import csv
import io
import socket
import tarfile
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
import torch

from datamodules import Split, Tabular
from datamodules.splits import cut_fold
from nfa.errors import NfaError
from nfa.inputs.stratify import generator
from nfa.inputs.tables import encoder

COLOURS = ("red", "green", "blue")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write(path, rows, names=None, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=delimiter)
        writer.writerows([names, *rows] if names else rows)
    return path


def mixed(n=60, seed=0):
    """Rows of: age (one in ten missing), width, colour (one in twelve missing), flat (constant), kind."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        age = "" if i % 10 == 3 else f"{rng.normal(40, 10):.3f}"
        colour = "NA" if i % 12 == 5 else COLOURS[int(rng.integers(3))]
        rows.append([age, f"{rng.uniform(0, 1e6):.1f}", colour, "7", ("yes", "no")[i % 3 == 0]])
    return rows


NAMES = ["age", "width", "colour", "flat", "kind"]


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "table.csv", mixed(), NAMES)


def load(path=None, target=None, **options):
    data = Tabular(path, target, **options)
    data.prepare_data()
    data.setup()
    return data


def split(data, name) -> Split:
    return data._split(name)


def everything(data):
    return torch.cat([split(data, name).x for name in ("train", "val", "test")])


def test_columns_become_inputs(table):
    data = load(table, "kind")
    assert data.feature_names == (
        "age",
        "age missing",
        "width",
        "colour=blue",
        "colour=green",
        "colour=red",
        "colour missing",
    )
    assert (data.task, data.class_names, data.input_shape) == ("classification", ("no", "yes"), (7,))
    summary = data.summary()
    assert summary["n_missing"] == {"age": 6, "colour": 5}
    assert summary["dropped"] == {"flat": "constant"}
    assert (summary["n_one_hot"], summary["target"], summary["n_without_target"]) == (4, "kind", 0)
    assert summary["feature_names"] == list(data.feature_names)
    assert (summary["n_train"], summary["n_val"], summary["n_test"]) == (43, 5, 12)


def test_numbers_are_standardised_by_the_training_split_and_the_rest_stays(table):
    x = split(load(table, "kind"), "train").x
    torch.testing.assert_close(x[:, [0, 2]].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(x[:, [0, 2]].std(0, unbiased=False), torch.ones(2))
    assert x[:, [1, 3, 4, 5, 6]].unique().tolist() == [0, 1]
    assert (x[:, 3:].sum(1) == 1).all()
    assert (x[x[:, 1] == 1, 0].unique()).numel() == 1  # the median
    assert everything(load(table, "kind"))[:, 2].abs().max() > x[:, 2].abs().min()


def test_values_are_those_of_the_file(table):
    data = load(table, "kind", normalize="none", val_fraction=0)
    rows = [r for r in mixed() if r[0]]
    train = split(data, "train").x
    median = train[train[:, 1] == 1, 0][0]
    seen = {
        (round(float(a), 3), round(float(w)), c.argmax().item())
        for a, w, c in zip(
            everything(data)[:, 0], everything(data)[:, 2], everything(data)[:, 3:], strict=True
        )
        if a != median
    }
    order = ["blue", "green", "red", "NA"]
    expected = {
        (round(float(np.float32(r[0])), 3), round(float(np.float32(r[1]))), order.index(r[2])) for r in rows
    }
    assert seen == expected


def test_what_test_and_validation_rows_hold_does_not_matter(tmp_path, table):
    """The training tensors stay as they are, to the bit, when every other row changes."""
    before = load(table, "kind", normalize="none", val_fraction=0.2)
    widths = {round(float(w)) for w in split(before, "train").x[:, 2]}
    rows = mixed()
    for row in rows:
        if round(float(np.float32(row[1]))) not in widths:
            row[:4] = ["1e9", "-5", "purple", "8"]
    path = write(tmp_path / "changed.csv", rows, NAMES)
    for normalize in ("none", "feature"):
        original = load(table, "kind", normalize=normalize, val_fraction=0.2)
        changed = load(path, "kind", normalize=normalize, val_fraction=0.2)
        assert original.feature_names == changed.feature_names
        assert torch.equal(split(original, "train").x, split(changed, "train").x)
        assert torch.equal(split(original, "train").y, split(changed, "train").y)
        for name in ("val", "test"):
            assert not torch.equal(split(original, name).x, split(changed, name).x)
            assert (split(changed, name).x[:, 3:] == 0).all()  # a colour that training never saw


def test_regression_targets_are_standardised_by_the_training_split():
    data = load(name="diabetes")
    summary = data.summary()
    raw = sklearn.datasets.load_diabetes(scaled=False).target
    y = torch.cat([split(data, name).y for name in ("train", "val", "test")])
    back = (y * summary["target_std"] + summary["target_mean"]).flatten().sort().values
    torch.testing.assert_close(back, torch.from_numpy(np.sort(raw)).float(), atol=1e-3, rtol=0)
    train = split(data, "train").y
    assert abs(train.mean()) < 1e-5
    assert abs(train.std(unbiased=False) - 1) < 1e-5
    plain = load(name="diabetes", normalize_target=False)
    assert split(plain, "train").y.max() > 100
    assert plain.summary()["target_std"] == 1


def test_bundled_sets():
    sizes = {
        "breast_cancer": (569, 30, 2),
        "iris": (150, 4, 3),
        "wine": (178, 13, 3),
        "diabetes": (442, 10, 1),
    }
    for name, (n, features, outputs) in sizes.items():
        data = load(name=name)
        assert (len(everything(data)), data.input_shape, data.num_outputs) == (n, (features,), outputs)
    data = load(name="breast_cancer")
    assert data.class_names == ("malignant", "benign")
    assert data.feature_names[0] == "mean radius"
    counts = sum(split(data, s).y.bincount() for s in ("train", "val", "test"))
    assert counts.tolist() == [212, 357]


# ---- splits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_folds_are_disjoint_and_cover_everything(name):
    options = {"name": name, "normalize": "none", "normalize_target": False, "folds": 4}
    folds = [load(**options, fold=k) for k in range(4)]
    tests = [{tuple(row) for row in split(data, "test").x.tolist()} for data in folds]
    whole = {tuple(row) for row in everything(folds[0]).tolist()}
    assert sum(map(len, tests)) == len(set().union(*tests)) == len(whole)
    for data, test in zip(folds, tests, strict=True):
        rest = {tuple(row) for s in ("train", "val") for row in split(data, s).x.tolist()}
        assert rest | test == whole
        assert not rest & test
    if name == "wine":
        counts = torch.stack([split(data, "test").y.bincount() for data in folds])
        assert (counts.amax(0) - counts.amin(0)).max() <= 1


def test_folds_are_a_function_of_the_seed():
    first, again, other = (split(load(name="iris", fold=2, seed=s), "test").x for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first.sort(0).values, other.sort(0).values)


@pytest.mark.parametrize("y", [torch.randn(23, 1), torch.arange(23) % 5 % 3])
def test_sizes_of_folds_differ_by_one(y):
    parts = [cut_fold(y, 5, k, generator(0)) for k in range(5)]
    assert sorted(torch.cat([part for _, part in parts]).tolist()) == list(range(23))
    assert {len(part) for _, part in parts} == {4, 5}
    assert all(len(rest) + len(part) == 23 for rest, part in parts)


def test_test_fraction_is_stratified_and_seeded(table):
    data = load(table, "kind", test_fraction=0.5, n_train=20, n_test=15, val_fraction=0)
    assert split(data, "test").y.bincount().tolist() == [5, 10]
    assert split(data, "train").y.bincount().tolist() == [7, 13]


def test_test_file(tmp_path):
    rows = mixed(80)
    train = write(tmp_path / "train.csv", rows[:60], NAMES)
    test = write(tmp_path / "test.csv", [row[::-1] for row in rows[60:]], NAMES[::-1])
    data = load(train, "kind", test_path=test, val_fraction=0, normalize="none")
    assert (data.summary()["n_train"], data.summary()["n_test"]) == (60, 20)
    assert split(data, "test").x[:, 2].tolist() == [np.float32(r[1]) for r in rows[60:]]


# ---- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_separators(tmp_path, table, delimiter):
    path = write(tmp_path / "other.txt", mixed(), NAMES, delimiter)
    assert torch.equal(everything(load(path, "kind")), everything(load(table, "kind")))


def test_target_by_position_and_without_names(tmp_path, table):
    path = write(tmp_path / "bare.data", mixed())
    named, bare = load(table, -1), load(path, 4, header=False)
    assert torch.equal(everything(named), everything(bare))
    assert bare.feature_names[:3] == ("0", "0 missing", "1")


def test_bom_quotes_spaces_and_blank_lines(tmp_path):
    lines = ['\ufeff"a, b" , c', "", ' "1", x', '2 , "y"', "  ", "3,x", "4,y", "5,x", ""]
    path = tmp_path / "odd.csv"
    path.write_text("\r\n".join(lines), encoding="utf-8")
    data = load(path, "c", normalize="none", val_fraction=0)
    assert data.feature_names == ("a, b",)
    assert sorted(everything(data).flatten().tolist()) == [1, 2, 3, 4, 5]


def test_csv_and_parquet_agree(tmp_path, table):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = list(zip(*mixed(), strict=True))
    arrays = {
        "age": pyarrow.array([float(v) if v else None for v in columns[0]], pyarrow.float32()).cast(
            "float64"
        ),
        "width": pyarrow.array([float(v) for v in columns[1]]),
        "colour": pyarrow.array([None if v == "NA" else v for v in columns[2]]).dictionary_encode(),
        "flat": pyarrow.array([7] * 60, pyarrow.int8()),
        "kind": pyarrow.array(columns[4]),
    }
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table(arrays), path)
    first, second = load(table, "kind"), load(path, "kind")
    assert first.summary() == second.summary()
    torch.testing.assert_close(everything(first), everything(second), atol=1e-5, rtol=0)


def test_parquet_that_cannot_be_used(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"l": [[1], [2]], "y": [0, 1]}), path)
    fails("column 'l' of .* holds list", path, "y")
    parquet.write_table(pyarrow.table([[1], [2]], names=["a", "a"]), path)
    fails("'a' is there 2 times", path, "y")
    parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.float64())}), path)
    fails("is empty", path, "a")
    path.write_bytes(b"no parquet")
    fails("cannot be read as Parquet", path, "y")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").touch()
    fails(r"needs pyarrow: install it \(pip install pyarrow\)", tmp_path / "t.parquet", "y")


# ---- choices of columns -----------------------------------------------------------------------------------


def simple(tmp_path, n=40, names=("a", "y"), **columns):
    """A table of a column `a` of numbers, a target `y` of two classes, and others."""
    rng = np.random.default_rng(0)
    whole = {"a": rng.normal(size=n).round(4), "y": ["u", "v"] * (n // 2), **columns}
    return write(tmp_path / "simple.csv", zip(*whole.values(), strict=True), list(whole))


def test_identifiers_row_numbers_and_empty_columns_are_left_out(tmp_path):
    path = simple(
        tmp_path,
        name=[f"person {i}" for i in range(40)],
        id=[139 - 7 * i % 40 for i in range(40)],
        year=range(1980, 2020),
        nothing=[""] * 40,
        word=["same"] * 40,
    )
    data = load(path, "y")
    assert data.feature_names == ("a", "year")
    dropped = data.summary()["dropped"]
    assert dropped.pop("name").startswith("identifier")
    assert dropped == {"id": "identifier (row numbers)", "nothing": "empty", "word": "constant"}


def test_drop_and_categorical(tmp_path):
    path = simple(tmp_path, code=[1, 2, 3.5, 4] * 10, other=range(40))
    data = load(path, "y", drop=["other"], categorical="code")
    assert data.feature_names == ("a", "code=1", "code=2", "code=3.5", "code=4")
    assert data.summary()["dropped"] == {"other": "data.drop"}
    fails("data.drop holds the target", path, "y", drop="y")
    fails("data.categorical to be one of the columns a, y, code", path, "y", categorical="colour")


def test_only_the_indicator_of_a_constant_column_with_gaps_is_kept(tmp_path):
    data = load(simple(tmp_path, half=[1, ""] * 20, a=range(40)), "y", drop="a")
    assert data.feature_names == ("half missing",)
    assert everything(data).unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "task", "names"),
    [
        ([0, 1] * 20, "classification", ("0", "1")),
        ([3.0, 5.0] * 20, "classification", ("3", "5")),
        (["b", "a"] * 20, "classification", ("a", "b")),
        (range(40), "regression", None),
        ([0.5, 1.5] * 20, "regression", None),
    ],
)
def test_the_task_is_read_from_the_target(tmp_path, values, task, names):
    data = load(simple(tmp_path, y=values), "y")
    assert data.task == task
    assert names is None or data.class_names == names


def test_the_task_can_be_forced(tmp_path):
    path = simple(tmp_path, y=[0, 1] * 20, z=[0.5, 1.5] * 20)
    assert load(path, "y", task="regression").task == "regression"
    assert load(path, "z", task="classification").class_names == ("0.5", "1.5")


def test_rows_without_a_target_are_left_out_and_counted(tmp_path):
    data = load(simple(tmp_path, y=["u", "v", "", "u", "NaN"] * 8), "y", missing="NaN")
    assert data.summary()["n_without_target"] == 16
    assert len(everything(data)) == 24
    assert data.remarks() == ["left out 16 rows without y"]


# ---- downloads --------------------------------------------------------------------------------------------


def make_housing(root, n=40):
    rng = np.random.default_rng(0)
    rows = rng.uniform(1, 100, (n, 9))
    text = "\n".join(",".join(f"{v:.6f}" for v in row) for row in rows).encode()
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "cal_housing.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("CaliforniaHousing/cal_housing.data")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return rows


def test_california_housing_put_there_by_hand(tmp_path):
    rows = make_housing(tmp_path)
    data = load(
        name="california_housing", root=tmp_path, normalize="none", normalize_target=False, val_fraction=0
    )
    x, y = everything(data), torch.cat([split(data, s).y for s in ("train", "val", "test")])
    order = x[:, 7].argsort()  # longitude
    rows = rows[rows[:, 0].argsort()]
    torch.testing.assert_close(x[order, 0], torch.from_numpy(rows[:, 7]).float())
    torch.testing.assert_close(x[order, 5], torch.from_numpy(rows[:, 5] / rows[:, 6]).float())
    torch.testing.assert_close(y[order, 0], torch.from_numpy(rows[:, 8] / 1e5).float())


@pytest.mark.parametrize("download", [True, False])
def test_missing_downloads_say_what_belongs_where(tmp_path, monkeypatch, download):
    def refuse(**options):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", refuse)
    options = {"root": tmp_path, "download": download}
    message = fails("california_housing is missing", name="california_housing", **options)
    assert str(tmp_path / "cal_housing.tgz") in message
    assert "https://ndownloader.figshare.com" in message
    message = fails("data set 31 of OpenML", name="openml:31", **options)
    assert str(tmp_path / "openml" / "31.csv") in message
    assert ("no network" in message) == download
    assert socket.getdefaulttimeout() is None


def test_damaged_download(tmp_path, monkeypatch):
    (tmp_path / "cal_housing.tgz").write_bytes(b"no archive")
    fails("damaged", name="california_housing", root=tmp_path)
    (tmp_path / "cal_housing.tgz").unlink()
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"something else"))
    fails("another checksum", name="california_housing", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_openml(tmp_path, monkeypatch, table):
    bunch = SimpleNamespace(
        data=np.array([[0, 1.5], [1, 2.5], [np.nan, 0.5], [1, 1.0]] * 10),
        feature_names=["shape", "size"],
        categories={"shape": ["flat", "round"], "class": ["bad", "good"]},
        target=np.array(["good", "bad", "good", "bad"] * 10, dtype=object),
        target_names=["class"],
    )
    asked = []
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda **options: asked.append(options) or bunch)
    data = load(name="openml:31", root=tmp_path)
    assert data.feature_names == ("shape=flat", "shape=round", "shape missing", "size")
    assert (data.class_names, len(asked), asked[0]["data_id"]) == (("bad", "good"), 1, 31)
    bunch.target, bunch.target_names = np.zeros((40, 2)), ["a", "b"]
    fails("has the targets a, b: pass one column", name="openml:31", root=tmp_path)
    (tmp_path / "openml").mkdir()
    (tmp_path / "openml" / "31.csv").write_text(table.read_text())
    assert load(name="openml:31", root=tmp_path, target="kind").num_outputs == 2
    fails("pass data.target=COLUMN", name="openml:31", root=tmp_path)


# ---- bad input --------------------------------------------------------------------------------------------


def fails(message, *args, **options):
    with pytest.raises(NfaError, match=message) as error:
        load(*args, **options)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None
    return str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data.path=FILE or data.name=NAME, got neither"),
        ({"path": "a.csv", "name": "wine"}, "got both"),
        ({"path": "a.csv"}, "pass data.target=COLUMN"),
        ({"name": "titanic"}, "unknown data.name='titanic': expected one of breast_cancer, .*openml:NUMBER"),
        ({"name": "openml:many"}, "unknown data.name"),
        ({"name": "wine", "target": "x"}, "has its own target"),
        ({"name": "wine", "test_path": "b.csv"}, "goes with data.path"),
        ({"name": "wine", "fold": 5}, "data.fold from 0 to 4"),
        ({"name": "wine", "fold": -1}, "data.fold must be a whole number of at least 0"),
        ({"name": "wine", "folds": 1}, "data.folds must be a whole number of at least 2, got 1"),
        ({"name": "wine", "fold": 0, "folds": 179}, "at least data.folds=179 rows, got 178"),
        ({"path": "a.csv", "target": "y", "test_path": "b.csv", "fold": 0}, "leave out data.test_path"),
        ({"name": "wine", "test_fraction": 1}, "data.test_fraction must be a number between 0 and 1"),
        ({"name": "wine", "normalize": "rows"}, "data.normalize must be one of"),
        ({"name": "wine", "task": "ranking"}, "data.task must be one of"),
        ({"name": "wine", "task": "regression"}, "expected numbers as targets 'class'"),
        ({"name": "wine", "n_train": 143}, "data.n_train of at most 142"),
        ({"name": "diabetes", "n_test": 1}, "test split of a regression has one sample"),
        ({"name": "diabetes", "n_train": 10}, "validation split of a regression .*data.val_fraction=0"),
        ({"name": "wine", "augment": "shift"}, "for images"),
        (
            {"name": "wine", "drop": [1.5]},
            "data.drop must be a text, or a whole number, or a list of them",
        ),
    ],
)
def test_options_out_of_range(options, message):
    fails(message, **options)


ROWS = "\n1,u\n2,v\n3,u\n4,v\n5,u\n6,v\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("\n \n", {}, "is empty"),
        ("a,y\n", {}, "is empty: expected columns and at least one row"),
        ("a,y\n1,u\n", {}, "in two or more, got 1 in 1 rows"),
        ("a,y\n1,u\n2,v\n", {}, "2 of 2 targets 'y' are the only one of their class"),
        ("a,y\n1,1.5\n2,2.5\n", {}, "no training sample is left"),
        ("a,y\n1,1.5\n2,2.5\n3,3\n", {"task": "classification"}, "or data.task=regression for numbers"),
        ("a,y" + ROWS, {"target": "z"}, "data.target to be one of the columns a, y of .*, got 'z'"),
        ("a,y" + ROWS, {"target": 2}, "got 2"),
        ("a,a,y\n1,2,u\n", {}, "'a' is there 2 times: rename"),
        ("5,5,7\n1,2,3\n", {}, "data.header=false"),
        ("5.1,3,y\n1,2,3\n", {}, r"holds data \(5.1\), no names: pass data.header=false"),
        ("a,y\n1,u\n2\n", {}, "expected 2 values in every line .* got 1 in line 3"),
        ("a,y\n1,u\n2,u\n3,u\n", {}, "all 3 targets 'y' are u: there is nothing to learn"),
        ("y,a" + ROWS.replace(",u", ",v").replace("v", "2"), {"target": "a"}, "all 6 targets 'a' are 2"),
        ("a,y\n1,\n2,\n3,u\n4,v\n5,\n", {}, "in most rows .* got 2 in 5 rows"),
        ("a,y\n1,1.5\n2,inf\n3,2.5\n4,1\n", {}, "infinite values"),
        (
            "a,y\n1,1.5\n2,x\n3,2.5\n4,1\n",
            {"task": "regression"},
            "1 of 4 are text, the first is 'x'",
        ),
        ("a,y\n1,u\ninf,v\n3,u\n", {}, "column 'a' of .* has 1 infinite values, the first in row 2"),
        ("id,y\n1,u\ninf,v\n3,u\n", {}, "column 'id' of .* has 1 infinite"),
        ("a,y\n7,u\n7,v\n7,u\n7,v\n", {"val_fraction": 0}, "no input column is left .*a: constant"),
        ("y\nu\nv\nu\nv\n", {"val_fraction": 0}, "no other than the target"),
        ("a,y" + ROWS, {"n_train": 1, "val_fraction": 0}, "two classes or more"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, options, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    fails(message, path, **{"target": "y", **options})


def test_files_that_cannot_be_read(tmp_path):
    fails("expected a CSV, Parquet or Excel file at .*nowhere.csv, found none", tmp_path / "nowhere.csv", "y")
    path = tmp_path / "table.ods"
    path.touch()
    fails("to end with one of .csv .* save it as CSV or Parquet", path, "y")
    path = tmp_path / "latin.csv"
    path.write_bytes("a,y\nü,1\n".encode("latin-1"))
    fails("no UTF-8 text", path, "y")
    path.write_text("a,y\n" + "x" * 200_000 + ",1\n")
    fails("cannot be read as CSV", path, "y")


def test_a_few_texts_among_numbers_are_mistakes(tmp_path):
    path = simple(tmp_path, size=[*range(38), "big", "unknown"])
    fails("'size' .* holds numbers but for 2 of 40 values, the first is 'big' in row 39", path, "y")
    assert "size" in load(path, "y", categorical=["size"]).summary()["dropped"]


def test_too_many_levels(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "MAX_ONE_HOT", 9)
    path = simple(tmp_path, word=[f"w{i % 10}" for i in range(40)], colour=["r", "g"] * 20)
    fails("would make 12 inputs, more than 9, 10 of them of 'word': add it to data.drop", path, "y")


def test_too_large_for_the_memory(table, monkeypatch):
    monkeypatch.setattr(encoder, "free_memory", lambda device: 1000)
    fails("60 rows of 7 inputs need .* more than half", table, "kind")


def test_test_file_of_another_kind(tmp_path, table):
    rows = [[r[0], "wide", *r[2:]] for r in mixed(20)]
    fails(
        "'width' holds numbers in .* text in", table, "kind", test_path=write(tmp_path / "b.csv", rows, NAMES)
    )
    other = write(tmp_path / "c.csv", [r[:4] for r in mixed(20)], NAMES[:4])
    fails("only one of them has kind: make them equal", table, "kind", test_path=other)


# ---- training ---------------------------------------------------------------------------------------------

ONE_EPOCH = (
    "model=mlp",
    "model.width=16",
    "callbacks=none",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
)


@pytest.mark.parametrize(
    "data",
    [
        "breast_cancer",
        "wine",
        "diabetes",
        "california_housing",
        "tabular",
        "sparse_parity",
        "staircase",
        "low_rank",
    ],
)
def test_an_mlp_trains_on_every_set(run, tmp_path, monkeypatch, data):
    monkeypatch.setenv("NFA_DATA", str(tmp_path / "sets"))
    options = [f"data={data}"]
    if data == "california_housing":
        make_housing(tmp_path / "sets")
    if data == "tabular":
        path = write(tmp_path / "table.csv", mixed(), NAMES)
        options += [f"data.path={path}", "data.target=kind", "data.drop=[flat]"]
    done = run(*ONE_EPOCH, *options, small=False)
    assert done.code == 0
    assert {"test/accuracy", "test/mse"} & set(done.summary)


def test_cross_validation_from_the_command_line(run, tmp_path):
    folder = "hydra.sweep.dir=folds"
    done = run("-m", *ONE_EPOCH, "data=wine", "data.fold=0,1", "data.folds=2", folder, small=False)
    assert done.code == 0
    assert len(list((tmp_path / "folds").glob("*/summary.json"))) == 2


def test_a_named_table_from_the_command_line(run):
    done = run(*ONE_EPOCH, "data=tabular", "data.name=openml:31", "data.download=false", small=False)
    assert done.code == 1
    assert done.err.startswith("error: data set 31 of OpenML was not downloaded")
