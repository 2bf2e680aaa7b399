"""Rows as table, files, pictures, charts and page: what is written reads back, and nothing else gets in."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from nfa.ansatz.report_file import write_json
from nfa.ansatz.row import NAN, VERDICTS, AnsatzRow, read_csv, write_csv
from nfa.ansatz.words import abbreviate, format_table, short_names, summary_sentence
from nfa.layers.parts import common_start, find_parts, split_name
from nfa.page import write_html
from nfa.page.raster import color_table, heatmap, png, tile
from nfa.page.svg import Band, Series, line_chart, ramp
from tests.nfa.example_rows import MEASURED, SKIPPED, TRIVIAL, UNDEFINED, transformer


def same(left: AnsatzRow, right: AnsatzRow) -> bool:
    return repr(left) == repr(right)  # unlike ==, takes NaN for equal to NaN


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_epoch", [False, True])
def test_csv_round_trip(tmp_path, with_epoch):
    rows = [
        replace(MEASURED, epoch=3.0),
        SKIPPED,
        TRIVIAL,
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
    assert [row.pop("verdict") for row in content["rows"]] == ["above null", "skipped"]
    rows = [AnsatzRow(**{k: NAN if v is None else v for k, v in row.items()}) for row in content["rows"]]
    assert all(map(same, rows, [MEASURED, SKIPPED]))
    assert content["meta"] == {
        "seed": 0,
        "seconds": {"audit": 1.5, "none": None},
        "dtype": "torch.float32",
        "sizes": [1, 2],
    }


def test_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "a.html"
    write_html(path, title="first", rows=[MEASURED])
    before = path.read_text()

    def half(self, text, **options):
        self.write_bytes(text.encode()[: len(text) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space left"):
        write_html(path, title="second", rows=[MEASURED])
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


# -- words -----------------------------------------------------------------------------------------


def test_summary_counts_layers_by_z():
    rows = [replace(MEASURED, z=z) for z in (9.0, 6.0, 5.0, 2.0, -1.0, -7.0, NAN)]
    assert summary_sentence([*rows, SKIPPED, TRIVIAL]) == (
        "Of 7 measured layers, alignment is far beyond chance (z > 5) in 2, above chance (2 < z ≤ 5) in 1, "
        "within chance (|z| ≤ 2) in 2, below chance (z < −2) in 1 and undefined in 1. "
        "Where it is above chance, the median fitted exponent α is 0.59 (chance gives 1). "
        "The cosine of NFM and AGOP is 0.95, by chance alone 0.80. 1 layer was skipped."
    )


def test_summary_of_little():
    assert summary_sentence([]) == summary_sentence([TRIVIAL]) == "No layer was measured."
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


@pytest.mark.parametrize(
    ("z", "verdict"),
    [
        (2.1, "above null"),
        (2.0, "within null"),
        (-2.0, "within null"),
        (-2.1, "below null"),
        (NAN, "undefined"),
    ],
)
def test_verdict_of_z(z, verdict):
    row = replace(MEASURED, z=z)
    assert row.verdict == verdict
    assert row.measured
    assert verdict in VERDICTS


def test_trivial_and_skipped_rows_are_not_measured():
    assert (TRIVIAL.verdict, TRIVIAL.measured, TRIVIAL.skipped) == ("trivial", False, False)
    assert (SKIPPED.verdict, SKIPPED.measured, SKIPPED.skipped) == ("skipped", False, True)


def test_table_columns_are_aligned():
    wide = replace(MEASURED, layer="classifier", in_features=25088, out_features=4096, groups=32, z=1234.5)
    head, rule, *lines = format_table([MEASURED, wide, UNDEFINED, TRIVIAL], width=140).split("\n")
    assert {len(line) for line in (head, rule, *lines)} == {len(head)}
    titles = (
        "in→out",
        "alignment",
        "z",
        "verdict",
        "α fit (r)",
        "cosine",
        "null ± sd",
        "init align",
        "init cos",
    )
    for title in titles:
        end = re.search(rf"(?<!\S){re.escape(title)}(?!\S)", head).end()
        assert all(line[end - 1] != " " and line[end : end + 2].strip() == "" for line in lines), title
    numbers = [
        *("+0.878", "40.2", "above", "null", "0.59", "(+0.91)"),
        *("0.949", "0.803", "±", "0.012", "-0.012", "0.744"),
    ]
    assert lines[0].split() == ["layer1.0.conv1", "conv2d", "144→16", *numbers]
    assert lines[2].split() == ["head", "linear", "64→10", "–", "–", "undefined", "–", "1.000", "–", "–", "–"]
    assert lines[3].split()[:7] == ["fc", "linear", "64→10", "–", "–", "trivial", "–"]
    assert "0.970" in lines[3]


def test_table_wraps_reasons():
    reason = replace(SKIPPED, kind="MultiheadAttention", status="skipped: " + "fused projections " * 9)
    lines = format_table([MEASURED, reason], width=110).split("\n")
    assert max(map(len, lines)) <= 110
    assert " ".join(lines[3:]).split().count("fused") == 9


@pytest.mark.parametrize(
    ("width", "left_out"), [(140, []), (124, ["kind"]), (100, ["kind", "init cos", "init align"])]
)
def test_table_leaves_out_the_least_important_columns(width, left_out):
    rows = [replace(row, layer="model." + row.layer) for row in transformer(12)]
    lines = format_table(rows, width=width).split("\n")
    assert max(map(len, lines)) <= width
    assert {head for head in ("kind", "init cos", "init align") if head not in lines[0]} == set(left_out)
    assert len({line.split()[0] for line in lines}) == len(lines)


def test_table_has_initial_values_where_there_are_any():
    plain = replace(MEASURED, init_cosine=NAN, init_alignment=NAN)
    assert "init" not in format_table([plain, UNDEFINED, SKIPPED])
    assert "init" in format_table([plain, MEASURED], width=140)


def test_short_names_tell_layers_apart():
    names = ["stem", *(f"encoder.layers.layer_{i}.attention.{part}" for i in range(12) for part in "qkv")]
    assert short_names(names, 40) == names
    assert short_names(names, 24)[:2] == ["stem", "…layer_0.attention.q"]
    assert short_names(names, 20)[-1] == "…layer_11.attentio.v"
    assert len(set(short_names(names, 14))) == len(names)
    assert max(map(len, short_names(names, 12))) <= 12
    assert short_names([], 12) == []


@pytest.mark.parametrize(
    ("name", "block", "part"),
    [
        (
            "encoder.layers.encoder_layer_3.self_attention.q",
            "encoder.layers.encoder_layer_3",
            "self_attention.q",
        ),
        ("blocks.3.attn.qkv.v.head11", "blocks.3", "attn.qkv.v"),
        ("blocks.3.mlp.0", "blocks.3", "mlp.0"),
        ("layer1.0.conv1", "layer1.0", "conv1"),
        ("layer4.2.downsample.0", "layer4.2", "downsample.0"),
        ("features.3.1.block.0.0", "features.3.1", "block.0.0"),
        ("conv1", "conv1", ""),
        ("heads.head", "heads.head", ""),
    ],
)
def test_block_and_part_of_a_name(name, block, part):
    assert split_name(name) == (block, part)


def test_parts_are_those_that_recur():
    parts = find_parts([row.layer for row in transformer(3, heads=2)])
    assert parts.names == ("attn.q", "attn.k", "attn.v", "attn.out_proj", "mlp.fc1", "mlp.fc2", "other")
    assert parts.layers("attn.q") == [1, 2, 10, 11, 19, 20]
    assert parts.layers("other") == [0, 28]
    assert parts.block_of_layer[:2] == ("embed", "blocks.0")
    assert find_parts(["features.0", "features.3", "classifier.0", "classifier.3"]) is None
    assert find_parts(["0", "2", "4"]) is None
    assert find_parts([]) is None


@pytest.mark.parametrize(
    ("names", "start"),
    [
        (["m.blocks.0.a", "m.blocks.1.a", "head"], "m."),
        (["a.b.c", "a.b.d"], "a.b."),
        (["a", "b"], ""),
        ([], ""),
    ],
)
def test_common_start(names, start):
    assert common_start(names) == start


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


def test_chart_names_groups_of_layers():
    names = [f"block{i // 6}.{part}" for i, part in enumerate("qkvo12" * 12)]
    groups = [name.split(".")[0] for name in names]
    root = chart([Series("s", range(72), [0.0] * 72)], x_names=names, x_groups=groups)
    assert [text for text in words(root) if text.startswith("block")] == list(dict.fromkeys(groups))
    assert next(t.text for t in root.iter(f"{SVG}title")) == "s\nblock0.q: 0"
    narrow = chart([Series("s", range(72), [0.0] * 72)], x_names=names, x_groups=groups, width=200)
    assert 3 <= sum(text.startswith("block") for text in words(narrow)) < 12


def test_chart_of_hundreds_of_layers_keeps_its_points():
    layers = [str(i) for i in range(480)]
    series = [Series(label, range(480), [0.5] * 480, line=False) for label in "ab"]
    assert len([*chart(series, x_names=layers).iter(f"{SVG}title")]) == 960
