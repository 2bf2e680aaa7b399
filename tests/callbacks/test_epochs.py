"""One network has one number: in what the trainer logs, in what is measured, and in the files."""

import csv
import statistics

import pytest
import torch
from torch import nn

from callbacks.epochs import epochs_trained
from callbacks.final import digest_of
from tests.callbacks.offline_runs import only_run

NET = ("model=mlp", "model.width=8")
KERNEL = ("model=rfm", "data.n_train=100")
TRAINED = ("train/", "val/", "round/", "test/")


class Digests(pytest.importorskip("pytorch_lightning").Callback):
    """Log, by ``self.log`` where the trainer validates, a number that tells which network it is."""

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/network", _number_of(pl_module), batch_size=1)

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("train/network", _number_of(pl_module), batch_size=1)

    def on_test_epoch_end(self, trainer, pl_module):
        pl_module.log("test/network", _number_of(pl_module), batch_size=1)


class Steps(Digests):
    """And at every step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("train/network_now", _number_of(pl_module), on_step=True, on_epoch=False)


def _number_of(pl_module):
    return float(int(digest_of(pl_module.network)[:5], 16))  # exact in float32


@pytest.fixture
def networks(monkeypatch):
    """Epoch to the numbers of the networks measured under it, filled while a run goes on."""
    from callbacks import AnsatzMonitor

    found = {}
    measure = AnsatzMonitor._measure

    def noted(self, trainer, pl_module, epoch):
        found.setdefault(epoch, []).append(_number_of(pl_module))
        measure(self, trainer, pl_module, epoch)

    monkeypatch.setattr(AnsatzMonitor, "_measure", noted)
    return found


def check(rows, networks):
    """Each row of what a logger was given names the network that was measured under its epoch."""
    seen = set()
    for row in rows:
        for name in row.keys() & {"val/network", "train/network", "train/network_now", "test/network"}:
            assert row[name] in networks[row["epoch"]], (name, row)
            seen.add(name)
    return seen


@pytest.mark.usefixtures("no_account")
@pytest.mark.filterwarnings("default")  # what wandb warns of on its own account
@pytest.mark.parametrize("model", [NET, KERNEL], ids=["net", "kernel"])
def test_wandb_has_one_number_for_a_network(run, networks, model):
    done = run(*model, "logger=wandb", "+callbacks.d={_target_: tests.callbacks.test_epochs.Digests}")
    assert done.code == 0, done.err
    offline = only_run(done.folder)
    assert check(offline.rows, networks) == {"val/network", "train/network", "test/network"}
    assert [row["epoch"] for row in offline.rows if "val/accuracy" in row] == [1, 2]
    assert [row["epoch"] for row in offline.rows if "train/loss" in row] == [1, 2]
    assert [row["epoch"] for row in offline.rows if "test/accuracy" in row] == [2]
    measured = {row["epoch"]: row for row in offline.rows if "nfa/cosine/median" in row}
    assert measured.keys() == {row.epoch for row in done.rows if row.measured} >= {1, 2}
    for epoch, logged in measured.items():
        cosines = [row.cosine for row in done.rows if row.measured and row.epoch == epoch]  # of ansatz.csv
        assert logged["nfa/cosine/median"] == pytest.approx(statistics.median(cosines))
    for record in done.metrics[:-1]:  # of metrics.csv
        assert float(record["val/network"]) in networks[float(record["epoch"])]
        logged = [row for row in offline.rows if row.get("epoch") == float(record["epoch"])]
        for name, value in record.items():
            if name.startswith(TRAINED) and value:
                values = [row[name] for row in logged if name in row]
                assert values == [pytest.approx(float(value))], name


def test_any_logger_has_that_number_within_an_epoch_too(run, networks):
    done = run(
        *NET,
        "+logger._target_=pytorch_lightning.loggers.CSVLogger",
        "+logger.save_dir=logs",
        "callbacks.ansatz.every_n_steps=1",
        "trainer.log_every_n_steps=1",
        "+trainer.val_check_interval=0.5",
        "+callbacks.d={_target_: tests.callbacks.test_epochs.Steps}",
    )
    assert done.code == 0, done.err
    (path,) = done.folder.parent.glob("logs/**/metrics.csv")
    with path.open(newline="") as handle:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(handle)]
    assert check(rows, networks) == {"val/network", "train/network", "train/network_now", "test/network"}
    validated = [row["epoch"] for row in rows if "val/network" in row]
    assert validated == pytest.approx([0.4, 0.8, 1.4, 1.8])  # after every second of five batches
    assert sorted({row.epoch for row in done.rows}) == sorted(networks)


@pytest.mark.filterwarnings("default")  # of torch and Lightning themselves
def test_an_epoch_cut_short_counts_at_its_end():
    import pytorch_lightning as pl

    numbers = []

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = nn.Linear(2, 1)

        def training_step(self, batch, batch_idx):
            return self.network(batch[0]).square().mean()

        def on_train_batch_end(self, outputs, batch, batch_idx):
            numbers.append(epochs_trained(self.trainer))

        def on_train_epoch_end(self):
            numbers.append(epochs_trained(self.trainer))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 2)), batch_size=2)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_steps=6, accelerator="cpu", enable_model_summary=False, **options)
    assert epochs_trained(trainer) == 0
    trainer.fit(Net(), data)
    assert numbers == [0.25, 0.5, 0.75, 1, 1, 1.25, 2, 2]
    assert epochs_trained(trainer) == 2
