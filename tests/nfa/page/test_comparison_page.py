"""The page of a comparison as a browser would see it: complete, closed, small, frank about the unknown."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nfa.ansatz.row import AnsatzRow
from nfa.compare import Comparison, Run
from nfa.compare.comparison import Difference, Group
from nfa.compare.similarity import COVARIANCE, feature_spaces
from nfa.page.comparison import write_comparison
from nfa.page.comparison_charts import depth_curve, looks, mean_curve
from nfa.page.marks import SHAPES, place_names
from nfa.page.matrix import signed
from nfa.page.svg import Series, line_chart

NAN = math.nan
VOID = ("meta", "link", "img", "br", "wbr")
SECTIONS = (
    "Models",
    "Score and cost",
    "Learning",
    "Feature similarity",
    "Leading eigenvectors",
    "Ansatz by depth",
    "How to read this page",
    "How this was made",
)


class Page(HTMLParser):
    """Tags with their attributes, the text of each cell and heading, and what has opened but not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open, self.texts = [], [], [], []
        self._reading = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th", "h1", "h2", "h3", "p", "li", "span", "text"):
            self._reading.append((len(self.open), tag, []))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self._reading and self._reading[-1][0] == len(self.open):
            _, kind, words = self._reading.pop()
            self.texts.append((kind, "".join(words)))
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        for _, _, words in self._reading:
            words.append(data)

    def all(self, kind: str) -> list[str]:
        return [text.replace("\u00a0", " ") for tag, text in self.texts if tag == kind]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def text(self) -> str:
        return "".join(self.words).replace("\u00a0", " ")


def make_run(folder, label, seed, score, *, kernel=False, matrix=None, shape=(1, 4, 4), epochs=3, **summary):
    """A run whose folder holds an input AGOP, if one is given, and the inputs."""
    path = folder / f"{label.encode().hex()[:60]}_{seed}"
    path.mkdir(exist_ok=True)
    facts, tensors = {"input_shape": "x".join(map(str, shape)), "kind": "linear"}, {}
    if matrix is not None:
        inputs = torch.randn(50, matrix.shape[0], generator=torch.Generator().manual_seed(seed))
        tensors = {"input_agop": matrix, "inputs": inputs}
        save_file(tensors, path / "features.safetensors", facts)
    layers = ["feature_map"] if kernel else ["fc1", "fc2", "head"]
    rows = [
        AnsatzRow(name, "linear", 16, 16, alignment=e / 10, z=2 * e, cosine=0.9, null_mean=0.8, epoch=e)
        for e in map(float, range(epochs + 1))
        for name in layers
    ]  # fmt: skip
    rows = [replace(r, alignment=NAN, z=NAN, status="trivial") if r.layer == "head" else r for r in rows]
    known = {
        "model": label, "data": "digits", "seed": seed, "run": f"{label}{seed}", "test/accuracy": score,
        "test_split": "a", "fit_seconds": 1.5 + seed, "fit_memory_mb": 500.0, "num_parameters": 1234,
        "epochs": epochs,
    }  # fmt: skip
    if kernel:
        known |= {"kind": "kernel", "num_centers": 360, "rounds": epochs - 1, "best_round": 1}
    metrics = [{"epoch": float(e), "val/accuracy": score * e / epochs} for e in range(1, epochs + 1)]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Run(path, known | summary, metrics, rows, shapes, facts if tensors else {})


def psd(size, seed, share=0.0):
    """A random matrix, of which a share is the same for all seeds."""
    x = torch.randn(size, size // 2, generator=torch.Generator().manual_seed(seed))
    y = torch.randn(size, 2, generator=torch.Generator().manual_seed(99))
    return (1 - share) * x @ x.mT + share * y @ y.mT * size / 4


def make_comparison(groups, differences=None, **changes):
    """Groups given best first, as lists of runs."""
    groups = [Group(runs[0].model, tuple(runs)) for runs in groups]
    runs = [run for group in groups for run in group.runs]
    spaces, notes = feature_spaces(runs, [run.model for run in runs])
    found = [Difference(g.label, groups[0].score - g.score, 0.01, len(g.runs)) for g in groups[1:]]
    comparison = Comparison("digits", runs[0].metric, groups, found, spaces, notes)
    return replace(comparison, **({} if differences is None else {"differences": differences}) | changes)


@pytest.fixture
def three(tmp_path):
    """Two nets and a kernel machine, two seeds each, all with features."""
    return make_comparison(
        [
            [make_run(tmp_path, "rfm", s, 0.97, kernel=True, matrix=psd(16, s, 0.5)) for s in (0, 1)],
            [make_run(tmp_path, "mlp (lr=0.1)", s, 0.96 - 0.01 * s, matrix=psd(16, s, 0.5)) for s in (0, 1)],
            [make_run(tmp_path, "cnn", s, 0.5, matrix=psd(16, 5 + s)) for s in (0, 1)],
        ]
    )


def page(tmp_path, comparison, **options):
    path = tmp_path / "comparison.html"
    write_comparison(path, comparison, **{"sentence": "rfm won."} | options)
    return Page(path.read_text(encoding="utf-8"))


# -- the whole page --------------------------------------------------------------------------------


def test_page_has_its_sections_in_order(tmp_path, three):
    parsed = page(tmp_path, three, meta={"command": "nfa compare a b", "folders": ["a", "b"]})
    assert parsed.all("h1") == ["3 models on digits"]
    assert parsed.all("h2") == list(SECTIONS)
    assert "rfm won." in parsed.all("p")
    assert "nfa compare a b" in parsed.words


def test_page_names_every_group_in_table_charts_and_matrix(tmp_path, three):
    parsed = page(tmp_path, three)
    for label in ("rfm", "mlp (lr=0.1)", "cnn"):
        assert parsed.all("th").count(label) >= 1 + 2 + 2  # models, its runs, rows and columns of the matrix
        assert parsed.all("text").count(label) == 2 * (2 + 3)  # two scatters and three legends, at two widths
        assert label in parsed.all("span")  # its eigenvectors


def test_headings_and_captions_are_each_of_one_thing(tmp_path, three):
    large = replace(three.spaces[0], name="NFM of the first layer, inputs")
    parsed = page(tmp_path, replace(three, spaces=[*three.spaces, large]))
    names = [a["aria-label"] for tag, a in parsed.tags if "aria-label" in a and tag != "svg"]
    charts = [a["aria-label"] for tag, a in parsed.tags if "aria-label" in a and tag == "svg"]
    for found in (names, parsed.all("h2"), parsed.all("h3"), [a["id"] for _, a in parsed.tags if "id" in a]):
        assert sorted(found) == sorted(set(found))
    assert charts[::2] == charts[1::2]  # each at two widths, of which one is shown
    assert len(set(charts)) == len(charts) / 2


def test_page_says_what_each_spread_is(tmp_path, three):
    words = " ".join(page(tmp_path, three).text.split())
    assert "behind a score ± is the standard deviation over its runs" in words
    assert "behind a difference from the best half its 95 % confidence interval" in words


def test_page_requests_nothing(tmp_path, three):
    parsed = page(tmp_path, three, meta={"command": "x"})
    assert {tag for tag, attrs in parsed.tags if "src" in attrs or "srcset" in attrs} == {"img"}
    assert all(a["src"].startswith("data:image/png;base64,") for tag, a in parsed.tags if tag == "img")
    addresses = [attrs["href"] for _, attrs in parsed.tags if "href" in attrs]
    assert all(a.startswith(("#guide", "data:", "https://arxiv.org/abs/")) for a in addresses)
    text = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import", text)
    assert set(re.findall(r"https?://[\w.]+", text)) == {
        "https://arxiv.org",
        "http://www.w3.org",
    }  # SVG's name
    (policy,) = [a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert parsed.count("script") == 1


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b'_<i>,c"]
)
def test_page_escapes_everything(tmp_path, evil):
    harmless, parsed = (_page_named(tmp_path, name) for name in ("harmless", evil))
    for tag in ("script", "img", "i", "b", "svg", "td", "th", "li", "dd"):
        assert parsed.count(tag) == harmless.count(tag)
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    assert all(attrs["src"].startswith("data:") for tag, attrs in parsed.tags if tag == "img")
    assert parsed.all("h1") == [f"2 models on {evil}"]
    assert parsed.all("th").count(evil) == 1 + 2 + 2
    assert evil in parsed.all("p")
    assert parsed.all("li").count(evil) == 1 + 9
    assert parsed.all("td").count(evil) == 2  # folders


def _page_named(tmp_path, evil):
    """A page with the same text in all places."""
    runs = [[make_run(tmp_path, label, s, 0.9, matrix=psd(16, s)) for s in (0, 1)] for label in ("a", "b")]
    comparison = make_comparison(runs)
    moved = tuple(replace(run, path=Path(evil)) for run in comparison.groups[0].runs)
    named = [Group(evil, moved), comparison.groups[1]]
    space = comparison.spaces[0]
    members = tuple(replace(m, label=evil, is_flat=True) if m.label == "a" else m for m in space.members)
    comparison = replace(
        comparison,
        data=evil,
        groups=named,
        differences=[Difference("b", 0.0, 0.0, 2)],
        spaces=[replace(space, name=evil, members=members)],
        notes=[evil],
        left_out=[evil] * 9,
    )
    return page(tmp_path, comparison, sentence=evil, meta={evil: {evil: [evil]}})


def test_page_of_thirty_runs_on_colour_images_is_small(tmp_path):
    size = 3 * 32 * 32
    diagonal = torch.linspace(1, 2, size)
    runs = [
        make_run(tmp_path, f"m{i}", s, 0.9 - i / 100, shape=(3, 32, 32), epochs=200, kernel=i % 2 == 0)
        for i in range(15)
        for s in (0, 1)
    ]
    comparison = make_comparison([runs[2 * i : 2 * i + 2] for i in range(15)])
    small = [make_run(tmp_path, f"s{i}", 0, 0.9, matrix=psd(16, i)) for i in range(15)]
    (space,), _ = feature_spaces(small, [run.model for run in small])
    vectors = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * diagonal.mean()
    members = tuple(replace(m, eigenvectors=vectors) if m.label != COVARIANCE else m for m in space.members)
    spaces = [replace(space, members=members, name=name) for name in ("input AGOP", "NFM of the first layer")]
    parsed = page(tmp_path, replace(comparison, spaces=spaces))
    assert parsed.count("img") == 2 * (15 * 6 + 6)
    assert (tmp_path / "comparison.html").stat().st_size < 5_000_000


# -- tables ----------------------------------------------------------------------------------------


def rows_of(text, table):
    """Texts of the cells of a table, row by row, the head first."""
    body = re.findall(r"<table.*?</table>", text, re.S)[table]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [cells(row) for row in rows]


def cells(row):
    found = re.findall(r"<t[dh].*?</t[dh]>", row, re.S)
    return [
        next(text.replace("\u00a0", " ") for tag, text in Page(c).texts if tag in ("td", "th")) for c in found
    ]


def read(tmp_path):
    return (tmp_path / "comparison.html").read_text(encoding="utf-8")


def test_tables_sort_by_buttons_and_exact_values(tmp_path, three):
    parsed = page(tmp_path, three)
    text = read(tmp_path)
    models, runs = rows_of(text, 0), rows_of(text, 1)
    assert len(models) == 1 + 3
    assert len(runs) == 1 + 6
    heads = re.findall(r"<th scope=\"col\".*?</th>", text, re.S)
    sortable = [h for h in heads if "<button" in h]
    assert len(sortable) == len(models[0]) + len(runs[0])
    values = [attrs["data-v"] for tag, attrs in parsed.tags if tag == "td" and "data-v" in attrs]
    assert "0.955" in values  # mean of 0.96 and 0.95
    assert "" in values  # centers of a net


def test_models_are_told_with_their_spread_cost_and_ansatz(tmp_path, three):
    page(tmp_path, three)
    head, best, second, third = rows_of(read(tmp_path), 0)
    by_name = dict(zip(head, second, strict=True))
    assert by_name["model"] == "mlp (lr=0.1)"
    assert by_name["kind"] == "net"
    assert by_name["runs"] == "2"
    assert by_name["test/accuracy"] == "0.9550 ± 0.0071"
    assert by_name["from best"] == "−0.0150 ± 0.0898not settled, 2 seeds"
    assert by_name["fit s"] == "2"
    assert by_name["parameters"] == "1,234"
    assert by_name["centers"] == "–"
    assert by_name["epochs"] == "3"
    assert by_name["ansatz align"] == "+0.300"
    assert by_name["above null"] == "2 of 2"  # of the last map it cannot be told
    assert "z" not in by_name
    assert by_name["ansatz cos"] == "0.900"
    assert best[head.index("from best")] == "best"
    assert best[head.index("kind")] == "kernel"
    assert best[head.index("epochs")] == "2"  # rounds
    assert third[head.index("from best")] == "−0.4700 ± 0.0898beyond seed noise"


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Difference("b", 0.02, NAN, 1), "−0.0200one seed: noise unknown"),
        (Difference("b", NAN, NAN, 0), "–no seed in common"),
        (Difference("b", 0.0, 0.0, 2), "0.0000 ± 0.0000same for all seeds"),
        (Difference("b", 0.01, 0.02, 4), "−0.0100 ± 0.0318within seed noise"),
    ],
)
def test_difference_without_noise_is_no_verdict(tmp_path, difference, words):
    runs = [[make_run(tmp_path, label, 0, 0.9)] for label in ("a", "b")]
    page(tmp_path, make_comparison(runs, [difference]))
    head, _, second = rows_of(read(tmp_path), 0)
    assert second[head.index("from best")] == words
    assert second[head.index("test/accuracy")] == "0.9000"


def test_errors_are_worse_upwards(tmp_path):
    runs = []
    for label, score in (("a", 0.1), ("b", 0.3)):
        members = [make_run(tmp_path, label, s, score) for s in (0, 1)]
        for run in members:
            run.summary["test/mse"] = run.summary.pop("test/accuracy")
            run.metrics[:] = [{"epoch": 1.0, "val/loss": score}, {"epoch": 2.0, "val/loss": score / 2}]
        runs.append(members)
    parsed = page(tmp_path, make_comparison(runs, [Difference("b", 0.2, 0.01, 2)]))
    head, _, second = rows_of(read(tmp_path), 0)
    assert second[head.index("from best")].startswith("+0.2 ±")
    assert "Down and to the left is better" in parsed.text
    assert "val/loss" in parsed.all("text")


def test_long_lists_of_notes_are_folded(tmp_path, three):
    few = page(tmp_path, replace(three, notes=["Versions differ: 1, 2"], left_out=["a"] * 4))
    assert few.count("summary") == 1  # the runs
    assert len(few.all("li")) == 3 + 1 + 4  # references, notes
    many = page(tmp_path, replace(three, left_out=[f"run {i}" for i in range(5)]))
    assert many.count("summary") == 2
    assert "5 folders or runs left out" in many.words
    assert "run 4" in many.all("li")


# -- what is missing -------------------------------------------------------------------------------


def test_page_without_features_measurements_and_validation(tmp_path):
    runs = [[make_run(tmp_path, label, s, 0.9) for s in (0, 1)] for label in ("a", "b")]
    for run in (run for members in runs for run in members):
        run.metrics.clear()
        run.ansatz.clear()
        run.summary.update(fit_memory_mb=None, num_parameters=None, fit_seconds=0.0)
    comparison = make_comparison(runs)
    parsed = page(tmp_path, comparison)
    assert parsed.all("h2") == ["Models", "How to read this page"]
    head = rows_of(read(tmp_path), 0)[0]
    assert head == ["#", "model", "test/accuracy", "from best", "runs", "kind", "fit s", "epochs"]
    assert sum(note.startswith("Features unknown") for note in parsed.all("li")) == 4


def test_page_of_one_run_a_group(tmp_path):
    runs = [[make_run(tmp_path, label, 0, 0.9, matrix=psd(16, i))] for i, label in enumerate("ab")]
    parsed = page(tmp_path, make_comparison(runs))
    matrix = rows_of(read(tmp_path), 2)
    assert matrix[1][1] == matrix[2][2] == matrix[3][3] == "–"
    assert matrix[1][2] != "–"
    assert "only one run, so that no two seeds compare" in parsed.text
    assert "no seed that both" not in parsed.text


def test_page_of_models_without_a_common_seed(tmp_path):
    runs = [[make_run(tmp_path, label, i, 0.9, matrix=psd(16, i))] for i, label in enumerate("ab")]
    page(tmp_path, make_comparison(runs, [Difference("b", NAN, NAN, 0)]))
    matrix = rows_of(read(tmp_path), 2)
    assert matrix[1][2] != "–"
    assert matrix[1][1] == matrix[2][2] == "–"
    assert "no seed in common" in read(tmp_path)


def test_page_of_kernel_machines_alone(tmp_path):
    runs = [
        [make_run(tmp_path, label, s, 0.9, kernel=True, matrix=psd(16, s)) for s in (0, 1)] for label in "ab"
    ]
    page(tmp_path, make_comparison(runs))
    head, first, _ = rows_of(read(tmp_path), 0)
    assert first[head.index("kind")] == "kernel"
    assert first[head.index("centers")] == "360"
    assert rows_of(read(tmp_path), 1)[1][rows_of(read(tmp_path), 1)[0].index("best round")] == "1"


def test_page_of_one_group_is_about_its_runs(tmp_path):
    runs = [[make_run(tmp_path, "cnn", s, 0.9, matrix=psd(16, s)) for s in (0, 1)]]
    assert page(tmp_path, make_comparison(runs)).all("h1") == ["2 runs of cnn on digits"]


def test_what_is_undefined_is_a_dash(tmp_path):
    runs = [
        [make_run(tmp_path, label, s, 0.9, fit_memory_mb=None, matrix=torch.eye(16)) for s in (0, 1)]
        for label in "ab"
    ]
    for members in runs:
        for run in members:
            run.ansatz[:] = [
                replace(row, alignment=NAN, z=NAN, cosine=NAN, null_mean=NAN) for row in run.ansatz
            ]
    runs[0][0].summary["fit_memory_mb"] = 7.0
    parsed = page(tmp_path, make_comparison(runs))
    assert "nan" not in parsed.text.lower().replace("covariance", "").split()
    attributes = [
        v for _, a in parsed.tags for k, v in a.items() if k in ("d", "cx", "cy", "data-v", "style")
    ]
    assert attributes
    assert not any("nan" in value for value in attributes)
    head, first, second = rows_of(read(tmp_path), 0)
    assert (first[head.index("memory")], second[head.index("memory")]) == ("7", "–")
    assert "alignment" not in head


# -- similarity ------------------------------------------------------------------------------------


def test_matrix_shows_cosine_null_and_z_of_each_pair(tmp_path, three):
    page(tmp_path, three)
    (space,) = three.spaces
    head, *rows = rows_of(read(tmp_path), 2)
    assert head[1:] == [row[0] for row in rows] == ["rfm", "mlp (lr=0.1)", "cnn", "data (covariance)"]
    for label, row in zip(space.labels, rows, strict=True):
        for other, cell in zip(space.labels, row[1:], strict=True):
            cosine, null, z = (
                space.between(label, other, v) for v in (space.cosine, space.null_mean, space.z)
            )
            assert cell == f"{cosine:.3f}null {null:.2f}z {z:z.1f}".replace("-", "−")


def test_matrix_is_coloured_by_alignment_beyond_chance(tmp_path, three):
    page(tmp_path, three)
    table = re.findall(r"<table.*?</table>", read(tmp_path), re.S)[2]
    first = re.findall(r"<tr>.*?</tr>", table, re.S)[1]
    looks_of = re.findall(r"<td (.*?)>", first)
    assert looks_of[1].startswith('class="heat"')  # rfm and mlp have the same matrices
    assert looks_of[2] == 'class="chance"'  # cnn an independent one
    (space,) = three.spaces
    for other, found in zip(space.labels, looks_of, strict=True):
        z, alignment = (space.between("rfm", other, value) for value in (space.z, space.alignment))
        assert found == (
            f'class="heat" style="--share:{100 * alignment:.0f}%"' if z > 2 else 'class="chance"'
        )


def test_flat_matrix_is_explained(tmp_path):
    runs = [
        [make_run(tmp_path, "rfm", s, 0.9, kernel=True, matrix=torch.eye(16)) for s in (0, 1)],
        [make_run(tmp_path, "cnn", s, 0.9, matrix=psd(16, s)) for s in (0, 1)],
    ]
    comparison = make_comparison(runs)
    parsed = page(tmp_path, comparison)
    head, rfm, cnn, _ = rows_of(read(tmp_path), 2)
    assert rfm[head.index("cnn")].endswith("z –")
    assert not cnn[head.index("cnn")].endswith("z –")
    (words,) = [p for p in parsed.all("p") if p.startswith("Nothing learned")]
    assert "rfm, seed 0; rfm, seed 1" in words
    assert "cnn" not in words
    assert "Round 0 is the best" in words
    assert parsed.all("span").count("rfm") == 0  # the eigenvectors of the identity are none of its own


def test_eigenvectors_are_signed_alike():
    generator = torch.Generator().manual_seed(0)
    blob, edge = torch.ones(1, 5, 5), torch.linspace(-1, 1, 5).expand(1, 5, 5)
    colours = torch.tensor([1.0, 0.0, -1.0])[:, None, None].expand(3, 2, 2)
    for pattern in (blob, edge, edge.mT, colours):
        noisy = pattern + 0.05 * torch.randn(8, *pattern.shape, generator=generator)
        flips = torch.tensor([1.0, -1.0] * 4)[:, None, None, None]
        assert torch.equal(signed(noisy), signed(noisy * flips))
        products = torch.einsum("icab,jcab->ij", signed(noisy), signed(noisy))
        assert (products > 0).all()


def test_eigenvectors_are_drawn_in_a_strip_a_model(tmp_path, three):
    parsed = page(tmp_path, three)
    strips = [
        a["aria-label"] for _, a in parsed.tags if a.get("role") == "img" and "eigen" in a["aria-label"]
    ]
    assert strips == [
        f"Leading eigenvectors of {n}: input AGOP"
        for n in ("rfm", "mlp (lr=0.1)", "cnn", "data (covariance)")
    ]
    assert parsed.count("img") == 4 * 6


# -- charts ----------------------------------------------------------------------------------------


def test_groups_differ_in_looks_and_kernel_machines_from_nets(tmp_path):
    groups = [Group(f"m{i}", (make_run(tmp_path, f"m{i}", 0, 0.9, kernel=i % 3 == 0),)) for i in range(16)]
    styles = looks(groups)
    assert len({(s["color"], s["shape"]) for s in styles.values()}) == 16
    assert len({s["shape"] for s in list(styles.values())[:8]}) == len(SHAPES) == 8
    assert [s["hollow"] for s in styles.values()] == [group.is_kernel for group in groups]
    assert [s["dashed"] for s in styles.values()] == [group.is_kernel for group in groups]


def test_many_groups_have_a_legend_in_place_of_names(tmp_path):
    groups = [[make_run(tmp_path, f"model number {i}", 0, 0.9 - i / 100)] for i in range(20)]
    parsed = page(tmp_path, make_comparison(groups))
    assert parsed.all("th").count("model number 19") == 2
    assert parsed.all("text").count("model number 19") == 2 * (2 + 3)
    assert "paint-order" not in read(tmp_path)  # as names over a chart have it
    page(tmp_path, make_comparison(groups[:16]))
    assert read(tmp_path).count("paint-order") == 2 * 2 * 16


def test_scatter_has_a_point_a_run(tmp_path, three):
    parsed = page(tmp_path, three)
    points = [words for words in parsed.words if re.match(r"cnn\n[\d.]+: 0.5$", words)]
    assert points.count("cnn\n1.5: 0.5") == 2  # at two widths
    assert points.count("cnn\n2.5: 0.5") == 2
    assert points.count("cnn\n500: 0.5") == 2 * 2


def test_mean_curve_goes_as_far_as_all_do():
    curves = [[(1.0, 1.0), (2.0, 3.0), (3.0, NAN)], [(1.0, 3.0), (2.0, 5.0), (3.0, 1.0)], []]
    assert mean_curve(curves) == [(1.0, 2.0), (2.0, 4.0)]
    assert mean_curve([[], [(1.0, NAN)]]) == []


def test_depth_curve_is_a_mean_over_runs_that_have_the_layer(tmp_path):
    first, second = (make_run(tmp_path, "a", s, 0.9) for s in (0, 1))
    second.ansatz[:] = [replace(row, alignment=row.alignment + 0.2) for row in second.ansatz]
    second.ansatz.append(replace(second.ansatz[-1], layer="skip", status="skipped: not called"))
    second.ansatz[-3] = replace(second.ansatz[-3], alignment=NAN)  # fc2
    assert depth_curve([first, second]) == [(0.0, pytest.approx(0.4)), (0.5, pytest.approx(0.3))]
    assert depth_curve([]) == []


def boxes(names, widths):
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    lefts = [name.x - shift[name.anchor] * width for name, width in zip(names, widths, strict=True)]
    return [(x, n.y - 10, x + w, n.y + 4) for x, n, w in zip(lefts, names, widths, strict=True)]


def meet(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.01 and min(a[3], b[3]) - max(a[1], b[1]) > 0.01


@pytest.mark.parametrize("width", [500.0, 300.0])
def test_names_cover_neither_each_other_nor_points(width):
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(16, 2, 2, generator=generator) * torch.tensor([width, 280.0])
    spread[:4] = torch.tensor([40.0, 40.0]) + 6 * torch.rand(4, 2, 2, generator=generator)  # a crowd
    groups = [[tuple(point) for point in group.tolist()] for group in spread]
    widths = [30.0 + 5 * i for i in range(16)]
    found = boxes(place_names(groups, widths, (0.0, 0.0, width, 280.0)), widths)
    assert not any(meet(a, b) for i, a in enumerate(found) for b in found[:i])
    assert all(-1 <= left and right <= width + 1 for left, _, right, _ in found)
    points = [(x - 3, y - 3, x + 3, y + 3) for group in groups for x, y in group]
    assert not any(meet(box, point) for box in found for point in points)


def test_name_far_from_its_point_is_joined_to_it():
    crowd = [[(100.0 + 4 * i, 100.0 + 4 * j)] for i in range(5) for j in range(5)]
    names = place_names(crowd, [60.0] * 25, (0.0, 0.0, 300.0, 200.0))
    joined = [name for name in names if name.leader]
    assert joined
    for point, name in zip(crowd, names, strict=True):
        assert name.leader is None or name.leader[0] == point[0]


def test_shaped_markers_are_thinned_on_lines_but_not_in_scatters():
    points = {"x": list(range(400)), "y": [float(i) for i in range(400)], "shape": "star"}
    labels = {"title": "T", "x_label": "x", "y_label": "y"}
    line, scatter = (line_chart([Series("s", line=line, **points)], **labels) for line in (True, False))
    assert 20 <= line.count("<title>") <= 40
    assert scatter.count("<title>") == 400
    assert "stroke-dasharray" in line_chart([Series("s", [0, 1], [0, 1], dashed=True)], **labels)
