"""The RFM in the trainer: the machine of the library, resumed, distributed, measured; nonsense refused."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

import nfa
from datamodules import Digits, Tabular
from nfa.ansatz.row import read_csv
from nfa.kernels import Metric
from nfa.machines.layer import Layer
from nfa.machines.named import radial_network
from nfa.machines.radial import Radial
from nfa.machines.update import Agop
from nfa.processes import interleaved
from tests.waiting import HANGS, meeting_place

ROOT = Path(__file__).parents[2]
FILES = {"ansatz.csv", "metrics.csv", "summary.json", "report.html", "features.safetensors", "checkpoints"}


def whole(batches):
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return x.flatten(1), y


def digits(**options):
    data = Digits(**{"n_train": 300, "n_test": 100, **options})
    data.setup()
    train = data._batches("train", 1000)
    return [whole(batches) for batches in (train, data.val_dataloader(), data.test_dataloader())]


def machine_of(weights, part="network", kernel="laplace"):
    network = radial_network(kernel, 64, 10)
    state = {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(f"{part}.")}
    network.load_state_dict(state)
    return network


def test_a_run_is_the_machine_of_the_library(run):
    done = run("model=rfm", "trainer.max_epochs=4")
    assert done.code == 0, done.err
    assert {path.name for path in done.folder.iterdir()} >= FILES
    (x, y), (x_val, y_val), (x_test, y_test) = digits()
    machine = nfa.RFM(rounds=3).fit(x, y, x_val, y_val)
    for row, history in zip(done.metrics, machine.history, strict=False):
        assert float(row["val/loss"]) == pytest.approx(history["val_mse"], rel=1e-4)
        assert float(row["val/accuracy"]) == pytest.approx(history["val_accuracy"], rel=1e-6)
        assert float(row["train/accuracy"]) == history["train_accuracy"]
    assert [row["step"] for row in done.metrics[:4]] == ["1", "2", "3", "4"]
    right = (machine.predict(x_test) == y_test).double().mean()
    assert done.summary["test/accuracy"] == pytest.approx(float(right))
    network = machine_of(done.weights)
    assert torch.allclose(network(x_test), machine.scores(x_test), atol=1e-4)
    learned = network.feature_map.weight.numel() + network.radial.coefficients.numel()
    assert done.summary["num_parameters"] == learned
    measured = [row for row in done.rows if row.epoch >= 2]
    assert [row.epoch for row in measured] == [2, 3, 4]
    assert {row.layer for row in done.rows} == {"feature_map"}
    assert all(row.status == "ok" and row.z > 5 for row in measured)
    assert "feature_map" in done.out


def test_the_last_row_and_the_test_are_of_the_best_round(run):
    options = ("model=rfm", "model.kernel=gaussian", "model.bandwidth=10.0")
    done = run(*options, "trainer.max_epochs=5")
    losses = [float(row["val/loss"]) for row in done.metrics[:5]]
    best = losses.index(min(losses))
    assert best < 4, "this test needs a best round that is not the last"
    weights = done.weights
    assert int(weights["best_round"]) == best
    assert int(weights["rounds_done"]) == 5
    assert (done.summary["rounds"], done.summary["best_round"]) == (5, best)
    again = run(*options, f"trainer.max_epochs={best + 1}", folder="shorter")
    for name, value in again.weights.items():
        if name.startswith("network."):
            assert torch.equal(weights[name], value), name
    assert done.summary["test/loss"] == pytest.approx(again.summary["test/loss"], rel=1e-6)
    assert done.rows[-1].cosine == pytest.approx(again.rows[-1].cosine, rel=1e-9)
    assert weights["spare.radial.centers"].shape != weights[
        "network.radial.centers"
    ].shape or not torch.equal(weights["spare.radial.centers"], weights["network.radial.centers"])


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_goes_on_to_the_same_numbers(run, epochs):
    options = ("model=rfm", "model.bandwidth=1.0", "model.agop_samples=100")
    straight = run(*options, "trainer.max_epochs=4", folder="straight")
    run(*options, f"trainer.max_epochs={epochs}", folder="parts")
    done = run(*options, "trainer.max_epochs=4", "ckpt_path=last", folder="parts")
    assert done.code == 0, done.err
    assert done.weights.keys() == straight.weights.keys()
    for name, value in straight.weights.items():
        assert torch.equal(done.weights[name], value), name
    for a, b in zip(done.metrics, straight.metrics, strict=True):
        assert {k: v for k, v in a.items() if "seconds" not in k} == {
            k: v for k, v in b.items() if "seconds" not in k
        }
    assert done.rows == straight.rows or [str(r) for r in done.rows] == [str(r) for r in straight.rows]


def test_bandwidth_ridge_and_round_are_chosen_and_all_samples_refitted(run):
    grid = "model.bandwidth=[1.0,10.0]", "model.ridge=[0.001,1.0]"
    done = run("model=rfm_tuned", *grid, "trainer.max_epochs=3", "data.val_fraction=0.2")
    assert done.code == 0, done.err
    (x, y), (x_val, y_val), (x_test, _) = digits(val_fraction=0.2)
    options = {"bandwidth": [1.0, 10.0], "ridge": [0.001, 1.0], "power": 0.5, "rounds": 2, "refit": True}
    machine = nfa.RFM("gaussian", **options).fit(x, y, x_val, y_val)
    assert [float(row["round/bandwidth"]) for row in done.metrics[:3]] == [
        row["bandwidth"] for row in machine.history
    ]
    network = machine_of(done.weights, kernel="gaussian")
    assert len(network.radial.centers) == 300
    assert torch.allclose(network(x_test), machine.scores(x_test), atol=1e-3)


def test_several_bandwidths_need_validation_data(run):
    done = run("model=rfm_tuned", "data.val_fraction=0")
    assert done.code == 1
    assert "validation data" in done.err


def test_patience_ends_the_run(run):
    done = run("model=rfm", "model.bandwidth=1.0", "model.patience=1", "trainer.max_epochs=9")
    rounds = int(done.weights["rounds_done"])
    assert rounds == int(done.weights["best_round"]) + 2 < 9


def test_without_validation_the_last_round_stays(run):
    done = run("model=rfm", "data.val_fraction=0", "trainer.max_epochs=3")
    assert done.code == 0, done.err
    assert int(done.weights["best_round"]) == -1
    (x, y), (x_test, _) = [whole(b) for b in (digits_without_validation())]
    machine = nfa.RFM(rounds=2).fit(x, y)
    assert torch.allclose(machine_of(done.weights)(x_test), machine.scores(x_test), atol=1e-4)


def digits_without_validation():
    data = Digits(n_train=300, n_test=100, val_fraction=0)
    data.setup()
    return data._batches("train", 1000), data.test_dataloader()


def test_a_failing_round_keeps_the_one_before(run, monkeypatch):
    original = Agop.__call__

    def broken(self, predictor, index, *arguments):
        if index == 1:
            raise nfa.NfaError("the AGOP is not finite")
        return original(self, predictor, index, *arguments)

    monkeypatch.setattr(Agop, "__call__", broken)
    with pytest.warns(UserWarning, match="round 2 failed"):
        done = run("model=rfm", "trainer.max_epochs=5")
    assert done.code == 0, done.err
    assert int(done.weights["rounds_done"]) == 2
    assert done.summary["test/accuracy"] > 0.8


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("+trainer.precision=bf16-mixed", "32-true or 64-true"),
        ("trainer.gradient_clip_val=1.0", "gradient clipping is not supported"),
        ("data.augment=shift", "fits the same samples"),
        ("model.bandwidth=0.0", "bandwidth"),
        ("model.ridge=-1.0", "ridge must be"),
        ("model.patience=0", "patience"),
        ("model.kernel=laplce", "laplace"),
        ("model.centering=mean", "centering must be one of"),
    ],
)
def test_options_that_make_no_sense(run, option, message):
    done = run("model=rfm", option)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_the_checkpoint_of_another_model_is_refused(run):
    run("model=rfm", folder="kernel")
    run("model=mlp", "model.width=16", folder="net")
    for model, folder in (("mlp", "kernel"), ("rfm", "net")):
        done = run(f"model={model}", "trainer.max_epochs=3", f"ckpt_path={folder}/checkpoints/last.ckpt")
        assert done.code == 1
        assert "checkpoint" in done.err


@pytest.mark.parametrize("model", ["rfm", "deep_rfm"])
def test_a_run_is_audited_from_its_checkpoint(run, model):
    from nfa.command import cli

    done = run(f"model={model}", "trainer.max_epochs=2", "callbacks.ansatz.samples=270")
    options = ["--data", "digits", "--max-samples", "64", "--exact"]
    code = cli.main(["audit", f"file:{done.folder}", *options, "--out", str(done.folder / "audit")])
    assert code == 0
    rows = read_csv(done.folder / "audit" / "audit.csv")
    row = next(row for row in rows if row.layer.endswith("feature_map"))
    assert row.status == "ok"
    watched = [r for r in done.rows if r.layer == row.layer]
    assert row.cosine == pytest.approx(watched[-1].cosine, abs=0.1)


def test_a_checkpoint_of_another_kernel_is_refused(run):
    run("model=rfm", folder="first")
    options = ("trainer.max_epochs=3", "ckpt_path=first/checkpoints/last.ckpt")
    done = run("model=rfm", "model.kernel=gaussian", *options)
    assert done.code == 1
    assert "its kernel is laplace, here it is gaussian" in done.err


def test_a_refit_that_fails_keeps_the_run(run, monkeypatch):
    def broken(self, predictor, ridge, X, Y):
        raise nfa.NfaError("no memory")

    monkeypatch.setattr(Layer, "refit", broken)
    with pytest.warns(UserWarning, match="the refit failed"):
        done = run("model=rfm", "model.refit=true", "trainer.max_epochs=2")
    assert done.code == 0, done.err
    assert done.summary["test/accuracy"] > 0.8


def test_refit_needs_validation_data(run):
    done = run("model=rfm", "model.refit=true", "data.val_fraction=0")
    assert done.code == 1
    assert "raise data.val_fraction" in done.err


def test_double_precision(run):
    done = run("model=rfm", "+trainer.precision=64-true", "trainer.max_epochs=2")
    assert done.code == 0, done.err
    assert done.weights["network.radial.centers"].dtype == torch.float64


def test_the_relevant_features_are_found(run):
    options = ("model.centering=output", "model.ridge=1e-4", "data.val_fraction=0", "trainer.max_epochs=3")
    done = run("model=rfm", "data=low_rank", *options, "callbacks=none", "logger=csv", small=False)
    assert done.code == 0, done.err
    assert done.summary["test/r2"] > 0.8
    weight = done.weights["network.feature_map.weight"]
    assert set((weight.T @ weight).diagonal().topk(2).indices.tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_small_tables_against_linear_models(name):
    from sklearn.linear_model import LogisticRegression, RidgeCV

    mine, theirs = [], []
    for fold in range(5):
        data = Tabular(name=name, folds=5, fold=fold, val_fraction=0.2, normalize="feature",
                       **({"normalize_target": True} if name == "diabetes" else {}))  # fmt: skip
        data.prepare_data()
        data.setup()
        (x, y), (x_val, y_val), (x_test, y_test) = [
            whole(b) for b in (data._batches("train", 1000), data.val_dataloader(), data.test_dataloader())
        ]
        options = {"bandwidth": "median", "ridge": [1e-2, 1e-1, 1.0, 3.0, 10.0, 30.0], "power": 0.5}
        machine = nfa.RFM("gaussian", refit=True, **options).fit(x, y, x_val, y_val)
        X, Y = torch.cat([x, x_val]).numpy(), torch.cat([y, y_val]).numpy()
        if name == "diabetes":
            linear = RidgeCV([10.0**k for k in range(-3, 4)]).fit(X, Y)
            scores = [(p.reshape(-1) - y_test[:, 0]).square().mean() for p in (
                machine.predict(x_test), torch.from_numpy(linear.predict(x_test.numpy())))]  # fmt: skip
            mine.append(1 - float(scores[0] / y_test.var(correction=0)))
            theirs.append(1 - float(scores[1] / y_test.var(correction=0)))
        else:
            linear = LogisticRegression(max_iter=2000).fit(X, Y)
            mine.append(float((machine.predict(x_test) == y_test).double().mean()))
            theirs.append(float((torch.from_numpy(linear.predict(x_test.numpy())) == y_test).double().mean()))
    mean, linear = sum(mine) / 5, sum(theirs) / 5
    assert mean >= {"breast_cancer": 0.97, "diabetes": 0.47}[name]
    assert mean >= {"breast_cancer": linear - 0.01, "diabetes": linear}[name]


# ---- two processes -----------------------------------------------------------------------------------------


def test_two_processes_fit_what_one_fits(tmp_path):
    weights, metrics = [], []
    for name, options in (("one", ()), ("two", ("trainer=ddp", "trainer.accelerator=cpu"))):
        done = subprocess.run(
            [
                sys.executable, "train.py", "model=rfm", "logger=csv", "data.n_train=301", "data.n_test=100",
                "trainer.max_epochs=3", "callbacks.ansatz.samples=51", f"hydra.run.dir={tmp_path / name}",
                *options,
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **meeting_place()},
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        lines = (tmp_path / name / "metrics.csv").read_text().splitlines()
        metrics.append([row["val/loss"] for row in csv.DictReader(lines)])
        weights.append(torch.load(path, weights_only=True)["state_dict"])
    (x, _), _, (x_test, _) = digits(n_train=301)
    one, two = (machine_of(w) for w in weights)
    assert len(one.radial.centers) == len(two.radial.centers) == len(x)
    outputs = [network(x_test) for network in (one, two)]
    assert float((outputs[0] - outputs[1]).norm() / outputs[0].norm()) < 1e-4
    assert [float(v) for v in metrics[0] if v] == pytest.approx([float(v) for v in metrics[1] if v], rel=1e-4)


def _gathered(rank, n, path):
    distributed.init_process_group("gloo", init_method=f"file://{path}/init", rank=rank, world_size=2)
    mine = torch.arange(n)[rank::2]
    torch.save(interleaved(torch.stack([mine, -mine], 1)), f"{path}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("n", [6, 7])
def test_samples_are_gathered_in_their_order(tmp_path, n):
    torch.multiprocessing.spawn(_gathered, (n, str(tmp_path)), nprocs=2)
    expected = torch.stack([torch.arange(n), -torch.arange(n)], 1)
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), expected)


def test_an_unfitted_network_gives_zero_and_has_the_identity():
    network = radial_network("laplace", 4, 2)
    assert torch.equal(network(torch.randn(3, 4)), torch.zeros(3, 2))
    assert network.predictor() is None
    fit = Layer(Radial(bandwidth=1.0)).fit(Metric.identity(), torch.randn(8, 4), torch.randn(8, 2))
    network.take_over(fit.predictor, 1e-3)
    assert network.predictor().metric.kind == "identity"
