"""Names of others on a terminal, in CSV files and in pages: shown, and never acted on."""

import csv
import io
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nfa import NfaError
from nfa.ansatz.row import read_csv, write_csv
from nfa.ansatz.words import format_table
from nfa.command.cli import main
from nfa.files import cell, text_of
from nfa.page import write_html
from nfa.status import StatusLine
from nfa.terminal import error_line, one_line, say, tolerate_any_encoding
from tests.nfa.example_rows import MEASURED, SKIPPED

NASTY = {
    "colours": ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    "title of the window": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    "one-byte escape": ("\x9b2J", r"\x9b2J"),
    "new line": ("fc\nerror: forged", r"fc\nerror: forged"),
    "return": ("fc\rgone", r"fc\rgone"),
    "tab": ("a\tb", r"a\tb"),
    "delete": ("a\x7f\x08", r"a\x7f\x08"),
    "zero": ("a\x00b", r"a\x00b"),
    "separators": ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
    "right to left": ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
    "invisible": ("a\u200bb\ufeffc\u00ad", r"a\u200bb\ufeffc\xad"),
    "no UTF-8": ("a\udcffb", r"a\udcffb"),
    "tags": ("a\U000e0041", r"a\U000e0041"),
}


@pytest.mark.parametrize("case", NASTY)
def test_what_a_terminal_would_act_on_is_written_out(case):
    name, shown = NASTY[case]
    assert one_line(name) == shown
    table = format_table(
        [replace(MEASURED, layer=name, kind=name), replace(SKIPPED, status=f"skipped: {name}")]
    )
    assert one_line(table.replace("\n", "")) == table.replace("\n", "")
    assert len(table.split("\n")) == 4
    stream = io.StringIO()
    StatusLine(stream).say(f"measuring {name}")
    say(name, name, stream=stream)
    assert stream.getvalue() == f"measuring {shown}\n{shown}\n{shown}\n"


def test_what_people_write_stays():
    for name in ("layer1.0.conv1", "größe→½ ± α", "卷积.0", r"C:\nets", "☃ 🎉"):
        assert one_line(name) == name


def test_an_error_is_one_line_of_bounded_length(capsys):
    with pytest.raises(SystemExit):
        main(["audit", "no\x1b[2J\nnet", "--data", "digits", "--out", "o"])
    error = capsys.readouterr().err
    assert r"no\x1b[2J\nnet" in error
    assert error.count("\n") == 1
    assert "\x1b" not in error
    line = error_line("begin " + "x" * 10**6 + " end")
    assert len(line) < 2100
    assert line.startswith("begin")
    assert line.endswith("end")


FORMULAS = (
    "=cmd|'/c calc'!A0",
    "+1+2",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "'=1",
    "''-1",
    "-5",
)
PLAIN = ("fc", "'quoted'", "a=b", "", "'", 'layer, "1"')


@pytest.mark.parametrize("name", [*FORMULAS, *PLAIN])
def test_a_spreadsheet_runs_no_name_and_the_name_reads_back(tmp_path, name):
    row = replace(MEASURED, layer=name, kind=name, status=f"{name}", alignment=-0.5)
    write_csv(tmp_path / "a.csv", [row])
    assert read_csv(tmp_path / "a.csv") == [row]
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as handle:
        written = next(csv.DictReader(handle))
    assert (written["layer"] != name) == (name in FORMULAS)
    assert written["layer"][:1] not in tuple("=+-@\t\r\n\uff1d")
    assert written["alignment"] == "-0.5"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text + "one,cell\n",
        lambda text: text.replace("alignment", "alignments"),
        lambda text: text.replace("0.25", "a quarter"),
        lambda text: text.replace("layer,", "", 1),
        lambda text: text + '"open',
        lambda text: text + ",".join(["x"] * 99) + "\n",
        lambda text: "layer\n" + "x" * 200_000,
    ],
)
def test_a_damaged_table_is_one_sentence(tmp_path, damage):
    write_csv(tmp_path / "a.csv", [replace(MEASURED, alignment=0.25)])
    (tmp_path / "a.csv").write_text(damage((tmp_path / "a.csv").read_text()))
    with pytest.raises(NfaError, match=r"a\.csv is cut off or damaged"):
        read_csv(tmp_path / "a.csv")


def test_numbers_and_nothing_stay_what_they_are():
    assert [cell(value) for value in (-0.5, -3, None, float("nan"), float("-inf"), True)] == [
        "-0.5",
        "-3",
        "",
        "",
        "-inf",
        "True",
    ]
    assert text_of(cell("-3")) == "-3"


class _Tags(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.scripts, self.foreign, self.attributes = 0, 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.foreign += tag in ("b1", "iframe")
        self.attributes += [name for name, _ in attrs]


def test_a_page_holds_names_as_text_alone(tmp_path):
    evil = "\"'><script>alert(1)</script><b1 onclick='x'></title></style>&amp;]]>-->\x1b[2J\u202e\udcff"
    rows = [replace(MEASURED, layer=evil + str(i), kind=evil) for i in range(14)]
    rows.append(replace(SKIPPED, layer=evil, kind=evil, status=f"skipped: {evil}"))
    write_html(
        tmp_path / "page.html",
        title=evil,
        rows=rows,
        history=[replace(row, epoch=float(e)) for row in rows[:3] for e in (0, 1)],
        curves={f"val/{evil}": [(0, 1.0), (1, 2.0)]},
        meta={evil: {evil: evil, "more": {evil: [evil]}}},
        notes=[f"{evil}: {evil}", f"Partial: {evil}"],
    )
    page = _Tags(text := (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (page.scripts, page.foreign) == (1, 0)
    assert not [name for name in page.attributes if name.startswith("on")]
    assert not set("\x1b\u202e") & set(text)


def test_a_terminal_that_is_not_utf8_gets_question_marks(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    tolerate_any_encoding()
    print("WᵀW → ½")
    stream.flush()
    assert stream.buffer.getvalue() == b"W?W ? ?\n"


def test_help_in_ascii():
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "nfa", "audit", "--help"],
        capture_output=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"W?W" in done.stdout
