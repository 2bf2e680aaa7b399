"""Numbers, gaps, classes and dates however a table writes them: read rightly, or refused in one line."""

import bz2
import gzip
import itertools
import json
import lzma
import sys
from datetime import date, datetime

import numpy as np
import pytest
import torch

from datamodules import Tabular
from nfa.errors import NfaError
from nfa.inputs.tables import Notation, read_table
from nfa.inputs.tables.dates import read_date

N = 60
rng = np.random.default_rng(3)
TEMP, HUM = rng.normal(12, 4, N).round(1).tolist(), rng.normal(0, 2, N).round(2).tolist()
SALES = rng.integers(1_000, 30_000, N).tolist()
Y = [round(2 * t - h, 1) for t, h in zip(TEMP, HUM, strict=True)]


def write(path, columns, delimiter=",", before=""):
    quoted = [[f'"{v}"' if delimiter in str(v) else str(v) for v in values] for values in columns.values()]
    lines = [delimiter.join(columns), *(delimiter.join(row) for row in zip(*quoted, strict=True))]
    path.write_text(before + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(path, target="y", **options):
    data = Tabular(path, target, **{"normalize": "none", "normalize_target": False, **options})
    data.setup()
    return data


def column(data, name):
    """Its inputs, in the order of the splits, sorted."""
    x = torch.cat([data._split(s).x for s in ("train", "val", "test")])
    return x[:, data.feature_names.index(name)].double().sort().values


def targets(data):
    return torch.cat([data._split(s).y for s in ("train", "val", "test")]).flatten().double().sort().values


def same(found, expected):
    torch.testing.assert_close(found, torch.tensor(sorted(expected)).double(), atol=1e-3, rtol=1e-6)


def refused(path, target="y", **options):
    with pytest.raises(NfaError) as error:
        load(path, target, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def comma(values):
    return [str(value).replace(".", ",") for value in values]


# ---- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_decimal_comma(tmp_path, delimiter, header):
    columns = {"temp": comma(TEMP), "hum": comma(HUM), "y": comma(Y)}
    path = write(tmp_path / "t.csv", columns, delimiter)
    if not header:
        path.write_text(path.read_text().partition("\n")[2])
    named = {"header": header, "target": "y" if header else 2}
    said = refused(path, **named)
    assert (
        f"column '{'temp' if header else 0}' of {path} holds numbers written like '{comma(TEMP)[0]}'" in said
    )
    assert f"pass data.decimal=comma if that is {TEMP[0]}, or add it to data.categorical or data.drop" in said
    data = load(path, **named, decimal="comma")
    assert data.task == "regression"
    same(column(data, "hum" if header else "1"), HUM)
    same(targets(data), Y)


def test_a_comma_before_three_digits_may_be_either(tmp_path):
    path = write(tmp_path / "t.csv", {"sales": [f"{v:,}" for v in SALES], "y": Y})
    said = refused(path)
    assert f"data.decimal=comma if that is {SALES[0] / 1000}" in said
    assert f"data.thousands=comma if that is {SALES[0]}" in said
    same(column(load(path, thousands="comma"), "sales"), SALES)
    assert f"written like '{Y[0]}', which data.decimal=comma does not read: repair them" in refused(
        path, decimal="comma"
    )
    path = write(path, {"sales": [f"{v:,}" for v in SALES], "y": comma(Y)})
    same(column(load(path, decimal="comma"), "sales"), [v / 1000 for v in SALES])


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("{:,.2f}", {"thousands": "comma"}),
        ("{:,}000", {"thousands": "point"}),
        ("{:,.2f}", {"thousands": "point", "decimal": "comma"}),
        ("{:,}", {"thousands": "blank"}),
        ("{:,.1f}", {"thousands": "blank", "decimal": "comma"}),
        ("{:,.2f}", {"thousands": "apostrophe"}),
        ("$ {:,}", {"thousands": "comma"}),
        ("-{:,.2f} €", {"thousands": "point", "decimal": "comma"}),
        ("−{:,}", {"thousands": "comma"}),
    ],
)
def test_thousands(tmp_path, form, options):
    signs = {"comma": ",", "point": ".", "blank": "\u202f", "apostrophe": "’"}
    written = [form.replace("000", ",000").format(v) for v in SALES]
    swap = str.maketrans({",": signs[options["thousands"]], ".": signs[options.get("decimal", "point")]})
    hum = comma(HUM) if options["thousands"] == "point" or "decimal" in options else HUM
    path = write(tmp_path / "t.csv", {"hum": hum, "y": [text.translate(swap) for text in written]})
    said = refused(path, decimal="comma" if hum is not HUM else None)
    assert f"data.thousands={options['thousands']}" in said
    assert "column 'y'" in said
    assert said.endswith("or pass data.task=classification")
    data = load(path, **options)
    sign = -1 if form[0] in "-−" else 1
    same(targets(data), [sign * v * (1000 if "000" in form else 1) for v in SALES])
    unit = next((c for c in "$€" if c in form), None)
    assert data.summary()["read_as"] == ({"y": f"in {unit}"} if unit else {})


def test_what_can_be_read_in_one_way_alone_is_read_and_told(tmp_path):
    columns = {
        "hum": [str(v).replace("-", "−") for v in HUM],
        "share": [f"{v} %" for v in TEMP],
        "price": [f"${v}" for v in SALES],
        "y": Y,
    }
    data = load(write(tmp_path / "t.csv", columns))
    for name, values in (("hum", HUM), ("share", TEMP), ("price", SALES)):
        same(column(data, name), values)
    assert data.summary()["read_as"] == {"share": "in %", "price": "in $"}
    assert data.remarks() == ["read as  share: in %", "read as  price: in $"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["$5", "€7"], "holds numbers in several units, such as '$5' and '€7': repair them"),
        (["12%", "0.5"], "in several units, such as '12%' and '0.5'"),
        (["(1,200)", "300"], r"written like '(1,200)', which are not all of one form"),
        (["1.2.3", "1.2.4"], "written like '1.2.3', which are not all of one form"),
        (["1,5", "2.5"], "written like '1,5', which are not all of one form"),
        (["1,5"] * 19 + ["wet"], "written like '1,5', and texts like 'wet': repair them"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, values, said):
    columns = {"odd": list(itertools.islice(itertools.cycle(values), N)), "hum": HUM, "y": Y}
    path = write(tmp_path / "t.csv", columns, ";")
    assert said in refused(path)
    data = load(path, categorical="odd")
    assert data.summary()["one_hot"] == {"odd": len(set(values))}
    assert load(path, drop="odd").feature_names == ("hum",)
    assert refused(path, "odd").endswith("or pass data.task=classification")
    assert load(path, "odd", task="classification").num_outputs == len(set(values))


def test_underscores_are_of_codes(tmp_path):
    data = load(write(tmp_path / "t.csv", {"code": ["1_2", "1_3", "2_1"] * 20, "y": Y}))
    assert data.feature_names == ("code=1_2", "code=1_3", "code=2_1")
    assert data.remarks() == ["one-hot  code (3)"]


def test_options_of_numbers():
    with pytest.raises(NfaError, match=r"data.decimal must be one of point, comma, or null, got ','"):
        Tabular("a.csv", "y", decimal=",")
    with pytest.raises(NfaError, match=r"data.decimal and data.thousands are both comma"):
        Tabular("a.csv", "y", decimal="comma", thousands="comma")
    with pytest.raises(
        NfaError, match=r"data.missing must be a text, or a number, or a list of them, or null"
    ):
        Tabular("a.csv", "y", missing=[None])


@pytest.mark.parametrize(
    "text", ["1,2,3", "1.2.3", "12,34", "1,2345", ",", "$", "%", "--1", "1-", "$1€", "1e", "_1", "1_0", ""]
)
def test_no_numbers(text):
    assert Notation(thousands=",").read(text) is None


# ---- gaps and classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [".", "-", "–", "NA", "?", "None"])
def test_marks_among_numbers_are_gaps(tmp_path, mark):
    temp = [mark if i % 5 == 0 else t for i, t in enumerate(TEMP)]
    data = load(write(tmp_path / "t.csv", {"temp": temp, "hum": HUM, "y": Y}))
    assert data.feature_names == ("temp", "temp missing", "hum")
    assert data.summary()["n_missing"] == {"temp": N // 5}
    told = {} if mark in ("NA", "?", "None") else {"temp": f"{N // 5} cells of {mark!r} are gaps"}
    assert data.summary()["read_as"] == told


def test_marks_of_ones_own(tmp_path):
    temp = ["broken" if i % 5 == 0 else -999 if i % 5 == 1 else t for i, t in enumerate(TEMP)]
    path = write(tmp_path / "t.csv", {"temp": temp, "hum": HUM, "y": Y})
    said = refused(path)
    assert f"holds numbers but for {N // 5} of {N} values, the first is 'broken' in row 1" in said
    assert "name them in data.missing if they are gaps" in said
    data = load(path, missing=["broken", -999])
    assert data.summary()["n_missing"] == {"temp": 2 * N // 5}
    assert column(data, "temp").min() > -900
    assert refused(write(tmp_path / "u.csv", {"hum": HUM, "y": temp})).endswith("data.task=classification")


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan", "?"])
def test_classes_that_are_called_like_gaps(tmp_path, name):
    kinds = [("EU", "AS", name, "")[i % 4] for i in range(N)]
    path = write(tmp_path / "t.csv", {"temp": TEMP, "site": kinds, "y": kinds})
    data = load(path)
    assert data.class_names == tuple(sorted(("AS", "EU", name)))
    assert data.summary()["n_without_target"] == N // 4
    assert f"{name} in {N // 4} rows is a class: pass data.missing=" in data.summary()["read_as"]["y"]
    assert data.feature_names == ("temp", "site=AS", "site=EU", "site missing")
    without = load(path, missing=[name])
    assert without.class_names == ("AS", "EU")
    assert without.summary()["n_without_target"] == N // 2
    assert set(load(path, missing=["x"]).feature_names) >= {"site=AS", "site=EU", f"site={name}"}


def test_numbers_as_classes_keep_their_gaps(tmp_path):
    kinds = [("0", "1", "NA")[i % 3] for i in range(N)]
    data = load(write(tmp_path / "t.csv", {"temp": TEMP, "y": kinds}))
    assert (data.class_names, data.summary()["n_without_target"]) == (("0", "1"), N // 3)


# ---- dates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1970-01-01", 0),
        ("2024-02-29", 19782),
        ("2024/2/9", 19762),
        ("2024-03", 19783),
        ("1970-01-02 12:00", 1.5),
        ("1970-01-02T12:00:00Z", 1.5),
        ("1970-01-02T12:00:00.0+06:00", 1.25),
        ("2024-02-30", None),
        ("2024-13-01", None),
        ("12345", None),
        ("2024-01-01 27:00", None),
    ],
)
def test_dates(text, days):
    assert read_date(text) == days


def test_dates_become_days_or_are_named(tmp_path):
    when = [f"2024-{1 + i % 12:02}-{1 + i % 4:02}" for i in range(N)]
    european = [f"{1 + i % 4:02}.{1 + i % 12:02}.2024" for i in range(N)]
    words = [f"{1 + i % 28} {('Jan', 'March')[i % 2]} 2024" for i in range(N)]
    data = load(write(tmp_path / "t.csv", {"when": when, "eu": european, "w": words, "hum": HUM, "y": Y}))
    assert data.feature_names == ("when", "hum")
    assert data.summary()["read_as"] == {"when": "dates, as days since 1970-01-01"}
    reason = "dates, and not written as 2024-12-31"
    assert data.summary()["dropped"] == {"eu": reason, "w": reason}
    assert data.remarks()[0] == f"dropped  eu ({reason}), w ({reason})"
    same(column(data, "when"), [(date.fromisoformat(text) - date(1970, 1, 1)).days for text in when])
    levels = load(tmp_path / "t.csv", categorical=["eu", "when"]).summary()["one_hot"]
    assert set(levels) == {"eu", "when"}


# ---- files ------------------------------------------------------------------------------------------------

PLAIN = {"temp": TEMP, "hum": HUM, "y": Y}


def values(path, **options):
    table = read_table(path, **options)
    return {name: column.tolist() for name, column in table.columns.items()}


@pytest.mark.parametrize(
    "before", ["sep=;\n", "SEP=;\r\n", "# made today\n", "#\n# 1;2;3\n\n", "sep=;\n# a; b\n"]
)
def test_lines_before_the_names(tmp_path, before):
    assert values(write(tmp_path / "t.csv", PLAIN, ";", before)) == PLAIN


@pytest.mark.parametrize("start", ["# temp,hum,y\n", "#temp,hum,y\n", "# a comment\n# temp, hum, y\n"])
def test_names_in_a_comment(tmp_path, start):
    path = write(tmp_path / "t.csv", PLAIN)
    path.write_text(start + path.read_text().partition("\n")[2])
    assert values(path) == PLAIN
    assert list(values(path, header=False)) == ["0", "1", "2"]


def test_a_column_called_number_sign(tmp_path):
    path = write(tmp_path / "t.csv", {"#": range(N), **PLAIN})
    assert values(path) == {"#": list(range(N)), **PLAIN}
    assert load(path).summary()["dropped"] == {"#": "identifier (row numbers)"}


def test_a_header_with_a_number_sign_before_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("#name,y\nanna,1\nbo,2\n")
    assert list(values(path)) == ["name", "y"]


@pytest.mark.parametrize("form", ["{:9} {:8}\t{:>7}", "{}  {} {}", "{:9} {:8} {:>7}  "])
def test_blanks_between(tmp_path, form):
    path = tmp_path / "t.data"
    rows = [form.format(*map(str, row)) for row in zip(*PLAIN.values(), strict=True)]
    path.write_text("\n".join(rows) + "\n")
    assert list(values(path, header=False).values()) == list(PLAIN.values())
    path.write_text("\n".join([form.format(*PLAIN), *rows]) + "\n")
    assert values(path) == PLAIN


def test_blanks_within_cells_are_no_delimiter(tmp_path):
    names = ["Anna Lee", "Bo Ray", "Cy Fox"] * 20
    for delimiter in ("\t", ",", ";"):
        path = write(tmp_path / "t.csv", {"first name": names, "last name": names}, delimiter)
        assert values(path) == {"first name": names, "last name": names}
    path.write_text("n   who\n1   'x'\n" + '2   "a b"\n')
    assert values(path) == {"n": [1, 2], "who": ["'x'", "a b"]}


@pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_packed_files(tmp_path, ending, pack):
    content = write(tmp_path / "t.csv", PLAIN).read_bytes()
    path = tmp_path / f"t.csv{ending}"
    path.write_bytes(pack(content))
    assert values(path) == PLAIN
    for damaged in (pack(content)[:-9], b"no archive", pack(content)[:60] + b"x" * 40):
        path.write_bytes(damaged)
        with pytest.raises(NfaError, match=r"cannot be unpacked .*: pack it again"):
            values(path)


def test_excel(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.create_sheet("empty")
    sheet = book.active
    sheet.append([*PLAIN, "when", "kind", 2024])
    for i, row in enumerate(zip(*PLAIN.values(), strict=True)):
        sheet.append([*row, datetime(2024, 1, 1 + i % 28, 12), (" a ", "NA", None)[i % 3], i % 2 == 0])
    path = tmp_path / "t.xlsx"
    book.save(path)
    found = values(path)
    assert {name: found[name] for name in PLAIN} == PLAIN
    assert found["when"][:2] == [19723.5, 19724.5]
    assert found["kind"][:3] == ["a", "NA", None]
    assert found["2024"][:2] == ["True", "False"]
    book["empty"].append([1])
    book.save(path)
    with pytest.raises(NfaError, match=r"has 2 sheets with data \(Sheet, empty\): save one as CSV"):
        values(path)
    path.write_bytes(b"no workbook")
    with pytest.raises(NfaError, match="cannot be read as Excel"):
        values(path)


def test_a_formula_that_failed_is_no_gap(tmp_path):
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.append(["temp", "y"])
    for row in zip([*TEMP[:3], "#DIV/0!", *TEMP[4:]], Y, strict=True):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    assert "the first is '#DIV/0!' in row 4" in refused(tmp_path / "t.xlsx")


def test_excel_without_openpyxl(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(
        NfaError, match=r"needs openpyxl: install it \(pip install openpyxl\), or save the sheet"
    ):
        values(tmp_path / "t.xlsx")


def test_parquet_of_texts_and_dates(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    day = pyarrow.array([datetime(2024, 1, 1, 12)] * 2, pyarrow.timestamp("ns"))
    arrays = {
        "a": ["1", "2.5"],
        "b": pyarrow.array(["1", "2"]).dictionary_encode(),
        "when": day,
        "c": ["1,5", "2,5"],
    }
    parquet.write_table(pyarrow.table(arrays), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert {k: v.tolist() for k, v in table.columns.items()} == {
        "a": [1, 2.5],
        "b": ["1", "2"],
        "when": [19723.5, 19723.5],
        "c": ["1,5", "2,5"],
    }
    assert table.about["a"].note == "texts that are numbers"
    assert "data.decimal=comma" in table.about["c"].doubt


def test_parquet_of_times_categories_and_what_is_known_to_be_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    arrays = {
        "code": pyarrow.array(["7", "8", None]).dictionary_encode(),
        "open": [True, None, False],
        "at": pyarrow.array([6 * 3600 * 10**9, None, 18 * 3600 * 10**9], pyarrow.time64("ns")),
        "took": pyarrow.array([36 * 3600 * 10**9, None, -(10**9)], pyarrow.duration("ns")),
        "kind": [1.0, -999.0, 2.5],
    }
    parquet.write_table(pyarrow.table(arrays), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", how=Notation(gaps=(-999,)), known={"kind": True})
    assert table.columns["code"].tolist() == ["7", "8", None]
    assert table.columns["open"].tolist() == ["True", None, "False"]
    for name, days in (("at", [0.25, 0.75]), ("took", [1.5, -1 / 86400])):
        first, gap, last = table.columns[name].tolist()
        assert (first, last) == pytest.approx(tuple(days), abs=1e-12)
        assert gap != gap
    assert table.columns["kind"].tolist() == ["1", None, "2.5"]


def test_a_test_file_in_another_unit(tmp_path):
    train = write(tmp_path / "a.csv", {"share": [f"{v}%" for v in TEMP], "hum": HUM, "y": Y})
    test = write(tmp_path / "b.csv", {"share": TEMP, "hum": HUM, "y": Y})
    said = refused(train, test_path=test)
    assert f"column 'share' holds numbers in % in {train} and numbers in {test}: make them equal" in said
    assert load(train, test_path=test, drop="share").feature_names == ("hum",)


# ---- the command line -------------------------------------------------------------------------------------


def test_what_was_guessed_is_told(run, tmp_path):
    columns = {
        "temp": comma(TEMP),
        "site": ["a", "b", "c"] * 20,
        "flat": [1] * N,
        "y": [f"{v} €" for v in SALES],
    }
    path = write(tmp_path / "t.csv", columns, ";")
    small = ("callbacks=none", "logger=csv", "trainer.max_epochs=1", "model=mlp", "model.width=8")
    options = (*small, "data=tabular", f"data.path={path}", "data.target=y")
    done = run(*options, small=False)
    assert done.code == 1
    assert "data.decimal=comma" in done.err
    done = run(*options, "data.decimal=comma", "data.missing=[zzz,-5]", small=False)
    assert done.code == 0
    for line in ("dropped  flat (constant)", "one-hot  site (3)", "read as  y: in €"):
        assert line in done.out
    told = {name: done.summary[name] for name in ("dropped", "one_hot", "read_as")}
    assert json.loads(json.dumps(told)) == {
        "dropped": {"flat": "constant"},
        "one_hot": {"site": 3},
        "read_as": {"y": "in €"},
    }
