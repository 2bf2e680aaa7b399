"""A report as people use it: as a sequence, in a notebook, as a table, a page, a figure, a file."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

import nfa
from nfa.ansatz.difference import differences
from nfa.ansatz.report_file import read_json, write_json
from nfa.ansatz.row import AUDIT_COLUMNS, read_csv, write_csv
from tests.nfa.example_rows import MEASURED, SKIPPED, TRIVIAL, UNDEFINED

HOSTILE = '<script>alert("1")</script>$x^2$&\u202e'


def audited(seed=0, **options):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5), torch.nn.ReLU())
    return nfa.audit(net, [torch.randn(8, 6) for _ in range(4)], replicates=4, **options)


@pytest.fixture(scope="module")
def report():
    return audited()


@pytest.fixture
def shown():
    """Rows of all sorts, one of them named by an enemy."""
    return nfa.AnsatzReport([MEASURED, SKIPPED, TRIVIAL, UNDEFINED, replace(MEASURED, layer=HOSTILE)])


@pytest.fixture
def pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    yield pyplot
    pyplot.close("all")


# ---- a sequence of layers ----------------------------------------------------------------------------------


def test_it_is_a_sequence_of_layers(report):
    assert len(report) == 2
    assert list(report) == report.rows
    assert report["2"] is report.rows[1]
    assert "2" in report
    assert "conv" not in report
    assert nfa.AnsatzReport()  # a report without layers is one


def test_a_missing_layer_is_named_with_its_neighbours(shown):
    with pytest.raises(nfa.NfaError, match=r"no layer 'layer1\.0\.conv'; near ones: layer1\.0\.conv1"):
        shown["layer1.0.conv"]
    with pytest.raises(nfa.NfaError, match=r"no layer 3; layers: layer1\.0\.conv1, rnn"):
        shown[3]
    many = nfa.AnsatzReport([replace(MEASURED, layer=f"{i}") for i in range(100)])
    with pytest.raises(nfa.NfaError, match=r"layers: 0, 1, 2, 3, 4, 5, 6, 7, … \(100 in all\)"):
        many["x"]


# ---- in a notebook -----------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Tags with their attributes, and texts; all that opens is closed."""

    void = ("path", "rect", "circle", "br", "wbr")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_a_notebook_shows_table_and_charts_and_runs_nothing(shown):
    fragment = shown._repr_html_()
    page = Elements(fragment)
    tags = [tag for tag, _ in page.seen]
    names = {name for _, found in page.seen for name in found}
    assert "script" not in tags
    assert tags.count("svg") == 4  # two charts at two widths
    assert tags.count("tr") == 1 + len(shown)
    assert not names & {"src", "href"}
    assert not [name for name in names if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", fragment)
    assert '<script>alert("1")</script>$x^2$&\\u202e' in page.texts
    assert "layer1.0.conv1" in page.texts


def test_the_style_of_a_notebook_is_left_alone(shown):
    style = re.search(r"<style>(.*?)</style>", shown._repr_html_(), re.DOTALL)[1]
    rules = re.findall(r"([^{}]+)\{", style.replace("@container (max-width: 560px) {", ""))
    assert rules
    assert all(part.strip().startswith(".nfa-report") for rule in rules for part in rule.split(","))


def test_a_notebook_shows_an_empty_report():
    assert "No layer was measured." in nfa.AnsatzReport()._repr_html_()


# ---- tables, pages, figures --------------------------------------------------------------------------------


def test_a_table_of_pandas_has_the_columns_of_the_file(report, tmp_path):
    pytest.importorskip("pandas")
    table = report.to_pandas()
    assert list(table.columns) == [*AUDIT_COLUMNS, "verdict"]
    assert table["alignment"].tolist() == [row.alignment for row in report]
    assert table["verdict"].tolist() == [row.verdict for row in report]
    assert table["in_features"].dtype.kind == "i"
    assert table["null_mean"].dtype.kind == "f"
    write_csv(tmp_path / "a.csv", report.rows)
    assert [row.layer for row in read_csv(tmp_path / "a.csv")] == table["layer"].tolist()


@pytest.mark.parametrize(("package", "call"), [("pandas", "to_pandas"), ("matplotlib", "plot")])
def test_what_is_not_installed_is_said_in_a_sentence(report, monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(nfa.NfaError, match=rf"{call} needs {package}: pip install"):
        getattr(report, call)()


def test_pandas_and_matplotlib_are_imported_when_asked_for():
    code = "import sys, nfa; print(sorted({'pandas', 'matplotlib', 'IPython'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_tells_what_the_command_tells(report, tmp_path):
    report.to_html(tmp_path / "a.html", title="A <b>net</b>")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "A &lt;b&gt;net&lt;/b&gt;" in page
    assert "Layer by layer" in page
    assert "Covered:" in page
    assert page.count("<script>") == 1


def test_a_figure_has_alignment_with_errors_and_cosine_with_null(report, tmp_path, pyplot):
    upper, lower = report.plot()
    labelled = {c.get_label(): c for ax in (upper, lower) for c in ax.containers}
    line, _, (bars,) = labelled["alignment, ± 2 standard errors"].lines
    assert line.get_ydata().tolist() == [row.alignment for row in report]
    reach = [(ends[1, 1] - ends[0, 1]) / 4 for ends in bars.get_segments()]
    assert reach == pytest.approx([row.alignment_stderr for row in report])
    half = [bar.get_height() / 4 for bar in labelled["chance, ± 2 sd"]]
    assert half == pytest.approx([row.chance_sd for row in report])
    middles = [bar.get_y() + bar.get_height() / 2 for bar in labelled["null, mean ± 2 sd"]]
    assert middles == pytest.approx([row.null_mean for row in report])
    assert lower.lines[-1].get_ydata().tolist() == [row.cosine for row in report]
    for kind in ("pdf", "svg"):
        upper.figure.savefig(tmp_path / f"a.{kind}")
        assert (tmp_path / f"a.{kind}").stat().st_size > 1000


def test_a_figure_may_be_given_its_axes_and_shows_names_as_they_are(pyplot):
    report = nfa.AnsatzReport([MEASURED, SKIPPED, replace(MEASURED, layer="a$b$c")])
    figure, axes = pyplot.subplots(1, 2)
    assert list(report.plot(axes)) == list(axes)
    figure.canvas.draw()
    assert axes[1].get_xticklabels()[-1].get_text() == r"a\$b\$c"
    with pytest.raises(nfa.NfaError, match="two axes"):
        report.plot(axes[0])


def test_a_figure_of_nothing_is_an_empty_one(pyplot, recwarn):
    assert len(nfa.AnsatzReport([SKIPPED, UNDEFINED]).plot()) == 2


# ---- files -------------------------------------------------------------------------------------------------


def test_a_saved_report_is_read_back(report, tmp_path):
    report.save(tmp_path / "a.json")
    read = nfa.AnsatzReport.load(tmp_path / "a.json")
    assert repr(read.rows) == repr(report.rows)  # unlike ==, takes NaN for equal to NaN
    assert repr(read.precision) == repr(report.precision)
    assert read.null_draws == report.null_draws
    assert read.notes() == report.notes()
    assert (str(read), repr(read)) == (str(report), repr(report))
    assert read._repr_html_() == report._repr_html_()
    read.save(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == (tmp_path / "a.json").read_text()
    read.to_html(tmp_path / "a.html")
    assert "Layer by layer" not in (tmp_path / "a.html").read_text(encoding="utf-8")
    with pytest.raises(nfa.NfaError, match="keeps no matrices of 0: audit again"):
        read.pair("0")


def test_a_disagreement_is_told_of_a_file_too():
    opposed = replace(MEASURED, z=20.0, cosine=0.5, null_mean=0.9, null_std=0.01)
    assert "Verdict and cosine disagree in layer1.0.conv1" in str(nfa.AnsatzReport([opposed]))


def test_a_file_of_another_version_is_read(tmp_path):
    write_json(tmp_path / "a.json", [MEASURED], {})
    content = json.loads((tmp_path / "a.json").read_text())
    del content["precision"], content["rows"][0]["basis"]
    content["rows"][0]["of_the_future"] = 1.0
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert repr(nfa.AnsatzReport.load(tmp_path / "a.json").rows) == repr([MEASURED])


WHOLE = {"layer": "a", "kind": "linear", "in_features": 1, "out_features": 1}


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"rows": []}', "[" * 100_000,
        '{"rows": [1], "meta": {}}', '{"rows": 3, "meta": {}}',
        *(
            json.dumps({"meta": {}, "rows": [], **change})
            for change in (
                {"meta": []},
                {"meta": {"null draws": {"a": "x"}}},
                {"meta": {"notes": "text"}},
                {"rows": [{**WHOLE, "z": "5"}]},
                {"rows": [{**WHOLE, "in_features": 1.5}]},
                {"rows": [{**WHOLE, "layer": None}]},
                {"rows": [{"layer": "a"}]},
                {"precision": []},
                {"precision": {"a": {"cosine": "x"}}},
            )
        ),
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(nfa.NfaError, match="is no report, or damaged") as raised:
        nfa.AnsatzReport.load(path)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(nfa.NfaError, match="there is no file"):
        nfa.AnsatzReport.load(tmp_path / "none.json")
    with pytest.raises(nfa.NfaError, match="cannot read"):
        nfa.AnsatzReport.load(tmp_path)
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(nfa.NfaError, match="is no report"):
        read_json(tmp_path / "a.json")


# ---- two reports -------------------------------------------------------------------------------------------


def test_the_difference_of_two_reports(report):
    other = audited(seed=1)
    changes = report.diff(other)
    assert [change.layer for change in changes] == ["0", "2"]
    for change, after, before in zip(changes, report, other, strict=True):
        assert change.alignment == after.alignment - before.alignment
        assert change.alignment_stderr == math.hypot(after.alignment_stderr, before.alignment_stderr)
        assert change.stderr == math.hypot(after.stderr, before.stderr)
        assert change.verdicts == (before.verdict, after.verdict)
    assert [change.layer for change in report.diff(audited(layers="2"))] == ["2"]


def test_a_difference_leaves_out_what_one_did_not_measure():
    now = nfa.AnsatzReport([MEASURED, TRIVIAL])
    before = nfa.AnsatzReport([MEASURED, replace(TRIVIAL, status="ok")])
    assert [change.layer for change in now.diff(before)] == [MEASURED.layer]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([UNDEFINED], "only one of them has 'layer1.0.conv1'"),
        ([], "only one of them has 'layer1.0.conv1'"),
        (
            [replace(MEASURED, out_features=32)],
            "out_features of layer1.0.conv1 is 16 here and 32 in the other",
        ),
        ([replace(MEASURED, power=1.0)], "different powers, 0.5 here and 1 in the other"),
    ],
)
def test_reports_of_other_networks_are_refused(rows, words):
    with pytest.raises(nfa.NfaError, match=words):
        nfa.AnsatzReport([MEASURED]).diff(nfa.AnsatzReport(rows))


def test_only_reports_are_compared(report):
    with pytest.raises(nfa.NfaError, match="compared with a report, got list"):
        differences(report, [])
