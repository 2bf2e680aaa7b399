"""Comparisons of runs with several numbers of samples, and of runs that tell of single ones."""

import re

import pytest

from nfa.compare import compare
from nfa.compare.examined import Examined, examined_of
from nfa.compare.runs import read_run
from nfa.compare.sample_sizes import size_curves
from nfa.errors import NfaError
from nfa.page.comparison import write_comparison
from nfa.page.examined import samples_of
from tests.nfa.run_folders import make_run

GRID = ["..+", ".-+", "- ."]
EXAMINED = {"groups": {"near": [2, 2], "far": [0, 2]}, "grid": GRID}
DATA = {"data": "modular", "features": False}


def sized(folder, sizes):
    """Runs of a net and of a kernel machine with several numbers of samples, two seeds each."""
    return [
        make_run(
            folder / f"{model}_{n}_{seed}", model, seed, n / 1000 + 0.01 * seed, n_train=n,
            settings={"data.n": n}, kind=kind, **DATA,
        )
        for model, kind in (("mlp", "net"), ("rfm", "kernel"))
        for n in sizes
        for seed in (0, 1)
    ]  # fmt: skip


def test_a_model_is_one_curve_over_the_numbers_of_samples(tmp_path):
    curves = size_curves(compare(sized(tmp_path, (400, 200, 800))))
    assert {curve.label for curve in curves} == {"mlp", "rfm"}
    for curve in curves:
        assert list(curve.scores) == [200, 400, 800]
        assert sorted(curve.scores[400]) == pytest.approx([0.4, 0.41])


def test_other_options_tell_curves_apart(tmp_path):
    for depth in (1, 2):
        for n in (200, 800):
            settings = {"data.n": n, "model.depth": depth}
            make_run(tmp_path / f"{depth}_{n}", settings=settings, n_train=n, **DATA)
    curves = size_curves(compare([tmp_path]))
    assert [curve.label for curve in curves] == ["mlp (depth=1)", "mlp (depth=2)"]


def test_an_option_of_the_data_that_makes_no_size_stays_in_the_label(tmp_path):
    for noise in (0.0, 0.1):
        for n in (200, 800):
            settings = {"data.n": n, "data.noise": noise}
            make_run(tmp_path / f"{noise}_{n}", settings=settings, n_train=n, **DATA)
    curves = size_curves(compare([tmp_path]))
    assert [curve.label for curve in curves] == ["mlp (noise=0.0)", "mlp (noise=0.1)"]


@pytest.mark.parametrize("sizes", [(800,), (799, 800), (700, 800)])
def test_numbers_of_samples_that_are_much_the_same_are_no_curve(tmp_path, sizes):
    assert size_curves(compare(sized(tmp_path, sizes))) == []


def test_the_page_draws_scores_against_samples(tmp_path):
    comparison = compare(sized(tmp_path, (200, 800)))
    write_comparison(tmp_path / "page.html", comparison, sentence="")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Score and samples" in text
    assert text.count("Score against training samples") >= 2  # once for each width
    write_comparison(tmp_path / "page.html", compare(sized(tmp_path / "b", (800,))), sentence="")
    assert "Score and samples" not in (tmp_path / "page.html").read_text(encoding="utf-8")


# -- single samples --------------------------------------------------------------------------------


def test_single_samples_are_told_by_run_and_drawn(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / str(seed), seed=seed, examined=EXAMINED, **DATA)
    make_run(tmp_path / "none", "cnn", **DATA)
    comparison = compare([tmp_path])
    samples = samples_of(comparison)
    assert [label for label, _ in samples.rows] == ["mlp", "mlp"]
    replicate, near, far = samples.rows[0][1]
    assert (replicate, near.text, near.remark, far.text, far.remark) == (
        "seed 0", "1.000", "2 of 2", "0.000", "0 of 2",
    )  # fmt: skip
    assert [p.replicate for p in samples.pictures] == ["seed 0", "seed 1"]
    write_comparison(tmp_path / "page.html", comparison, sentence="")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<figure><img src="data:image/png', text)) == 2
    assert "Right: 2 of 2, near; 0 of 2, far" in text
    assert samples_of(compare(sized(tmp_path / "b", (800,)))) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"grid": ["..x"]},
        {"grid": ["..", "."]},
        {"grid": []},
        {"grid": "..."},
        {"groups": {"near": [3, 2]}},
        {"groups": {"near": 1}},
        {"groups": {"near": [True, 2]}},
        {"more": 1},
    ],
)
def test_what_is_no_account_of_samples_is_refused(tmp_path, changed):
    with pytest.raises(ValueError, match="examined"):
        examined_of({"examined": EXAMINED | changed})
    with pytest.raises(NfaError, match=r"damaged \(examined\)"):
        read_run(make_run(tmp_path / "run", examined=EXAMINED | changed, **DATA))


def test_an_account_of_samples_is_read():
    found = examined_of({"examined": EXAMINED})
    assert found == Examined({"near": (2, 2), "far": (0, 2)}, tuple(GRID))
    assert found.sentence == "Right: 2 of 2, near; 0 of 2, far"
    assert examined_of({}) is None


# -- features --------------------------------------------------------------------------------------


def test_what_the_data_know_of_features_is_drawn_by_epoch(tmp_path):
    for seed in (0, 1):
        folder = make_run(tmp_path / str(seed), seed=seed, **DATA)
        lines = (folder / "metrics.csv").read_text().splitlines()
        more = ["features/support,features/self_consistency", ".5,.1", ".9,.2", ","]
        text = "".join(f"{line},{cells}\n" for line, cells in zip(lines, more, strict=True))
        (folder / "metrics.csv").write_text(text)
    write_comparison(tmp_path / "page.html", compare([tmp_path]), sentence="")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Features by epoch" in text
    assert 'aria-label="support"' in text
    assert 'aria-label="self_consistency"' not in text
