"""Charts of a page: errors, medians, chance, scales; and that each stands as a file of its own."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from nfa.page import write_html
from nfa.page.charts import depth_charts, history_charts
from nfa.page.series import Series
from nfa.page.svg import line_chart
from nfa.page.table import NUMBER_COLUMNS, tables_of
from tests.nfa.example_rows import MEASURED, SKIPPED, network, transformer

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def chart(**series):
    drawn = Series("s", [0, 1, 2], [1.0, 2.0, NAN], **series)
    return line_chart([drawn], title="T", x_label="x", y_label="y")


def bars(svg):
    """Heights of the upright bars, px."""
    found = re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)M", svg)
    return [abs(float(low) - float(high)) for low, high in found]


# ---- errors ------------------------------------------------------------------------------------------------


def test_error_bars_are_as_long_as_the_errors():
    assert bars(chart()) == []
    short, long = bars(chart(errors=[0.1, 0.3, 0.2]))  # the third point is none
    assert long == pytest.approx(3 * short, rel=0.01)
    assert bars(chart(errors=[0.1, NAN, 0.2])) != []
    assert len(bars(chart(errors=[0.0, 0.1, 0.1]))) == 1


def test_axes_hold_the_error_bars():
    def lowest(svg):
        return min(
            float(v.replace("\u2212", "-")) for v in re.findall(r'text-anchor="end">([\u2212\d.]+)<', svg)
        )

    assert lowest(chart()) == 1.0
    assert lowest(chart(errors=[4.0, 0.0, 0.0])) <= -2


def test_alignments_by_depth_have_two_standard_errors():
    rows = [replace(row, alignment_stderr=0.05) for row in network(4)]
    drawn = depth_charts(rows)
    assert drawn.errors
    assert len(bars(drawn.alignment.wide)) == 4
    assert bars(drawn.cosine.wide) == []
    wider = depth_charts([replace(row, alignment_stderr=0.1) for row in rows])
    assert max(bars(wider.alignment.wide)) > max(bars(drawn.alignment.wide))
    assert not depth_charts([replace(row, alignment_stderr=NAN) for row in rows]).errors


# ---- by epoch ----------------------------------------------------------------------------------------------


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_training_is_told_with_its_median_and_with_chance():
    history = [row for epoch in range(3) for row in network(5, epoch=float(epoch))]
    alignment, cosine = (figure.wide for figure in history_charts(history))
    assert {"median over layers", "chance, ± 2 sd, of the median layer"} <= set(texts(alignment))
    assert {"median over layers", "null, mean ± 2 sd, of the median layer"} <= set(texts(cosine))
    assert alignment.count('stroke-width="3"') == 2  # in the chart and in the legend


def test_one_layer_is_its_own_median():
    history = [replace(MEASURED, epoch=float(epoch)) for epoch in range(3)]
    for figure in history_charts(history):
        assert "median over layers" not in texts(figure.wide)
        assert any(text and text.endswith("± 2 sd") for text in texts(figure.wide))


def test_a_training_without_chance_is_drawn_all_the_same():
    history = [replace(MEASURED, epoch=float(e), z=NAN, null_mean=NAN, null_std=NAN) for e in range(3)]
    for figure in history_charts(history):
        assert not any(text and "± 2 sd" in text for text in texts(figure.wide))


# ---- axes --------------------------------------------------------------------------------------------------


def test_exponent_and_fit_have_axes_of_their_own():
    drawn = depth_charts(network(4))
    assert "α" in texts(drawn.alpha.wide)
    assert "r, correlation of the fit" not in texts(drawn.alpha.wide)
    assert "r, correlation of the fit" in texts(drawn.fit.wide)


@pytest.mark.parametrize("log", [True, False])
def test_an_axis_says_that_it_is_logarithmic(log):
    series = [Series("s", [1, 10, 100], [1.0, 50.0, 2000.0])]
    words = texts(line_chart(series, title="T", x_label="seconds", y_label="loss", x_log=log, y_log=log))
    assert ("seconds, log scale" in words) == ("loss, log scale" in words) == log


# ---- tables and files --------------------------------------------------------------------------------------


def everything(row):
    """A row without a gap."""
    values = {name: getattr(row, name) for name in NUMBER_COLUMNS}
    return replace(row, **{name: -0.1234 for name, value in values.items() if value != value})


@pytest.mark.parametrize("rows", [network(50, epoch=4.0), transformer(12, heads=12)])
def test_no_table_is_wider_than_a_page(rows):
    """Digits are 8 px wide at most, and names and remarks wrap."""
    for table in tables_of([*map(everything, rows), SKIPPED]).all:
        width = 40
        for i, heading in enumerate(table.headings):
            cells = [cells[i - 1] for _, cells in table.rows] if i else []
            shown = [getattr(cell, "text", str(cell)) for cell in cells]
            longest = max([*map(len, shown), *map(len, heading.label.split())])
            width += 240 if heading.label == "layer" else 14 + 8 * longest
        assert width <= 1080, [heading.label for heading in table.headings]


def test_all_numbers_are_in_one_table_each():
    labels = [h.label for table in tables_of([*network(20, epoch=4.0)]).all for h in table.headings]
    assert labels.count("layer") == len(tables_of(network(20)).all)
    rest = [label for label in labels if label != "layer"]
    assert len(rest) == len(set(rest))


def test_every_drawing_is_a_file_of_its_own(tmp_path):
    """What the page saves: well-formed, with a size, and with colours that need no page."""
    rows = [replace(row, layer=f"<&\u202e{row.layer}") for row in network(4)]
    write_html(tmp_path / "a.html", title="T", rows=rows)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    drawings = re.findall(r'<div class="wide">(<svg.*?</svg>)', page, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.tag == f"{SVG}svg"
        assert root.get("aria-label")
        assert len(root.get("viewBox").split()) == 4
    assert re.findall(r"var\(--\w+\)", "".join(drawings)) == []  # each has a fallback
    assert "saveDrawing" in page
