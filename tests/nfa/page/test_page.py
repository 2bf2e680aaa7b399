"""The page as a browser would see it: complete, closed, small, safe, and it fetches nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from jinja2 import UndefinedError

from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import TRAIN_COLUMNS
from nfa.page import write_html
from nfa.page.raster import data_uri
from nfa.page.table import NUMBER_COLUMNS, TEXT_COLUMNS
from nfa.page.template import render
from tests.nfa.example_rows import MEASURED, SKIPPED, TRIVIAL, UNDEFINED, network, transformer


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the text, and what has opened but not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def picture(layer: str, size: int = 256) -> LayerPicture:
    noise = torch.randn(size, size)
    spectrum = torch.rand(size).sort(descending=True).values
    small = torch.randn(64, 3, 16, 16)
    return LayerPicture(layer, noise, noise, spectrum, spectrum, small, small, -small)


def page(path, **content) -> Page:
    write_html(path, **{"title": "T", "rows": [MEASURED]} | content)
    parsed = Page(path.read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A page of 50 layers with everything on it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("page") / "report.html"
    rows = [*network(50), SKIPPED, TRIVIAL]
    history = [row for epoch in range(60) for row in network(50, epoch=float(epoch))]
    curves = {"train/loss": [(e, 1 / (1 + e)) for e in range(60)], "test/loss": [(60, 0.1)]}
    pictures = [picture(row.layer) for row in rows[:12]]
    return path, page(path, rows=rows, history=history, curves=curves, pictures=pictures, meta={"seed": 0})


def test_page_is_small(full):
    assert full[0].stat().st_size < 5_000_000


def test_page_of_pictures_of_every_layer_is_small_too(tmp_path):
    torch.manual_seed(0)
    page(tmp_path / "a.html", rows=network(50), pictures=[picture(row.layer) for row in network(50)])
    assert (tmp_path / "a.html").stat().st_size < 5_000_000


def test_page_requests_nothing(full):
    path, parsed = full
    assert {tag for tag, attrs in parsed.tags if "src" in attrs or "srcset" in attrs} == {"img"}
    assert all(
        attrs["src"].startswith("data:image/png;base64,") for tag, attrs in parsed.tags if tag == "img"
    )
    assert all(attrs["href"].startswith("data:") for tag, attrs in parsed.tags if tag == "link")
    assert not re.search(r"url\(|@import", path.read_text(encoding="utf-8"))
    (policy,) = [a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_page_has_all_sections_and_citations(full):
    text = " ".join(full[1].words)
    for heading in (
        "By depth",
        "By epoch",
        "Training",
        "All numbers",
        "Layer by layer",
        "How to read this page",
    ):
        assert heading in text
    for citation in ("2212.13881", "2309.00570", "2402.05271"):
        assert citation in text
    assert full[1].count("img") == 12 * 5
    assert full[1].count("table") == 3
    assert full[1].count("tr") == 3 * (1 + 52)


def test_page_table_has_every_column():
    # the status is told by the verdict, and by the reason under the name of a skipped layer
    assert {*NUMBER_COLUMNS, *TEXT_COLUMNS} == {*TRAIN_COLUMNS, "verdict"} - {"status"}


def test_page_table_sorts_by_exact_values(full):
    cells = [attrs["data-v"] for tag, attrs in full[1].tags if tag == "td" and "data-v" in attrs]
    assert "0.8781234" in cells
    assert "" in cells  # undefined: sorted last
    assert {"#", "verdict", "z", "init cosine"} <= set(full[1].words)
    assert not any(word in full[1].words for word in ("C-NFC", "groups"))  # nothing but dashes, or ones


def test_page_of_a_transformer_is_sorted_by_part(tmp_path):
    parsed = page(tmp_path / "a.html", rows=transformer(12, heads=12))
    text = " ".join(parsed.words)
    assert "By part" in text
    assert text.count("attn.out_proj") > 12
    assert (tmp_path / "a.html").stat().st_size < 2_000_000
    few = page(tmp_path / "b.html", rows=network(3))
    assert "By part" not in " ".join(few.words)


def test_page_of_hundreds_of_layers_with_pictures_is_small(tmp_path):
    torch.manual_seed(0)
    rows = transformer(12, heads=12)
    page(tmp_path / "a.html", rows=rows, pictures=[picture(row.layer) for row in rows[::30]])
    assert (tmp_path / "a.html").stat().st_size < 8_000_000


def test_page_filters_long_tables(full, tmp_path):
    assert full[1].count("input") == 1
    options = [a["value"] for tag, a in full[1].tags if tag == "option"]
    assert options == ["", "above null", "trivial", "skipped"]
    assert page(tmp_path / "a.html").count("input") == 0


def test_page_keeps_trivial_layers_out_of_charts(tmp_path):
    parsed = page(tmp_path / "a.html", rows=[MEASURED, TRIVIAL, SKIPPED])
    assert "trivial" in parsed.words
    assert "0.970" in parsed.words
    assert SKIPPED.status in parsed.words
    assert [a["class"] for tag, a in parsed.tags if tag == "tr" and "class" in a] == 3 * [
        "trivial",
        "skipped",
    ]
    titles = [text for text in parsed.words if re.fullmatch(r".+\n.+: [^ ]+", text)]
    assert titles
    assert all(f"\n{MEASURED.layer}: " in text for text in titles)


def test_partial_page_says_so(tmp_path):
    notes = ["Covered: 99.6 % of the parameters.", "Partial: stopped after 96 of 500 samples."]
    parsed = page(tmp_path / "a.html", title="resnet50", notes=notes)
    assert "Partial: resnet50" in parsed.words
    assert "partial" in parsed.words
    kinds = [attrs.get("class") for tag, attrs in parsed.tags if tag == "li"][:2]
    assert kinds == ["warning", None]  # the warning comes first
    assert " stopped after 96 of 500 samples." in parsed.words
    whole = page(tmp_path / "b.html", title="resnet50", notes=notes[:1])
    assert "Partial" not in "".join(whole.words)


def test_page_shows_nested_meta(tmp_path):
    skipped = {f"norm{i}": "its weight is elementwise" for i in range(30)}
    sizes = {"resize": 256, "crop": {"height": 224, "width": 224}}
    parsed = page(tmp_path / "a.html", meta={"skipped weights": skipped, "preprocessing": sizes, "seed": 0})
    assert parsed.count("details") == 1
    assert "30 entries" in parsed.words
    assert {"norm29", "resize", "height: 224, width: 224"} <= set(parsed.words)


def test_page_tells_effective_ranks(tmp_path):
    spectrum = torch.ones(7)
    pictures = [LayerPicture(MEASURED.layer, nfm_spectrum=spectrum, agop_spectrum=spectrum[:3])]
    text = "".join(page(tmp_path / "a.html", pictures=pictures).words).replace("\u00a0", " ")
    assert "effective rank NFM 7.0, AGOP½ 3.0" in text


def test_table_links_to_pictures(tmp_path):
    parsed = page(tmp_path / "a.html", pictures=[picture(MEASURED.layer, 4)])
    places = {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
    targets = {attrs["href"] for tag, attrs in parsed.tags if tag == "a" and attrs["href"].startswith("#")}
    assert targets == {"#guide", "#layer-1"}
    assert {target[1:] for target in targets} <= places


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b'"])
def test_page_escapes_everything(tmp_path, evil):
    row = replace(MEASURED, layer=evil, kind=evil, epoch=1.0)
    parsed = page(
        tmp_path / "a.html",
        title=evil,
        rows=[row, replace(SKIPPED, layer=evil, status="skipped: " + evil)],
        history=[row, replace(row, epoch=2.0)],
        curves={evil: [(0, 1.0)], evil + "/loss": [(0, 1.0)]},
        pictures=[replace(picture(evil, 4), filters=None)],
        meta={evil: {evil: [evil]}, "long": {evil + str(i): evil for i in range(20)}},
        notes=[evil, f"Partial: {evil}"],
    )
    assert parsed.count("script") == 1
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    assert evil in parsed.words


def test_page_names_the_network_where_a_weight_is_its_own(tmp_path):
    parsed = page(tmp_path / "a.html", rows=[MEASURED, replace(SKIPPED, layer="")])
    assert "(network)" in parsed.words


def test_page_writes_out_what_would_not_show(tmp_path):
    hidden = "a\u202eb\x1bc\u200bd"
    row = replace(MEASURED, layer=hidden, kind=hidden, epoch=1.0)
    parsed = page(
        tmp_path / "a.html",
        title=hidden,
        rows=[row, replace(SKIPPED, status="skipped: " + hidden), *transformer(2)],
        history=[row, replace(row, epoch=2.0)],
        curves={hidden: [(0, 1.0)]},
        pictures=[picture(hidden, 4)],
        meta={hidden: {hidden: {hidden: [hidden]}}},
        notes=[f"{hidden}: {hidden}", hidden],
    )
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert not set("\u202e\x1b\u200b") & set(text)
    assert sum(r"a\u202eb\x1bc\u200bd" in words for words in parsed.words) > 10
    assert sum(r"a\u202eb\x1bc\u200bd" in str(value) for _, a in parsed.tags for value in a.values()) > 5


def test_template_asks_for_all_it_shows():
    with pytest.raises(UndefinedError, match="'sentence' is undefined"):
        render("measurement.html", title="T", partial=False)


@pytest.mark.parametrize(
    "rows", [[], [SKIPPED], [UNDEFINED], [MEASURED]], ids=["none", "skipped", "nan", "one"]
)
def test_page_of_little(tmp_path, rows):
    parsed = page(tmp_path / "a.html", rows=rows, history=rows)
    assert "nan" not in " ".join(parsed.words).lower().split()
    assert not any(
        "nan" in value for _, a in parsed.tags for k, value in a.items() if k in ("d", "cx", "cy", "data-v")
    )


def test_page_draws_what_a_picture_has(tmp_path):
    spectrum = torch.tensor([1e-30, 1e-31, 0.0])
    parsed = page(tmp_path / "a.html", pictures=[LayerPicture("other", nfm_spectrum=spectrum)])
    assert parsed.count("img") == 0
    assert "Spectra" in parsed.words


def test_page_gives_eigenvectors_matching_signs(tmp_path):
    torch.manual_seed(0)
    vectors = torch.randn(4, 3, 5, 5)
    flipped = vectors * torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None, None, None]
    pictures = [LayerPicture("l", nfm_eigenvectors=vectors, agop_eigenvectors=flipped)]
    parsed = page(tmp_path / "a.html", pictures=pictures)
    left, right = (attrs["src"] for tag, attrs in parsed.tags if tag == "img")
    assert left == right


def test_names_on_a_page_are_each_of_one_thing(tmp_path):
    """A residual network has a layer conv1, and a conv1 in every block."""
    torch.manual_seed(0)
    layers = [
        "conv1",
        *(f"layer{i}.0.{part}" for i in (1, 2, 3) for part in ("conv1", "conv2")),
        "fc",
        "other",
    ]
    rows = [replace(MEASURED, layer=layer, epoch=1.0) for layer in layers]
    curves = {"train/loss": [(1, 0.5)], "val/loss": [(1, 0.5)], "val/accuracy": [(1, 0.5)]}
    pictures = [picture(layer, 8) for layer in layers]
    parsed = page(tmp_path / "a.html", rows=rows, history=rows, curves=curves, pictures=pictures)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    legends = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for part in ("*.conv1", "*.conv2", "(other)"):
        assert part in legends  # a part is not called like a layer
        assert f"{part}</th>" in text
    captions = [re.sub("<.*?>", "", c) for c in re.findall(r"<figcaption>(.*?)</figcaption>", text, re.S)]
    shown = re.sub(
        r'<div class="narrow">.*?</svg></div>', "", text, flags=re.S
    )  # each chart is there at two widths
    for found in (
        [a["id"] for _, a in parsed.tags if "id" in a],
        captions,
        [a["alt"] for tag, a in parsed.tags if tag == "img"],
        re.findall(r'aria-label="(.*?)"', shown),
        re.findall(r"<h[1-6].*?>(.*?)</h[1-6]>", text),
    ):
        assert found
        assert sorted(found) == sorted(set(found))
    for name in ("NFM of conv1", "Filters of layer1.0.conv1"):
        assert name in captions
    assert "Spectra of conv1" in re.findall(r'aria-label="(.*?)"', shown)


def test_page_says_what_each_spread_is(tmp_path):
    sentence = "Behind an alignment, ± is its standard error."
    with_error = page(tmp_path / "a.html", rows=[replace(MEASURED, alignment_stderr=0.01)])
    assert sentence in "".join(with_error.words)
    assert sentence not in "".join(page(tmp_path / "b.html", rows=[MEASURED]).words)
    words = " ".join("".join(with_error.words).split())
    assert "two standard deviations (sd) of what chance gives to either side" in words
    assert "The band is the mean of the null and two of its standard deviations (sd)" in words


def test_data_uri_holds_the_picture():
    assert data_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="
