"""``nfa diff``: what changed between two measurements of one network, or why they are not compared."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nfa
from nfa.ansatz.difference import differences
from nfa.ansatz.difference_groups import grouped
from nfa.ansatz.report_file import write_json
from nfa.ansatz.row import AnsatzRow, read_csv, write_csv
from nfa.command.cli import main
from nfa.layers.groups import layer_blocks
from tests.nfa.example_rows import MEASURED, SKIPPED, TRIVIAL
from tests.nfa.run_folders import make_run

META = {"data": "digits/train: 16 of 1438 images", "samples": 16, "seed": 0, "mode": "exact", "power": 0.5}
OLD = Path(__file__).parents[2] / "fixtures" / "v0.1" / "audit"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def layer(name, alignment, cosine=0.9, error=0.01, **changes):
    known = {"alignment": alignment, "alignment_stderr": error, "cosine": cosine, "stderr": error}
    return replace(MEASURED, layer=name, **{**known, **changes})


def audit(folder, rows, version=nfa.__version__, **meta):
    Path(folder).mkdir()
    write_json(f"{folder}/audit.json", rows, {**META, "versions": {"nfa": version}, **meta})
    return folder


def diff(*arguments):
    return main(["diff", *map(str, arguments)])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        diff(*arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err


BEFORE = [
    layer("layer1.0.conv1", 0.1),
    layer("layer1.0.conv2", 0.1),
    layer("layer1.1.conv1", 0.1),
    layer("layer2.0.conv1", 0.1, kind="linear"),
    SKIPPED,
    TRIVIAL,
]
AFTER = [
    layer("layer1.0.conv1", 0.2, 0.8),
    layer("layer1.0.conv2", 0.12, 0.9),
    layer("layer1.1.conv1", 0.0, 0.9),
    layer("layer2.0.conv1", 0.5, 0.9, error=math.nan, kind="linear"),
    SKIPPED,
    TRIVIAL,
]


def test_changes_beyond_their_errors(capsys):
    assert diff(audit("a", BEFORE), audit("b", AFTER, seed=1), "--out", "o") == 0
    out = capsys.readouterr().out
    assert (
        "Of 4 layers measured in both, alignment rose by more than two errors in 1, fell by more than two "
        "errors in 1, stayed within two errors in 1 and has no errors to be judged by in 1." in out
    )
    assert "Other samples: 16 of digits/train (seed 0) before, 16 of digits/train (seed 1) after" in out
    assert "By block: layer1.1 -0.100 ± 0.014 on average (1 fell of 1); layer1.0 +0.060 ± 0.014" in out
    with open("o/diff.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["outcome"] for row in rows] == ["rose", "within errors", "fell", "no errors"]
    assert float(rows[0]["z"]) == pytest.approx(0.1 / math.hypot(0.01, 0.01))
    assert [row["cosine_outcome"] for row in rows] == ["fell", "within errors", "within errors", "no errors"]
    with open("o/diff_groups.csv", newline="") as file:
        groups = {(row["level"], row["group"]): row for row in csv.DictReader(file)}
    assert list(groups) == [
        ("stage", "layer1"), ("stage", "layer2"),
        ("block", "layer1.0"), ("block", "layer1.1"), ("block", "layer2.0"),
        ("kind", "conv2d"), ("kind", "linear"),
    ][:5]  # by kind they are the stages  # fmt: skip
    assert (groups["stage", "layer1"]["rose"], groups["stage", "layer1"]["fell"]) == ("1", "1")
    content = json.loads(Path("o/diff.json").read_text())
    assert content["layers"][3]["z"] is None
    assert content["groups"][0]["alignment"] == pytest.approx(0.02 / 3)
    page = Path("o/diff.html").read_text()
    assert "layer1.0.conv1" in page
    assert ">conv2d<" in page  # the layers are of two kinds
    assert "<svg" in page


def test_basis_and_exponent_have_errors_too(capsys):
    known = {"basis": 0.2, "basis_stderr": 0.03, "alpha_fit": 0.5, "alpha_low": 0.4, "alpha_high": 0.596}
    later = {"basis": 0.5, "basis_stderr": 0.04, "alpha_fit": 0.9, "alpha_low": 0.7, "alpha_high": math.inf}
    rows = [replace(BEFORE[0], **known), replace(BEFORE[1], **known)]
    assert diff(audit("a", rows), audit("b", [replace(rows[0], **later), rows[1]]), "--out", "o") == 0
    assert "+0.300 ± 0.050" in capsys.readouterr().out
    with open("o/diff.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["basis_stderr"]) == pytest.approx(0.05)
    assert float(second["alpha_stderr"]) == pytest.approx(0.05 * math.sqrt(2))


def test_the_same_samples_make_it_conservative(capsys):
    assert diff(audit("a", BEFORE), audit("b", AFTER)) == 0
    assert "Same samples: " in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]  # without --out nothing is written


def test_errors_of_probes_are_not_those_of_samples(capsys):
    assert diff(audit("a", BEFORE, mode="8 probes"), audit("b", AFTER, seed=1)) == 0
    out = capsys.readouterr().out
    assert "Probes before: the errors are those of random probes" in out
    assert "on other samples a z may be too large" in out
    assert diff("a", audit("c", AFTER, mode="8 probes", tolerance=0.01)) == 0
    assert "Probes after" not in capsys.readouterr().out


def test_an_audit_that_was_stopped(capsys):
    assert diff(audit("a", BEFORE, stopped=True, samples=8), audit("b", AFTER)) == 0
    out = capsys.readouterr().out
    assert "Partial before: it was stopped after 8 samples." in out
    assert "Partial after" not in out


def test_a_change_that_rounds_to_nothing_has_no_sign(capsys):
    rows = [layer("a", 0.1), layer("b", -0.2)]
    later = [layer("a", 0.1 - 1e-9), layer("b", -0.2)]
    assert diff(audit("a", rows), audit("b", later), "--out", "o") == 0
    assert "-0.000" not in capsys.readouterr().out
    assert ">kind" not in Path("o/diff.html").read_text().split("All layers")[1]  # all are of one kind
    assert "−0.000" not in Path("o/diff.html").read_text()


def test_files_of_every_kind(capsys):
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    report = nfa.audit(net, list(torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0))))
    report.save("report.json")
    nfa.audit(net, torch.randn(8, 6), output="softmax").save("softmax.json")
    assert "have not the same C" in refused(capsys, "report.json", "softmax.json")
    assert diff("report.json", "report.json", "--out", "o") == 0
    out = capsys.readouterr().out
    assert "stayed within two errors in 1" in out
    assert "Version" not in out
    make_run(Path("r"), seed=0)
    make_run(Path("s"), seed=1)
    assert diff("r", "s") == 0
    out = capsys.readouterr().out
    assert "run of mlp on digits, after epoch 2" in out
    assert "Samples: the files do not tell" in out
    assert diff(OLD, OLD / "audit.json") == 0  # of version 0.1, whose alignments have no errors
    assert "no errors to be judged by in 3" in capsys.readouterr().out


def test_what_only_one_has_measured_is_told(capsys):
    assert diff(audit("a", [BEFORE[0], replace(BEFORE[1], status="skipped: no")]), audit("b", AFTER[:2])) == 0
    assert "Left out: 1 that only one of the two measured (layer1.0.conv2)." in capsys.readouterr().out
    assert diff(audit("c", [SKIPPED]), audit("d", [SKIPPED]), "--out", "o") == 0
    assert "No layer was measured in both." in capsys.readouterr().out
    assert Path("o/diff.html").is_file()


REFUSED = {
    "another network": ({"rows": [layer("fc1", 0.1)]}, "of different networks"),
    "other layers of it": (
        {"rows": [BEFORE[0], layer("layer3", 0.1)]},
        "with the same --layers and --per-head",
    ),
    "other sizes": ({"rows": [replace(BEFORE[0], out_features=7), *BEFORE[1:]]}, "of different networks"),
    "another power": ({"rows": [replace(row, power=1.0) for row in BEFORE]}, "to different powers"),
    "another output": ({"rows": BEFORE, "output": "softmax"}, "measured with output='softmax'"),
    "another version": ({"rows": BEFORE, "version": "0.1.0"}, "was written by nfa 0.1.0"),
}


@pytest.mark.parametrize(("other", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_compared(capsys, other, words):
    audit("b", AFTER)
    other = dict(other)
    assert words in refused(capsys, audit("a", other.pop("rows"), **other), "b", "--out", "o")
    assert not Path("o").exists()


def test_blocks_are_counted_in_a_stage():
    names = {
        "layer1.0.conv1": "layer1.0", "layer1.0.downsample.0": "layer1.0",
        "stages.2.blocks.1.mlp.fc1": "stages.2.blocks.1",
        "blocks.0.attn.qkv": "blocks.0", "features.3.conv.0.1": "features.3", "fc": "fc",
        "encoder.layer.11.output": "encoder.layer.11",
    }  # fmt: skip
    assert layer_blocks(list(names)) == names


def test_the_mean_of_a_group_is_no_more_certain_than_its_layers():
    rows = [AnsatzRow(f"b{i}.w", "linear", 4, 4, alignment=0.0, alignment_stderr=0.3) for i in range(4)]
    later = [replace(row, alignment=1.0, alignment_stderr=0.4) for row in rows]
    (kind,) = grouped(differences(nfa.AnsatzReport(later), nfa.AnsatzReport(rows)))
    assert (kind.level, kind.alignment, kind.alignment_stderr) == ("kind", 1.0, 0.5)
    assert math.isnan(kind.cosine)


# ---- files of strangers ------------------------------------------------------------------------------------


def written(**changes):
    row = {"layer": "a", "kind": "linear", "in_features": 2, "out_features": 2, "alignment": 0.5, **changes}
    return json.dumps({"meta": {}, "rows": [row]})


DAMAGED = {
    "nothing": "", "no JSON": "{", "a list": "[]", "no rows": '{"meta": {}, "rows": []}',
    "cut": written()[:-9],
    "a huge number": written(alignment=1e300), "an infinite one": written(alignment=math.inf),
    "a negative error": written(stderr=-1.0), "a text": written(alignment="0.5"),
    "no correlation": written(cosine=2.5), "a negative error of the basis": written(basis_stderr=-0.1),
    "an interval turned round": written(alpha_fit=1.0, alpha_low=2.0, alpha_high=0.5),
    "a truth value": written(alignment=True), "a negative size": written(in_features=-1),
    "a size beyond words": written(out_features=10**400), "a layer that is none": written(layer=None),
    "a layer twice": json.dumps({"meta": {}, "rows": [json.loads(written())["rows"][0]] * 2}),
    "nested": "[" * 100_000, "binary": "\x00\x01", "meta of another kind": '{"meta": 3, "rows": []}',
}  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(capsys, text):
    audit("good", AFTER)
    Path("bad").mkdir()
    Path("bad/audit.json").write_text(text)
    for arguments in (("bad", "good"), ("good", "bad/audit.json")):
        refused(capsys, *arguments, "--out", "o")
        assert not Path("o").exists()


def test_an_interval_of_the_exponent_may_be_open(capsys):
    for name, high in (("a", math.inf), ("b", 2.0)):
        folder = make_run(Path(name))
        rows = [replace(row, alpha_low=0.5, alpha_high=high) for row in read_csv(folder / "ansatz.csv")]
        write_csv(folder / "ansatz.csv", rows, with_epoch=True)
    assert diff("a", "b", "--out", "o") == 0
    assert math.isinf(read_csv("a/ansatz.csv")[0].alpha_high)


def test_a_run_that_was_not_measured(capsys):
    audit("good", AFTER)
    make_run(Path("r"))
    header = Path("r/ansatz.csv").read_text().splitlines()[0]
    Path("r/ansatz.csv").write_text(header + "\n")
    told = refused(capsys, "r", "good")
    assert "r holds no measurement: train with callbacks=default, or audit it (nfa audit file:r)" in told


META_OF_STRANGERS = [
    {"versions": 3}, {"versions": {"nfa": ["0.2"]}}, {"versions": {"nfa": "\x1b[2J"}}, {"samples": [1]},
    {"data": {"a": 1}}, {"mode": ["probes"]}, {"network": {"a": 1}}, {"tolerance": "x"}, {"seed": 10**400},
]  # fmt: skip


@pytest.mark.parametrize("meta", META_OF_STRANGERS)
def test_meta_of_any_kind(capsys, meta):
    audit("good", AFTER)
    audit("strange", AFTER, **meta)
    assert diff("strange", "good", "--out", "o") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_what_is_no_file(capsys, place):
    audit("good", AFTER)
    (place / "empty").mkdir()
    (place / "folder" / "audit.json").mkdir(parents=True)
    (place / "link").symlink_to("link")
    for name in ("nowhere", "empty", "folder", "link", "a\0b", "x" * 5000):
        refused(capsys, name, "good")


def test_names_are_shown_and_not_acted_on(capsys):
    name = "\x1b]0;owned\x07=cmd\n</script><script>alert(1)</script>"
    rows = [replace(row, layer=name, kind=name) for row in (BEFORE[0],)]
    assert diff(audit("a", rows, network=name), audit("b", rows, network=name), "--out", "o") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert "<script>alert" not in Path("o/diff.html").read_text()
    audit("c", [replace(BEFORE[0], layer="=cmd()")])
    assert diff("c", "c", "--out", "o") == 0
    assert Path("o/diff.csv").read_text().splitlines()[1].startswith("'=cmd()")
