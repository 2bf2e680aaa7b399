"""What W&B gets of large networks, read back from an offline run: keys, axis, panels."""

import json
from dataclasses import replace

import pytest
import torch

from nfa.ansatz.pictures import LayerPicture
from nfa.ansatz.row import AnsatzRow
from tests.callbacks.offline_runs import leave_accounts, only_run

wandb = pytest.importorskip("wandb")

from callbacks.loggers import LabWandbLogger, finish_wandb
from nfa.integrations import wandb_layers
from nfa.integrations.wandb_layers import image, layer_table

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("no_account")]
ROW = AnsatzRow(
    "conv1", "conv2d", 27, 16, alignment=0.5, z=9.0, alpha_fit=0.6, alpha_r=0.9, cosine=0.9, null_mean=0.7,
    pearson=0.8, offdiag=0.7, cnfc=0.6, init_nfm_cosine=0.9,
)  # fmt: skip
WHOLE = torch.eye(6)
IMAGES = torch.rand(4, 3, 3, 3)


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    leave_accounts(monkeypatch, tmp_path)
    yield
    finish_wandb()


def resnet(blocks, convolutions):
    """Names of the layers of a ResNet: so many blocks in each stage, convolutions in each."""
    names = ["conv1"]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            names += [f"layer{stage}.{block}.conv{i + 1}" for i in range(convolutions)]
            if block == 0 and (stage > 1 or convolutions > 2):
                names.append(f"layer{stage}.0.downsample.0")
    return [*names, "fc"]


def logged(folder, layers, epochs):
    """An offline run of a network with these layers, all of them measured."""
    logger, history = LabWandbLogger(str(folder)), []
    pictures = [
        LayerPicture(name, WHOLE, WHOLE, WHOLE.diagonal(), WHOLE.diagonal(), IMAGES, IMAGES, IMAGES)
        for name in layers[:8]  # as many as the lab draws
    ]
    for epoch in epochs:
        rows = [replace(ROW, layer=name, epoch=float(epoch)) for name in layers]
        history += rows
        logger.log_measurement(rows, float(epoch), 0, history)
    logger.log_layers(pictures, history)
    finish_wandb()
    return only_run(folder)


@pytest.mark.parametrize(
    ("layers", "number", "most"),
    [(resnet((2, 2, 2, 2), 2), 21, 40), (resnet((3, 4, 6, 3), 3), 54, 60)],
    ids=["resnet18", "resnet50"],
)
def test_keys_and_panels_are_few_and_have_one_axis(tmp_path, layers, number, most):
    assert len(layers) == number
    offline = logged(tmp_path, layers, epochs=[0, 1])
    keys = {key for key in offline.keys | offline.charts if key.startswith("nfa/")}
    assert len(keys) <= most
    assert offline.panels == keys  # the axis has none
    assert offline.axes["nfa/*"] == "epoch"
    assert all("epoch" in row for row in offline.rows)
    sections = {key.split("/")[1] for key in keys}
    assert sections == {
        "alignment", "cosine", "alpha_fit", "above_chance", "null_mean", "cnfc", "init_nfm_cosine",
        "layers", "pictures", "spectrum",
    }  # fmt: skip
    assert {"nfa/alignment/layers", "nfa/cosine/layers", "nfa/alpha_fit/layers"} <= offline.charts
    assert {f"nfa/alignment/layer{i} median" for i in (1, 2, 3, 4)} <= keys


def test_a_chart_has_all_layers_and_draws_the_last_table(tmp_path):
    layers = resnet((2, 2, 2, 2), 2)
    offline = logged(tmp_path, layers, epochs=[0, 1])
    (run,) = tmp_path.glob("wandb/offline-run-*")
    rows = [json.loads((run / "files" / path).read_text()) for path in offline.column("nfa/layers.path")]
    assert [len(table["data"]) for table in rows] == [21, 42, 42]  # with each measurement, and at the end
    columns = rows[-1]["columns"]
    assert {"epoch", "layer", "alignment", "cosine", "alpha_fit"} <= set(columns)
    assert {row[columns.index("layer")] for row in rows[-1]["data"]} == set(layers)
    visualized = next(
        value for key, value in offline.config.items() if key.endswith("visualize.nfa/alignment/layers")
    )
    chart = visualized["panel_config"]
    assert chart["fieldSettings"] == {"step": "epoch", "lineKey": "layer", "lineVal": "alignment"}
    assert '"nfa/layers"' in json.dumps(chart["userQuery"])


def test_tables_of_a_long_training_are_logged_seldom(tmp_path):
    offline = logged(tmp_path, ["fc1", "fc2"], epochs=range(60))
    assert offline.column("nfa/alignment/median") == [0.5] * 60
    assert len(offline.column("nfa/layers.path")) < 35


def test_a_long_table_keeps_whole_measurements(monkeypatch):
    monkeypatch.setattr(wandb_layers, "_MOST_ROWS", 20)
    rows = [replace(ROW, layer=name, epoch=float(epoch)) for epoch in range(50) for name in ("a", "b")]
    table = layer_table(rows)
    epochs = [row[0] for row in table.data]
    assert len(epochs) == 20
    assert (epochs[:2], epochs[-2:]) == ([0, 0], [49, 49])


def test_layers_that_were_not_measured_have_no_numbers():
    table = layer_table([replace(ROW, status="trivial")])
    (row,) = table.data
    values = dict(zip(table.columns, row, strict=True))
    assert values["status"] == "trivial"
    assert values["alignment"] is values["cosine"] is values["epoch"] is None


def test_images_of_one_key_are_of_one_size():
    for shape in ((6, 6, 3), (300, 100, 3), (1, 900, 3)):
        picture = image(torch.zeros(shape, dtype=torch.uint8), "words", 64)
        assert picture.image.size == (64, 64)
