"""``nfa predict``: rows of a new table by the network of a run, with probabilities; or one line."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from nfa.command.cli import main
from nfa.inputs.tables import load_encoder
from nfa.machines.calibration import Calibration
from nfa.zoo import load

RUN = ("callbacks=none", "logger=csv", "trainer.accelerator=cpu", "data=tabular", "data.path=t.csv")


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = ["size,colour,price,kind"]
    for i in range(90):
        size, colour = rng.normal(50, 20), rng.choice(["red", "green", "blue"])
        kind = "=dear" if size > 50 or colour == "red" else "cheap, or so"
        written = "" if i % 17 == 3 else f"{size:.2f}"
        lines.append(f'{written},{colour},{size / 20 + 3 * (colour == "red"):.3f},"{kind}"')
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "new.csv").write_text("colour;size\nred;61,5\nviolet;\nblue;-3\n".replace(",", "."))
    return tmp_path


def predict(folder, data="new.csv", out="out/predictions.csv"):
    code = main(["predict", str(folder), "--data", data, "--out", out])
    with open(out, newline="", encoding="utf-8") as file:
        return code, list(csv.DictReader(file))


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["predict", *map(str, arguments)])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_classes_of_a_machine(run, table, capsys):
    done = run(
        "model=rfm", *RUN, "data.target=kind", "data.drop=[price]", "trainer.max_epochs=2", small=False
    )
    capsys.readouterr()
    code, rows = predict(done.folder)
    assert code == 0
    printed = capsys.readouterr().out
    assert "fitted to validation data of the run (Brier score" in printed
    assert "out/predictions.csv" in printed
    assert list(rows[0]) == ["kind", "P(=dear)", "P(cheap, or so)"]
    assert [row["kind"] for row in rows] == [
        "'=dear",
        "'=dear",
        "cheap, or so",
    ]  # no formula for a spreadsheet
    model, encoder = load(f"file:{done.folder}").model, load_encoder(done.folder)
    scores = model(encoder.transform("new.csv")).double()
    known = json.loads((done.folder / "summary.json").read_text())["calibration"]
    expected = Calibration.read(known).probabilities(scores)
    found = [[float(row["P(=dear)"]), float(row["P(cheap, or so)"])] for row in rows]
    assert np.allclose(found, expected.detach(), atol=1e-9)
    assert np.allclose(np.sum(found, 1), 1)
    # the points of the fit, their classes and the ridge are known from the network alone
    summary = json.loads((done.folder / "summary.json").read_text())
    assert [*summary["importances"].values()] == sorted(summary["importances"].values(), reverse=True)
    assert set(summary["importances"]) == {"size", "colour"}
    diagonal = model.feature_map.weight.square().sum(0).tolist()
    size = sum(v for v, n in zip(diagonal, encoder.feature_names, strict=True) if n.startswith("size"))
    assert summary["importances"]["size"] == pytest.approx(size, abs=1e-5)
    assert "the diagonal of M, one-hot inputs added up: " in (done.folder / "report.html").read_text()
    assert predict(done.folder / "checkpoints" / "last.ckpt")[1] == rows
    capsys.readouterr()
    (done.folder / "summary.json").rename(table / "away.json")
    _, alone = predict(done.folder)
    assert "leave-one-out scores of the run (Brier score" in capsys.readouterr().out
    expected = Calibration.of_network(model).probabilities(scores)[:, 0].tolist()
    assert [float(row["P(=dear)"]) for row in alone] == pytest.approx(expected)
    for state, said in (
        ("{", "is damaged"),
        (json.dumps({"calibration": {"beta": -1}}), "a calibration must"),
    ):
        (done.folder / "summary.json").write_text(state)
        assert said in refused(capsys, done.folder, "--data", "new.csv", "--out", "p.csv")


def test_numbers_and_classes_of_a_network(run, table, capsys):
    small = ("model=mlp", "model.width=8", "trainer.max_epochs=1", *RUN)
    done = run(*small, "data.target=price", "data.drop=[kind]", small=False, folder="numbers")
    _, rows = predict(done.folder)
    encoder, model = load_encoder(done.folder), load(f"file:{done.folder}").model
    outputs = model(encoder.transform("new.csv"))[:, 0].double()
    expected = encoder.outputs.mean + encoder.outputs.std * outputs
    assert [float(row["price"]) for row in rows] == pytest.approx(expected.tolist())
    assert "importances" not in json.loads((done.folder / "summary.json").read_text())
    done = run(*small, "data.target=kind", small=False, folder="classes")
    capsys.readouterr()
    assert "it has no price" in refused(capsys, done.folder, "--data", "new.csv", "--out", "p.csv")
    _, rows = predict(done.folder, data="t.csv")
    assert "softmax of the outputs" in capsys.readouterr().out
    scores = load(f"file:{done.folder}").model(load_encoder(done.folder).transform("t.csv"))
    assert [float(row["P(=dear)"]) for row in rows] == pytest.approx(
        scores.softmax(1)[:, 0].tolist(), abs=1e-6
    )
    # what does not go with the run
    (table / "texts.csv").write_text("size,colour,price\nlarge,red,1\n")
    for data, said in (("texts.csv", "held numbers in training"), ("none.csv", "expected a CSV")):
        assert said in refused(capsys, done.folder, "--data", data, "--out", "p.csv")
    assert "is a folder" in refused(capsys, done.folder, "--data", "t.csv", "--out", table)
    state = json.loads((done.folder / "table.json").read_text())
    state["outputs"]["class_names"].append("third")
    (done.folder / "table.json").write_text(json.dumps(state))
    assert "not of one run" in refused(capsys, done.folder, "--data", "t.csv", "--out", "p.csv")
    state["outputs"] = None
    (done.folder / "table.json").write_text(json.dumps(state))
    assert "does not say what is predicted" in refused(
        capsys, done.folder, "--data", "t.csv", "--out", "p.csv"
    )
    (done.folder / "table.json").unlink()
    assert "has no table.json" in refused(capsys, done.folder, "--data", "t.csv", "--out", "p.csv")
    assert not (table / "p.csv").exists()


def test_nothing_in_a_run_is_run(table, capsys):
    folder = table / "runs" / "strange" / "checkpoints"
    folder.mkdir(parents=True)
    net = {"_target_": "os.system", "command": "touch harmed"}
    torch.save({"hyper_parameters": {"net": net}, "state_dict": {}}, folder / "last.ckpt")
    refused(capsys, folder.parent, "--data", "t.csv", "--out", "p.csv")
    assert not (table / "harmed").exists()


def test_a_network_knows_the_scores_without_each_point():
    import nfa

    g = torch.Generator().manual_seed(0)
    X = torch.randn(30, 3, generator=g, dtype=torch.float64)
    y = (X[:, 0] + 0.5 * torch.randn(30, generator=g).double() > 0).long()
    machine = nfa.RFM(rounds=0, ridge=0.2).fit(X, y)
    network = machine.network()
    network.tail.ridge.fill_(0.2)
    found, scores = Calibration.of_network(network), []
    for i in range(30):
        kept = torch.arange(30) != i
        scores.append(nfa.RFM(rounds=0, ridge=0.2).fit(X[kept], y[kept]).scores(X[i][None]))
    expected = Calibration.of(torch.cat(scores), y, "by hand")
    assert math.isclose(found.beta, expected.beta, rel_tol=1e-4)
    assert math.isclose(found.brier, expected.brier, rel_tol=1e-4)
