"""Rows as table, files, pictures, charts and page: what is written reads back, and nothing else gets in."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

from nfa.images import color_table, data_uri, heatmap, png, tile
from nfa.page import write_html
from nfa.page_assets import NUMBER_COLUMNS, TEXT_COLUMNS
from nfa.report import LayerPicture, abbreviate, format_table, summary_sentence, write_json
from nfa.rows import NAN, TRAIN_COLUMNS, AnsatzRow, read_csv, write_csv
from nfa.svg import Band, Series, line_chart, ramp

MEASURED = AnsatzRow(
    layer="layer1.0.conv1",
    kind="conv2d",
    in_features=144,
    out_features=16,
    groups=1,
    power=0.5,
    alignment=0.8781234,
    z=40.25,
    alpha_fit=0.59,
    alpha_r=0.91,
    cosine=0.949,
    null_mean=0.803,
    null_std=0.0123,
    init_cosine=0.744,
    init_alignment=-0.012,
)
SKIPPED = AnsatzRow("rnn", "LSTM", 64, 256, status="skipped: weights of a recurrent layer")
UNDEFINED = AnsatzRow("head", "linear", 64, 10, cosine=1.0)


def network(layers: int, **changes) -> list[AnsatzRow]:
    return [replace(MEASURED, layer=f"stage{i // 6}.block{i}.conv", **changes) for i in range(layers)]


def same(left: AnsatzRow, right: AnsatzRow) -> bool:
    return repr(left) == repr(right)  # unlike ==, takes NaN for equal to NaN


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_epoch", [False, True])
def test_csv_round_trip(tmp_path, with_epoch):
    rows = [
        replace(MEASURED, epoch=3.0),
        SKIPPED,
        UNDEFINED,
        replace(MEASURED, layer='a,"b"\n<c>', cosine=1e-30),
    ]
    write_csv(tmp_path / "a.csv", rows, with_epoch=with_epoch)
    expected = rows if with_epoch else [replace(row, epoch=NAN) for row in rows]
    assert all(map(same, read_csv(tmp_path / "a.csv"), expected))
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_json_round_trip(tmp_path):
    path = tmp_path / "a.json"
    meta = {"seed": 0, "seconds": {"audit": 1.5, "none": math.inf}, "dtype": torch.float32, "sizes": (1, 2)}
    write_json(path, [MEASURED, SKIPPED], meta)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    rows = [AnsatzRow(**{k: NAN if v is None else v for k, v in row.items()}) for row in content["rows"]]
    assert all(map(same, rows, [MEASURED, SKIPPED]))
    assert content["meta"] == {
        "seed": 0,
        "seconds": {"audit": 1.5, "none": None},
        "dtype": "torch.float32",
        "sizes": [1, 2],
    }


def test_failed_write_keeps_the_previous_file(tmp_path):
    path = tmp_path / "a.html"
    write_html(path, title="first", rows=[MEASURED])
    before = path.read_text()
    with pytest.raises(UnicodeEncodeError):
        write_html(path, title="\ud800", rows=[MEASURED])  # a lone surrogate has no UTF-8
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


# -- words -----------------------------------------------------------------------------------------


def test_summary_counts_layers_by_z():
    rows = [replace(MEASURED, z=z) for z in (9.0, 6.0, 5.0, 2.0, -1.0, -7.0, NAN)]
    assert summary_sentence([*rows, SKIPPED]) == (
        "Of 7 measured layers, alignment is far beyond chance (z > 5) in 2, above chance (2 < z ≤ 5) in 1, "
        "within chance (|z| ≤ 2) in 2, below chance (z < −2) in 1 and undefined in 1. "
        "Where it is above chance, the median fitted exponent α is 0.59. "
        "The cosine of NFM and AGOP is 0.95, by chance alone 0.80. 1 layer was skipped."
    )


def test_summary_of_little():
    assert summary_sentence([]) == "No layer was measured."
    assert summary_sentence([SKIPPED, SKIPPED]) == "No layer was measured. 2 layers were skipped."
    bare = replace(UNDEFINED, cosine=NAN)
    assert summary_sentence([bare]) == "Of 1 measured layer, alignment is undefined in 1."


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [("conv1", 5, "conv1"), ("features.conv1", 9, "feat…onv1"), ("features.conv1", 8, "fea…onv1")],
)
def test_abbreviate_keeps_both_ends(name, width, expected):
    assert abbreviate(name, width) == expected
    assert len(expected) <= width


def test_table_columns_are_aligned():
    wide = replace(MEASURED, layer="classifier", in_features=25088, out_features=4096, groups=32, z=1234.5)
    head, rule, *lines = format_table([MEASURED, wide, UNDEFINED]).split("\n")
    assert {len(line) for line in (head, rule, *lines)} == {len(head)}
    for title in ("in→out", "alignment", "z", "α fit (r)", "cosine", "null", "init align", "init cos"):
        end = re.search(rf"(?<!\S){re.escape(title)}(?!\S)", head).end()
        assert all(line[end - 1] != " " and line[end : end + 2].strip() == "" for line in lines), title
    numbers = ["+0.878", "40.2", "0.59", "(+0.91)", "0.949", "0.803", "±", "0.012", "-0.012", "0.744"]
    assert lines[0].split() == ["layer1.0.conv1", "conv2d", "144→16", *numbers]
    assert lines[2].split() == ["head", "linear", "64→10", "–", "–", "–", "1.000", "–", "–", "–"]


def test_table_fits_the_width_and_wraps_reasons():
    long = replace(MEASURED, layer="model.encoder.layers.11.attention.self.output.projection.query.weight")
    reason = replace(SKIPPED, kind="MultiheadAttention", status="skipped: " + "fused projections " * 9)
    for width in (None, 110):
        lines = format_table([long, reason], width=width).split("\n")
        assert max(map(len, lines)) <= (width or 120)
    assert " ".join(lines[3:]).split().count("fused") == 9
    assert re.match(r"model\S*…\S*ight  conv2d", lines[2])


def test_table_without_rows():
    assert format_table([]).startswith("layer  kind")


# -- images ----------------------------------------------------------------------------------------


def decode(data: bytes) -> torch.Tensor:
    io = pytest.importorskip("torchvision.io")
    return io.decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), io.ImageReadMode.RGB).permute(
        1, 2, 0
    )


def luminance(rgb: torch.Tensor) -> torch.Tensor:
    linear = (rgb.double() / 255) ** 2.2
    return linear @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)


def test_color_table_rises_in_luminance():
    table = color_table()
    assert table.shape == (256, 3)
    assert table.dtype == torch.uint8
    assert (luminance(table).diff() > -1e-3).all()  # rounding to 8 bits moves a step by about that
    assert (luminance(table[::4]).diff() > 0).all()
    assert luminance(table)[-1] - luminance(table)[0] > 0.6


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (64, 33, 3)])
@pytest.mark.parametrize("colors", [2, 256])
def test_png_decodes_to_the_same_picture(shape, colors):
    torch.manual_seed(0)
    picture = torch.randint(colors, shape, dtype=torch.uint8)
    assert torch.equal(decode(png(picture)), picture)


def test_png_of_few_colors_is_small():
    torch.manual_seed(0)
    assert len(png(heatmap(torch.randn(256, 256)))) < 256 * 256 * 1.1  # one byte a pixel, not three


@pytest.mark.parametrize("bad", [torch.zeros(2, 2, 3), torch.zeros(2, 2, dtype=torch.uint8)])
def test_png_refuses_other_tensors(bad):
    with pytest.raises(ValueError, match="uint8"):
        png(bad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_heatmap_orders_entries(dtype):
    rgb = heatmap(torch.arange(16).reshape(4, 4).to(dtype))
    assert rgb.shape == (4, 4, 3)
    assert (luminance(rgb).flatten().diff()[1:-1] > 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heatmap_is_free_of_scale(scale, dtype):
    torch.manual_seed(0)
    matrix = torch.randn(300, 300, dtype=dtype)
    apart = (heatmap(matrix).int() - heatmap(matrix * scale).int()).abs()
    assert apart.max() <= 4  # rounding of the product moves an entry to the next colour at most


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-30])
def test_heatmap_of_a_constant_has_one_color(value):
    constant = torch.full((20, 20), value) * (1 + 1e-7 * torch.randn(20, 20))
    assert torch.equal(heatmap(constant), color_table()[128].expand(20, 20, 3))


def test_heatmap_shows_a_sparse_diagonal():
    rgb = heatmap(torch.eye(200))
    assert torch.equal(rgb[7, 7], color_table()[-1])
    assert torch.equal(rgb[7, 8], color_table()[0])


def test_heatmap_greys_what_is_undefined():
    matrix = torch.arange(9.0).reshape(3, 3)
    matrix[0, 0], matrix[1, 1] = NAN, math.inf
    rgb = heatmap(matrix)
    assert rgb[0, 0].tolist() == rgb[1, 1].tolist() == [128, 128, 128]
    assert torch.equal(rgb[2, 2], color_table()[-1])
    assert (heatmap(torch.full((3, 3), NAN)) == 128).all()


def test_heatmap_pools_by_area():
    matrix = torch.zeros(600, 600)
    matrix[:300] = 1
    rgb = heatmap(matrix, max_size=100)
    assert rgb.shape == (100, 100, 3)
    assert torch.equal(rgb[:50], color_table()[-1].expand(50, 100, 3))
    assert torch.equal(rgb[50:], color_table()[0].expand(50, 100, 3))


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(0, 0)])
def test_heatmap_refuses_other_shapes(bad):
    with pytest.raises(ValueError, match="matrix"):
        heatmap(bad)


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_tile_lays_out_a_grid(channels):
    torch.manual_seed(0)
    rgb = tile(torch.randn(5, channels, 4, 6), scale=3, gap=2)
    assert rgb.shape == (2 * 12 + 2, 3 * 18 + 2 * 2, 3)
    first = rgb[:12, :18]
    assert (first.min(), first.max()) == (0, 255)
    assert torch.equal(first, first[::3, ::3].repeat_interleave(3, 0).repeat_interleave(3, 1))
    assert (channels == 3) or (rgb == rgb[..., :1]).all()


def test_tile_draws_the_leading_component_of_many_channels():
    pattern = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    images = torch.stack([-pattern, 2 * pattern, 0.5 * pattern, torch.zeros(2, 2)])[None]
    assert torch.equal(tile(images, scale=1), tile(pattern[None, None], scale=1))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tile_of_what_has_no_contrast_is_grey(channels):
    images = torch.zeros(2, channels, 3, 3)
    images[1] = NAN
    assert set(tile(images, scale=1, gap=0).unique().tolist()) == {128}


def test_tile_contrast_is_each_images_own():
    image = torch.arange(12.0).reshape(1, 3, 2, 2)
    rgb = tile(torch.cat([image, 1e-30 * image]), scale=1, gap=0)
    assert torch.equal(rgb[:, :2], rgb[:, 2:])


# -- charts ----------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def chart(series, **options) -> ElementTree.Element:
    labels = {"title": "T", "x_label": "x", "y_label": "y"}
    return ElementTree.fromstring(line_chart(series, **labels | options))


def words(element: ElementTree.Element) -> list[str]:
    return [text.text for text in element.iter(f"{SVG}text")]


def test_chart_has_a_point_with_its_value_for_each_number():
    root = chart([Series("s", [0, 1, 2], [0.5, NAN, 0.25])], x_names=["a", "b", "c"])
    assert [title.text for title in root.iter(f"{SVG}title")] == ["s\na: 0.5", "s\nc: 0.25"]
    assert {"T", "x", "y", "a", "b", "c"} <= set(words(root))


def test_chart_line_breaks_at_nan():
    root = chart([Series("s", range(5), [1, 2, NAN, 3, 4])])
    lines = [p.get("d") for p in root.iter(f"{SVG}path") if "L" in p.get("d")]
    assert len(lines) == 3  # the legend's sample and two runs


@pytest.mark.parametrize("y", [[NAN, NAN], [0.0, 0.0], [1e-30, 1e-30], [1e300, -1e300], [3.0, 3.0]])
@pytest.mark.parametrize("log", [False, True])
def test_chart_of_awkward_values_stays_inside(y, log):
    root = chart([Series("s", [0, 1], y)], y_log=log, width=400)
    _, _, width, height = map(float, root.get("viewBox").split())
    for circle in root.iter(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height
    assert ("nothing to draw" in words(root)) == (not any(map(math.isfinite, y)))


def test_chart_point_beyond_the_axis_lies_at_its_edge():
    root = chart([Series("s", [0, 1, 2], [0.5, 9.0, 1.0])], y_range=(0, 1))
    heights = [float(c.get("cy")) for c in root.iter(f"{SVG}circle") if c.find(f"{SVG}title") is not None]
    assert heights[1] == heights[2] < heights[0]


def test_chart_band_is_a_step_for_each_name():
    root = chart([], bands=[Band("b", [0, 1, 2], [0, NAN, 0], [1, NAN, 1])], x_names=["a", "b", "c"])
    (area,) = [p.get("d") for p in root.iter(f"{SVG}path") if "Z" in p.get("d")]
    assert area.count("M") == 2
    assert area.count("L") == 6


def test_chart_log_axis_has_powers_of_ten():
    root = chart([Series("s", [1, 10, 100], [1.0, 1e-4, 1e-8])], x_log=True, y_log=True)
    assert {"1", "10", "10⁻⁴", "10⁻⁸"} <= set(words(root))


def test_chart_thins_and_abbreviates_many_names():
    names = [f"model.encoder.layers.{i}.attention.query" for i in range(200)]
    root = chart([Series("s", range(200), [0.0] * 200)], x_names=names, width=360)
    ticks = [text for text in words(root) if "…" in text]
    assert 10 <= len(ticks) <= 25
    assert max(map(len, ticks)) <= 16


def test_ramp_goes_from_first_to_last():
    assert ramp(1) == ["#3b7dd8"]
    assert ramp(3)[::2] == ["#3b7dd8", "#e8962e"]
    assert len(set(ramp(50))) == 50


# -- page ------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the text, and what has opened but not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
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
    rows = [*network(50), SKIPPED]
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
    assert full[1].count("tr") == 1 + 51


def test_page_table_has_every_column():
    assert {*NUMBER_COLUMNS, *TEXT_COLUMNS} == set(TRAIN_COLUMNS)


def test_page_table_sorts_by_exact_values(full):
    cells = [attrs["data-v"] for tag, attrs in full[1].tags if tag == "td" and "data-v" in attrs]
    assert "0.8781234" in cells
    assert "" in cells  # undefined: sorted last
    assert full[1].count("button") == len(TRAIN_COLUMNS)


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
        meta={evil: {evil: [evil]}},
    )
    assert parsed.count("script") == 1
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    assert evil in parsed.words


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


def test_data_uri_holds_the_picture():
    assert data_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="
