"""Finished runs side by side: what may be compared, what is said of it, and the similarity of features."""

import csv
import json
import math
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from nfa import NfaError
from nfa.ansatz.row import read_csv, write_csv
from nfa.command.cli import main
from nfa.compare import compare
from nfa.compare.similarity import COVARIANCE, _leading
from nfa.compare.words import format_comparison, similarity_sentences, winner_sentence, write_tables
from tests.nfa.run_folders import PATCH, make_run, spd


def read(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture
def four(tmp_path):
    """Two models of two seeds."""
    return [
        make_run(tmp_path / f"{model}_{seed}", model, seed, accuracy, kind=kind)
        for model, kind, scores in (("mlp", "net", (0.90, 0.94)), ("rfm", "kernel", (0.95, 0.98)))
        for seed, accuracy in enumerate(scores)
    ]


# ---- scores ------------------------------------------------------------------------------------------------


def test_means_spreads_and_paired_differences(four):
    found = compare(four)
    assert [group.label for group in found.groups] == ["rfm", "mlp"]
    assert found.groups[0].score == pytest.approx(0.965)
    assert found.groups[0].score_std == pytest.approx(0.03 / math.sqrt(2))
    (gap,) = found.differences
    assert (gap.other, gap.count) == ("mlp", 2)
    assert gap.mean == pytest.approx((0.05 + 0.04) / 2)
    assert gap.std == pytest.approx(0.01 / math.sqrt(2))
    assert gap.margin == pytest.approx(12.706 * gap.std / math.sqrt(2), rel=1e-4)  # t, one degree of freedom
    assert not gap.is_clear
    sentence = winner_sentence(found)
    assert "rfm has the highest test accuracy, 0.9650 ± 0.0212 (sd over 2 runs)" in sentence
    assert "by 0.0450; 2 seeds do not settle whether that is noise (95 % interval ± 0.0635)" in sentence
    error = math.sqrt(98.5 / 104 * 5.5 / 104 / 104 + 94 / 104 * 10 / 104 / 104)
    assert f"100 samples leave a standard error of up to {error:.4f}" in sentence


def test_an_interval_of_the_exponent_may_be_open(tmp_path):
    folders = [make_run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    path = folders[0] / "ansatz.csv"
    rows = [replace(row, alpha_low=0.5, alpha_high=math.inf) for row in read_csv(path)]
    write_csv(path, rows, with_epoch=True)
    assert len(compare(folders).runs) == 2


def test_a_difference_beyond_the_noise_of_seeds(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"a{seed}", "mlp", seed, 0.90 + 0.01 * seed)
        make_run(tmp_path / f"b{seed}", "rfm", seed, 0.95 + 0.0101 * seed)  # seeds move both alike
    found = compare([tmp_path])
    assert found.differences[0].is_clear
    assert "which exceeds the seed noise" in winner_sentence(found)


def test_least_error_is_best(tmp_path):
    for name, error in (("mlp", 0.5), ("rfm", 0.1)):
        make_run(tmp_path / name, name, **{"test/accuracy": None, "test/mse": error})
    found = compare([tmp_path])
    assert found.metric == "test/mse"
    assert found.groups[0].label == "rfm"
    assert found.differences[0].mean == pytest.approx(0.4)
    assert "lowest test error" in winner_sentence(found)
    assert "run more seeds" in winner_sentence(found)
    assert "±" not in format_comparison(found)  # one run each: nothing to explain


def test_options_tell_models_apart_and_folds_are_repetitions(tmp_path):
    common = "training.lr=0.1"
    for width in (8, 64):
        for fold in (0, 1):
            make_run(
                tmp_path / f"{width}{fold}",
                test_split=f"fold{fold}",
                options=[common, f"model.width={width}", f"data.fold={fold}"],
            )
    found = compare([tmp_path])
    assert sorted(group.label for group in found.groups) == ["mlp (width=64)", "mlp (width=8)"]
    assert [run.replicate for run in found.groups[0].runs] == ["seed 0, fold 0", "seed 0, fold 1"]
    assert found.differences[0].count == 2


def test_settings_from_a_file_tell_models_apart_like_typed_ones(tmp_path):
    """An experiment sets them without anybody typing them."""
    for seed, rate, norm in ((0, 0.05, True), (1, 0.01, False), (2, 0.05, True)):
        settings = {"model.batch_norm": norm, "training.lr": rate, "model.depth": 2, "data.depth": 3}
        make_run(tmp_path / f"cnn{seed}", "cnn", seed, 0.9, settings=settings)
    found = compare([tmp_path])
    assert {group.label: len(group.runs) for group in found.groups} == {
        "cnn (batch_norm=True, lr=0.05)": 2, "cnn (batch_norm=False, lr=0.01)": 1
    }  # fmt: skip


def test_a_network_goes_by_the_name_it_has_now(tmp_path):
    """Up to version 0.1 the networks of `nfa.nets` were called after ``models``."""
    for seed, name in enumerate(("models.MLP", "nfa.nets.MLP")):
        make_run(tmp_path / f"mlp{seed}", seed=seed, settings={"model._target_": name})
    assert [len(group.runs) for group in compare([tmp_path]).groups] == [2]


def test_settings_of_one_last_name_are_told_apart(tmp_path):
    for folder, model, data in (("a", 2, 2), ("b", 2, 3), ("c", 3, 2)):
        settings = {"model.depth": model, "data.depth": data}
        make_run(tmp_path / folder, "mlp", 0, 0.9, settings=settings)
    labels = {group.label for group in compare([tmp_path]).groups}
    assert labels == {f"mlp (data.depth={d}, model.depth={m})" for m, d in ((2, 2), (2, 3), (3, 2))}


def test_the_best_on_average_may_lose_on_the_seeds_that_both_have(tmp_path):
    for seed, accuracy in enumerate((0.80, 0.99, 0.99)):
        make_run(tmp_path / f"mlp{seed}", "mlp", seed, accuracy)
    make_run(tmp_path / "cnn", "cnn", 0, 0.90)
    sentence = winner_sentence(compare([tmp_path]))
    assert "mlp has the highest test accuracy" in sentence
    assert "on the seeds that both have (1), cnn is ahead by 0.1000" in sentence
    assert "standard error" not in sentence


def test_seeds_that_change_nothing_tell_nothing_of_noise(tmp_path):
    for seed in range(4):
        make_run(tmp_path / f"a{seed}", "rfm", seed, 0.90)
        make_run(tmp_path / f"b{seed}", "deep_rfm", seed, 0.89)
    found = compare([tmp_path])
    assert not found.differences[0].is_clear
    assert "the same for all 4 seeds, which tell nothing of noise" in winner_sentence(found)


def test_runs_without_a_seed_are_repetitions_of_their_own(tmp_path):
    for folder in ("a", "b"):
        make_run(tmp_path / folder, "mlp", 0, 0.9)
        summary = json.loads((tmp_path / folder / "summary.json").read_text()) | {"seed": None}
        (tmp_path / folder / "summary.json").write_text(json.dumps(summary))
    make_run(tmp_path / "c", "rfm", 0, 0.8)
    found = compare([tmp_path])
    assert [len(group.runs) for group in found.groups] == [2, 1]
    assert found.differences[0].count == 0
    assert "No seed is common with rfm" in winner_sentence(found)


# ---- what must not be compared -----------------------------------------------------------------------------


def test_nothing_and_one_run(tmp_path):
    with pytest.raises(NfaError, match=r"needs two runs or more, found no finished run.*no folder"):
        compare([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(NfaError, match="holds no run"):
        compare([tmp_path / "empty"])
    one = make_run(tmp_path / "one")
    with pytest.raises(NfaError, match="found only one finished run"):
        compare([one])
    with pytest.raises(NfaError, match="found only one finished run"):
        compare([one, one, tmp_path / "." / "one"])


def test_unfinished_damaged_and_older_runs_are_left_out_with_the_reason(four, tmp_path):
    begun = tmp_path / "begun"
    (begun / "checkpoints").mkdir(parents=True)
    cut = make_run(tmp_path / "cut", seed=7)
    (cut / "summary.json").write_text('{"model": "mlp", ')
    older = make_run(tmp_path / "older", seed=8, test_split=None, nfa="0.0.1")
    broken = make_run(tmp_path / "broken", seed=9)
    (broken / "features.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    letters = make_run(tmp_path / "letters", seed=10)
    (letters / "metrics.csv").write_text("epoch,val/accuracy\none,two\n")
    nan = make_run(tmp_path / "nan", seed=11, accuracy=math.nan)
    found = compare([*four, begun, cut, older, broken, letters, nan])
    assert len(found.runs) == 4
    for words in (
        "begun is not finished: it has no summary.json",
        "cut/summary.json cannot be read as JSON",
        "older was written by another version (nfa 0.0.1): its summary.json does not tell test_split",
        "broken cannot be read",
        "letters cannot be read",
        "nan has no finite test accuracy",
    ):
        assert any(words in reason for reason in found.left_out), words


@pytest.mark.parametrize(
    "wrong",
    [
        {"fit_seconds": "long"}, {"num_parameters": [1]}, {"options": "model.width=8"}, {"options": [1]},
        {"n_test": True}, {"normalize": ["channel"]}, {"run": {}}, {"test/accuracy": True},
        {"test/accuracy": 1.5}, {"test/accuracy": "0.9"}, {"settings": [1]},
    ],
)  # fmt: skip
def test_summaries_with_values_of_the_wrong_kind_are_left_out(four, tmp_path, wrong):
    bad = make_run(tmp_path / "bad", "cnn", 0, **{"accuracy": 0.9} | wrong)
    found = compare([*four, bad])
    assert len(found.runs) == 4
    assert len(found.left_out) == 1
    assert "bad" in found.left_out[0]


@pytest.mark.parametrize(
    ("tensors", "facts"),
    [
        ({"input_agop": torch.ones(9)}, PATCH),
        ({"input_agop": torch.ones(9, 8)}, PATCH),
        ({"input_agop": torch.zeros(0, 0)}, PATCH),
        ({"inputs": torch.ones(20, 8)}, PATCH),
        ({}, PATCH | {"input_shape": "one"}),
    ],
)
def test_features_of_the_wrong_shape_are_left_out(four, tmp_path, tensors, facts):
    bad = make_run(tmp_path / "bad", "cnn", 0)
    whole = load_file(bad / "features.safetensors") | tensors
    save_file(whole, bad / "features.safetensors", facts)
    found = compare([*four, bad])
    assert len(found.runs) == 4
    assert "bad cannot be read" in found.left_out[0]


def test_features_that_are_not_finite_are_undefined_and_spoil_no_others(four, tmp_path, capsys):
    before = compare(four).spaces[0]
    bad = make_run(tmp_path / "bad", "cnn", 0, 0.1)
    tensors = load_file(bad / "features.safetensors")
    tensors |= {name: torch.full_like(tensors[name], math.nan) for name in ("input_agop", "agop", "inputs")}
    save_file(tensors, bad / "features.safetensors", PATCH)
    space = compare([*four, bad]).spaces[0]
    assert math.isnan(space.between("cnn", "mlp", space.z))
    assert space.between("rfm", "mlp", space.z) == pytest.approx(before.between("rfm", "mlp", before.z))
    assert main(["compare", *map(str, four), str(bad), "--out", str(tmp_path / "out")]) == 0


def test_many_runs_take_a_moment(tmp_path):
    for seed in range(60):
        make_run(tmp_path / f"{seed:02d}", "mlp", seed, 0.9)
    start = time.process_time()
    write_tables(tmp_path, compare([tmp_path]))
    assert time.process_time() - start < 10  # 1 s here; a look at all pairs for each pair took minutes


def test_the_same_run_counts_once(four, tmp_path):
    text = (four[0] / "summary.json").read_text()
    copy = make_run(tmp_path / "copy")
    (copy / "summary.json").write_text(text)
    found = compare([*four, four[0], copy])
    assert len(found.runs) == 4
    assert [r for r in found.left_out if "copy is a copy of" in r]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, r"mlp with seed 1 is there twice"),
        ({"seed": 5, "data": "mnist"}, r"data digits and .*mnist: compare runs of one data set"),
        ({"seed": 1, "model": "cnn", "test_split": "0" * 16}, r"tested on other samples .*100 samples"),
        ({"seed": 5, "test/accuracy": None, "test/mse": 1.0}, r"metric test/accuracy and .*test/mse"),
        ({"seed": 5, "model": "cnn", "test_split": "0" * 16}, r"no test split .*all models were tested"),
    ],
)
def test_refusals(four, tmp_path, change, words):
    model, seed = change.pop("model", "mlp"), change.pop("seed")
    other = make_run(tmp_path / "other", model, seed, **change)
    with pytest.raises(NfaError, match=words):
        compare([*four, other])


def test_a_split_that_one_model_alone_was_tested_on(tmp_path):
    for seed in (0, 1, 2):
        make_run(tmp_path / f"a{seed}", "mlp", seed, test_split=f"split{seed}")
    for seed in (0, 1):
        make_run(tmp_path / f"b{seed}", "rfm", seed, test_split=f"split{seed}")
    found = compare([tmp_path])
    assert [len(group.runs) for group in found.groups] == [2, 2]
    assert [r for r in found.left_out if "a2 was tested on a split" in r]


def test_other_versions_sizes_and_normalisation_are_told(four, tmp_path):
    other = make_run(tmp_path / "o", "cnn", 0, torch="2.11.0", n_train=40, normalize="none")
    notes = " ".join(compare([*four, other]).notes)
    assert "torch 2.11.0, 2.15.0" in notes
    assert "training samples: 40, 90" in notes
    assert "Features are not compared" in notes


# ---- features ----------------------------------------------------------------------------------------------


def test_similarity_and_its_null_against_dense_matrices(four):
    found = compare(four)
    space = next(s for s in found.spaces if s.name == "input AGOP")
    assert [m.label for m in space.members] == ["rfm", "rfm", "mlp", "mlp", COVARIANCE, COVARIANCE]
    tensors = [load_file(f / "features.safetensors") for f in (four[2], four[3], four[0], four[1])]
    matrices = [t["input_agop"].double() for t in tensors]
    matrices += [t["inputs"].double().T.cov() for t in tensors[:2]]
    for i, A in enumerate(matrices):
        for j, B in enumerate(matrices):
            cosine = (A * B).sum() / (A.norm() * B.norm())
            assert float(space.cosine[i, j]) == pytest.approx(float(cosine), rel=1e-6)
    A, B = matrices[0], matrices[2]
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(4000):
        Q, R = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64))
        Q = Q * R.diagonal().sign()
        draws.append(float((A * (Q @ B @ Q.mT)).sum() / (A.norm() * B.norm())))
    draws = torch.tensor(draws)
    assert float(space.null_mean[0, 2]) == pytest.approx(float(draws.mean()), abs=4 * float(draws.std()) / 63)
    assert float(space.null_std[0, 2]) == pytest.approx(float(draws.std()), rel=0.05)
    z = (space.cosine - space.null_mean) / space.null_std
    torch.testing.assert_close(space.z, z)


def test_block_by_block_equals_whole(four, monkeypatch):
    whole = compare(four).spaces
    monkeypatch.setattr("nfa.compare.similarity._BLOCK", 20)
    for a, b in zip(whole, compare(four).spaces, strict=True):
        torch.testing.assert_close(a.cosine, b.cosine, rtol=1e-12, atol=0)
        torch.testing.assert_close(a.null_mean, b.null_mean, rtol=1e-12, atol=0)


def test_runs_of_different_seeds_are_compared_where_there_are_any(tmp_path):
    """One seed means the same samples, and perhaps the same initial weights."""
    for model in ("mlp", "cnn"):
        for seed in (0, 1):
            make_run(tmp_path / f"{model}{seed}", model, seed)
    found = compare([tmp_path])
    space = found.spaces[0]
    a, b = space.labels[:2]
    assert space.pairs(a, b) == [(0, 3), (1, 2)]
    assert space.pairs(a, a) == [(0, 1), (1, 0)]
    assert space.pairs(a, COVARIANCE) == [(0, 5), (1, 4)]
    assert not any("One seed" in note for note in found.notes)
    lone = compare([tmp_path / "mlp0", tmp_path / "cnn0"])
    space = lone.spaces[0]
    assert space.pairs(*space.labels[:2]) == [(0, 1)]
    assert space.pairs(a, a) == []
    assert any("One seed" in note for note in lone.notes)


def test_between_models_and_between_seeds(four):
    space = compare(four).spaces[0]
    c = space.cosine
    assert space.between("rfm", "mlp", c) == pytest.approx(float(c[0, 3] + c[1, 2]) / 2)
    assert space.between("rfm", "rfm", c) == pytest.approx(float(c[0, 1]))
    assert math.isnan(space.between("rfm", "cnn", c))


def test_matrices_meet_only_where_they_act_on_the_same_vectors(tmp_path):
    larger = PATCH | {"patch": "4x1x1"}
    linear = {"layer": "fc", "kind": "linear", "input_shape": "1x2x2"}
    make_run(tmp_path / "a", "cnn")
    make_run(tmp_path / "b", "conv_rfm")
    make_run(tmp_path / "c", "other", facts=larger)
    make_run(tmp_path / "d", "mlp", facts=linear)
    labels = {s.name: s.labels for s in compare([tmp_path]).spaces}
    assert labels["NFM of the first layer, patches 1x2x2"] == ["cnn", "conv_rfm", COVARIANCE]
    assert set(labels) == {
        "input AGOP", "NFM of the first layer, patches 1x2x2", "AGOP of the first layer, patches 1x2x2"
    }  # fmt: skip


def test_a_matrix_that_learned_nothing_has_no_similarity(tmp_path):
    for name, nfm in (("conv_rfm", torch.eye(4) * 3), ("cnn", spd(4, 1)), ("resnet", torch.zeros(4, 4))):
        folder = make_run(tmp_path / name, name)
        tensors = load_file(folder / "features.safetensors") | {"nfm": nfm}
        save_file(tensors, folder / "features.safetensors", PATCH)
    space = next(s for s in compare([tmp_path]).spaces if s.name.startswith("NFM"))
    flat = {m.label: m.is_flat for m in space.members}
    assert flat == {"conv_rfm": True, "cnn": False, "resnet": True, COVARIANCE: False}
    assert math.isnan(space.between("conv_rfm", "cnn", space.alignment))
    assert space.between("conv_rfm", "cnn", space.cosine) == pytest.approx(
        space.between("conv_rfm", "cnn", space.null_mean)
    )


def test_the_scale_of_a_matrix_has_no_influence(tmp_path):
    a, b = make_run(tmp_path / "a", "mlp"), make_run(tmp_path / "b", "rfm", 0)
    before = compare([a, b]).spaces
    tensors = load_file(b / "features.safetensors")
    save_file({k: v * 1e-30 for k, v in tensors.items()}, b / "features.safetensors", PATCH)
    for old, new in zip(before, compare([a, b]).spaces, strict=True):
        torch.testing.assert_close(old.cosine, new.cosine, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(old.z, new.z, rtol=1e-4, atol=1e-4)


def test_leading_eigenvectors_are_those_of_the_matrix(tmp_path):
    make_run(tmp_path / "a", "mlp")
    make_run(tmp_path / "b", "rfm")
    space = compare([tmp_path]).spaces[0]
    A = load_file(tmp_path / "a" / "features.safetensors")["input_agop"].double()
    images = space.members[0].eigenvectors
    assert images.shape == (6, 1, 3, 3)
    top = torch.linalg.eigh(A).eigenvectors[:, -1]
    assert abs(float(images[0].flatten().double() @ top)) == pytest.approx(1, abs=1e-5)


def test_runs_without_features_are_told(tmp_path):
    make_run(tmp_path / "a", "mlp", features=False)
    make_run(tmp_path / "b", "rfm")
    found = compare([tmp_path])
    assert found.spaces == []
    assert any("mlp, seed 0, has none (callbacks=none?)" in note for note in found.notes)


def test_net_and_kernel_that_are_most_alike(four):
    shared = spd(9, 5, rank=2)
    for seed, folder in enumerate(four):
        tensors = load_file(folder / "features.safetensors")
        tensors["input_agop"] = shared + 0.05 * spd(9, 50 + seed)
        save_file(tensors, folder / "features.safetensors", PATCH)
    space = compare(four).spaces[0]
    assert similarity_sentences(compare(four))[0] == (
        "input AGOP: the net and kernel machine most alike are rfm and mlp, cosine "
        f"{space.between('rfm', 'mlp', space.cosine):.3f} against "
        f"{space.between('rfm', 'mlp', space.null_mean):.3f} by chance; theirs with the covariance of the "
        f"data {space.between('rfm', COVARIANCE, space.cosine):.3f} and "
        f"{space.between('mlp', COVARIANCE, space.cosine):.3f}."
    )


def test_models_that_are_alike_by_chance_alone_are_not_called_alike(tmp_path):
    make_run(tmp_path / "a", "mlp", 0)
    b = make_run(tmp_path / "b", "rfm", 0, kind="kernel")
    tensors = load_file(b / "features.safetensors")
    save_file(tensors | {"input_agop": torch.eye(9) + 1e-3 * spd(9, 99)}, b / "features.safetensors", PATCH)
    assert similarity_sentences(compare([tmp_path]))[0] == (
        "input AGOP: no net and kernel machine are more alike than by chance."
    )


# ---- the command -------------------------------------------------------------------------------------------


def test_command_writes_tables_and_page(four, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", *map(str, four), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert format_comparison(compare(four)) in printed
    rows = read(out / "comparison.csv")
    assert [row["label"] for row in rows] == ["rfm", "rfm", "mlp", "mlp"]
    assert float(rows[0]["test/accuracy"]) == 0.95
    assert float(rows[0]["mean_alignment"]) == 1.0  # the last epoch
    assert (rows[0]["layers_above_null"], rows[0]["layers_with_z"]) == ("1", "1")
    assert "mean_z" not in rows[0]  # z is not compared between layers of different size
    assert "1 of 1" in printed
    assert " z " not in printed
    assert (
        "±: behind a score, the standard deviation (sd) over its runs; behind a difference from the best, "
        "half its 95 % confidence interval\n"
    ) in printed
    assert rows[0]["folder"] == str(four[2])
    pairs = read(out / "similarity.csv")
    assert {row["space"] for row in pairs} == {space.name for space in compare(four).spaces}
    assert len(pairs) == 3 * 15
    counted = {
        (row["a"], row["a_replicate"], row["b"], row["b_replicate"]) for row in pairs if row["in_mean"] == "1"
    }
    assert ("rfm", "seed 0", "mlp", "seed 1") in counted
    assert ("rfm", "seed 0", "mlp", "seed 0") not in counted
    assert ("rfm", "seed 0", "rfm", "seed 1") in counted
    assert "<html" in (out / "comparison.html").read_text()


def test_command_refuses_in_one_sentence_and_writes_nothing(four, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(four[0]), "--out", str(out)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: a comparison needs two runs or more")
    assert error.count("\n") == 1
    assert not out.exists()
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(SystemExit):
        main(["compare", *map(str, four), "--out", str(blocked)])
    assert "cannot read or write" in capsys.readouterr().err


def test_a_folder_of_runs_stands_for_them(four, tmp_path):
    (four[0].parent / "multirun.yaml").write_text("")
    (four[0].parent / "wandb").mkdir()  # of the comparison at the end of a sweep
    (four[0].parent / "notes").mkdir()
    assert len(compare([four[0].parent]).runs) == 4
    summary = json.loads((four[0] / "summary.json").read_text())
    assert summary["run"] in {run.summary["run"] for run in compare([tmp_path]).runs}


def test_leading_eigenvectors_of_a_large_matrix():
    """Those of a matrix too large to be decomposed: up to a sign, and in their order."""
    Q = torch.linalg.qr(
        torch.randn(300, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).Q
    A = Q * (0.7 ** torch.arange(300, dtype=torch.float64)) @ Q.mT
    for dtype, tol in ((torch.float64, 1e-8), (torch.float32, 1e-4)):
        found = _leading(A.to(dtype), 4)
        assert found.shape == (4, 300)
        assert (found @ Q[:, :4]).abs().diagonal().tolist() == pytest.approx([1.0] * 4, abs=tol)
