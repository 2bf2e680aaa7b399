"""The monitor in projects of others, under either name of Lightning: any module, any data, any logger."""

import importlib

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import nfa
from nfa.ansatz.row import read_csv
from tests.callbacks.offline_runs import only_run

FRAMEWORKS = ("pytorch_lightning", "lightning.pytorch")
QUIET = {
    "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "devices": 1,
}  # fmt: skip
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),  # of Lightning's: few workers, no logger, …
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()


@pytest.fixture(params=FRAMEWORKS)
def pl(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return importlib.import_module(request.param)


def body():
    return nn.Sequential(
        nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 8), nn.ReLU(),
        nn.Linear(8, 2),
    )  # fmt: skip


def module_of(pl, *, forward=True, spare=False):
    """A module as anyone writes it."""

    class Base(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder = body()
            if spare:
                self.spare = nn.Linear(2, 2)

        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self.encoder(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    class WithForward(Base):
        def forward(self, x):
            return self.encoder(x)

    return (WithForward if forward else Base)()


def loader():
    return DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)


def fit(pl, monitor=None, data=None, module=None, ckpt_path=None, **options):
    pl.seed_everything(3, verbose=False)
    module = module_of(pl) if module is None else module
    callbacks = [monitor] if monitor else []
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **QUIET, **options}
    trainer = pl.Trainer(callbacks=callbacks, **options)
    trainer.fit(module, **({"train_dataloaders": loader()} if data is None else data), ckpt_path=ckpt_path)
    return trainer, [*module.state_dict().values(), torch.rand(3)]


def monitor_of(**options):
    from nfa.integrations.lightning import AnsatzMonitor

    return AnsatzMonitor(**{"samples": 20, "nulls": 2, "quiet": True, **options})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def epochs_of(monitor):
    return sorted({row.epoch for row in monitor.history})


@pytest.mark.parametrize(
    "how",
    [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}, {"gradient_clip_val": 0.1}],
    ids=["plain", "accumulated", "mixed", "clipped"],
)
def test_training_is_untouched(pl, how, tmp_path):
    _, alone = fit(pl, **how)
    before = set(tmp_path.iterdir())
    monitor = monitor_of(every_n_steps=4)
    _, watched = fit(pl, monitor, **how)
    assert same(watched, alone)
    assert set(tmp_path.iterdir()) == before
    assert {0, 1, 2} <= set(epochs_of(monitor))
    assert [row.layer for row in monitor.report.rows] == ["encoder.0", "encoder.4", "encoder.6"]


def test_compiled(pl):
    def compiled():
        pl.seed_everything(0, verbose=False)
        return torch.compile(module_of(pl), backend="eager")

    _, alone = fit(pl, module=compiled())
    monitor = monitor_of()
    _, watched = fit(pl, monitor, module=compiled())
    assert same(watched, alone)
    assert monitor.report.row("encoder.0").measured


class Stream(IterableDataset):
    """Gives its samples once in a life: what is read of it is gone."""

    def __init__(self):
        self.samples = iter([(x, y) for _ in range(2) for x, y in zip(X, Y, strict=True)])

    def __iter__(self):
        return self.samples


def test_a_stream_is_measured_on_its_first_batch_and_loses_none(pl):
    data = {"limit_train_batches": 6, "max_epochs": 2}
    _, alone = fit(pl, data={"train_dataloaders": DataLoader(Stream(), batch_size=8)}, **data)
    monitor = monitor_of()
    _, watched = fit(pl, monitor, {"train_dataloaders": DataLoader(Stream(), batch_size=8)}, **data)
    assert same(watched, alone)
    assert monitor.report.meta["samples"] == 8
    assert epochs_of(monitor) == [0, 1, 2]
    assert monitor.initial is not None


def data_of(pl):
    class Data(pl.LightningDataModule):
        def setup(self, stage):
            self.train = TensorDataset(X, Y)

        def train_dataloader(self):
            return DataLoader(self.train, batch_size=8, shuffle=True)

    return Data()


def test_a_datamodule_and_data_of_its_own(pl):
    monitor = monitor_of()
    fit(pl, monitor, {"datamodule": data_of(pl)})
    assert monitor.report.meta["samples"] == 20
    monitor = monitor_of(batches=[(X[:7], Y[:7])])
    fit(pl, monitor, {"datamodule": data_of(pl)})
    assert monitor.report.meta["samples"] == 7
    monitor, data = monitor_of(), {"train_dataloaders": {"a": loader(), "b": loader()}}
    module = module_of(pl)
    step = module.training_step
    module.training_step = lambda batch, batch_idx: step(batch["a"], batch_idx)
    with pytest.raises(nfa.NfaError, match="first dimension counts samples: its inputs are"):
        fit(pl, monitor, data, module)
    fit(pl, monitor_of(input_fn=lambda batch: batch["a"]), data, module)


def test_what_is_measured(pl):
    monitor = monitor_of()
    fit(pl, monitor, module=module_of(pl, forward=False))
    assert [row.layer for row in monitor.report.rows] == ["0", "4", "6"]
    for network in ("encoder", lambda module: module.encoder):
        monitor = monitor_of(network=network)
        fit(pl, monitor, module=module_of(pl, forward=False, spare=True))
        assert [row.layer for row in monitor.report.rows] == ["0", "4", "6"]
    with pytest.raises(nfa.NfaError, match="encoder, spare in it has weights: say what to measure"):
        fit(pl, monitor_of(), module=module_of(pl, forward=False, spare=True))
    with pytest.raises(nfa.NfaError, match="network='decoder' is no part of the module"):
        fit(pl, monitor_of(network="decoder"))


def test_several_loggers_and_a_folder(pl, tmp_path):
    loggers = [pl.loggers.CSVLogger("a"), pl.loggers.TensorBoardLogger("b")]
    monitor = monitor_of(folder=tmp_path / "measured")
    fit(pl, monitor, logger=loggers, log_every_n_steps=1)
    text = next(tmp_path.glob("a/**/metrics.csv")).read_text().splitlines()[0]
    assert {"nfa/epoch", "nfa/alignment/encoder.0", "train_loss"} <= set(text.split(","))
    assert list(tmp_path.glob("b/**/events*"))
    rows = read_csv(tmp_path / "measured" / "ansatz.csv")
    assert [(row.epoch, row.layer) for row in rows] == [(r.epoch, r.layer) for r in monitor.history]
    assert (tmp_path / "measured" / "ansatz.html").is_file()


def test_weights_and_biases_gets_few_keys(pl, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monitor = monitor_of()
    fit(pl, monitor, logger=pl.loggers.WandbLogger(save_dir=tmp_path, mode="offline"), log_every_n_steps=1)
    wandb.finish()
    offline = only_run(tmp_path)
    assert offline.column("nfa/alignment/median")
    assert offline.column("train_loss")
    assert offline.axes["nfa/alignment/median"] == "nfa/epoch"
    assert {"nfa/layers", "nfa/alignment/median", "nfa/above_chance/all"} <= offline.keys
    assert "nfa/alignment/layers" in offline.charts
    assert sorted(row["nfa/epoch"] for row in offline.rows if "nfa/layers.path" in row) == [0, 1, 2]


def test_resumed(pl, tmp_path):
    whole = monitor_of(every_n_steps=4)
    fit(pl, whole, max_epochs=3)
    first = monitor_of(every_n_steps=4)
    trainer, _ = fit(pl, first, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = monitor_of(every_n_steps=4)
    fit(pl, second, ckpt_path=tmp_path / "last.ckpt", max_epochs=3)
    assert [repr(row) for row in second.history if row.epoch <= 1] == [repr(row) for row in first.history]
    assert epochs_of(second) == epochs_of(whole)
    assert repr(second.initial.rows) == repr(whole.initial.rows)
    assert second.report.meta["samples"] == 20


def test_a_budget_chooses_epochs_once(pl, capsys, tmp_path):
    monitor = monitor_of(budget=1e-6, quiet=False)
    trainer, _ = fit(pl, monitor, max_epochs=3)
    assert monitor.every == 3
    assert epochs_of(monitor) == [0, 3]
    assert "once every 3 epochs keeps it to" in capsys.readouterr().out
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    monitor = monitor_of(budget=1e6)
    fit(pl, monitor, max_epochs=7, ckpt_path=tmp_path / "last.ckpt")
    assert monitor.every == 3
    assert epochs_of(monitor) == [0, 3, 6, 7]
    monitor = monitor_of(budget=1e-6, every_n_epochs=1)
    fit(pl, monitor)
    assert epochs_of(monitor) == [0, 1, 2]


def test_what_measuring_costs_is_said_once(pl, capsys):
    fit(pl, monitor_of(quiet=False), max_epochs=3)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "measuring" in line]
    assert "of an epoch of training; once every epoch it adds" in line
    fit(pl, monitor_of(quiet=False, every_n_steps=5), max_epochs=3)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "measuring" in line]
    assert "once every 5 steps it adds" in line


def test_several_optimizers_take_several_steps_a_batch(pl):
    class Two(type(module_of(pl))):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                self.manual_backward(nn.functional.cross_entropy(self.encoder(batch[0]), batch[1]))
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            return [torch.optim.SGD(self.encoder[i].parameters(), 0.1) for i in (0, 4, 6)]

    monitor = monitor_of(every_n_steps=4, every_n_epochs=0)
    fit(pl, monitor, module=Two(), max_epochs=1)
    assert epochs_of(monitor) == pytest.approx([0, 2 / 6, 3 / 6, 4 / 6, 1])  # after 6, 9, 12, 18 steps


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_n_epochs": -1}, "every_n_epochs must be a whole number of 0 or more"),
        ({"every_n_step": 1}, "AnsatzMonitor has no option 'every_n_step'; did you mean 'every_n_steps'"),
        ({"probes": 0}, "probes must be a whole number"),
        ({"budget": "0.2"}, "budget must be a share"),
    ],
)
def test_mistakes_are_told_at_once(options, words):
    with pytest.raises(nfa.NfaError, match=words):
        monitor_of(**options)


def test_a_checkpoint_of_before_tells_no_cost(pl, tmp_path):
    """The cadence is then chosen by the next measurement."""
    trainer, _ = fit(pl, monitor_of(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name in ("cost", "every"):
        del saved["callbacks"]["AnsatzMonitor"][name]
    torch.save(saved, tmp_path / "last.ckpt")
    monitor = monitor_of(budget=1e-6)
    fit(pl, monitor, max_epochs=9, ckpt_path=tmp_path / "last.ckpt")
    assert monitor.every == 9
    assert epochs_of(monitor) == [0, 1, 2, 9]
