"""The monitor under the Trainer of transformers, with a tiny random BERT."""

import pytest
import torch

import nfa

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from torch.utils.data import Dataset, IterableDataset

from nfa.integrations.huggingface import AnsatzCallback
from tests.callbacks.offline_runs import only_run

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),  # of transformers and accelerate
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]
LAYER = "bert.encoder.layer.0.intermediate.dense"


class Sentences(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, i):
        ids = torch.randint(5, 50, (9,), generator=torch.Generator().manual_seed(i))
        mask = (torch.arange(9) < 5 + i % 4).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": int(ids[0] > ids[1])}


class Stream(IterableDataset):
    def __iter__(self):
        return (Sentences()[i] for i in range(32))


def trainer_of(folder, callback=None, data=None, **options):
    transformers.set_seed(3)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    options = {
        "num_train_epochs": 2, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True,
        "save_strategy": "no", "disable_tqdm": True, "logging_steps": 5, "learning_rate": 1e-3, **options,
    }  # fmt: skip
    return transformers.Trainer(
        transformers.BertForSequenceClassification(config),
        transformers.TrainingArguments(folder, **options),
        train_dataset=data or Sentences(),
        callbacks=[callback] if callback else None,
    )


def trained(folder, callback=None, *, resume=None, **options):
    trainer = trainer_of(folder, callback, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, [*trainer.model.state_dict().values(), torch.rand(3)]


def callback_of(every=4, **options):
    return AnsatzCallback(every, **{"samples": 8, "nulls": 2, "quiet": True, **options})


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def epochs_of(callback):
    return sorted({row.epoch for row in callback.history})


@pytest.mark.parametrize(
    "how",
    [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}],
    ids=["plain", "accumulated", "mixed"],
)
def test_training_is_untouched(tmp_path, how):
    trainer, alone = trained(tmp_path, **how)
    callback = callback_of()
    watching, watched = trained(tmp_path, callback, **how)
    assert same(watched, alone)
    losses = [[row.get("loss") for row in t.state.log_history] for t in (trainer, watching)]
    assert losses[0] == losses[1]
    assert epochs_of(callback)[0] == 0
    assert epochs_of(callback)[-1] == 2
    assert callback.report.row(LAYER).measured
    assert callback.report.meta["samples"] == 8
    assert not list(tmp_path.iterdir())


def test_mixed_precision_is_measured_in_full(tmp_path):
    callback = callback_of(0)
    trainer, _ = trained(tmp_path, callback, bf16=True)
    forward = trainer.model.forward
    from nfa.integrations.huggingface import _own_forward

    with _own_forward(trainer.model):
        again = nfa.audit(trainer.model, callback._pairs, nulls=2, initial_state=callback.initial)
    assert trainer.model.forward is forward
    assert callback.report.row(LAYER).cosine == pytest.approx(again.row(LAYER).cosine, rel=1e-9)


def test_resumed(tmp_path):
    whole = callback_of()
    _, expected = trained(tmp_path / "whole", whole, save_strategy="steps", save_steps=8)
    second = callback_of()
    resume = str(tmp_path / "whole" / "checkpoint-8")
    _, weights = trained(tmp_path / "whole", second, resume=resume, save_strategy="steps", save_steps=8)
    assert same(weights, expected)
    assert [repr(row) for row in second.history] == [repr(row) for row in whole.history]


def test_resumed_without_measurements(tmp_path, capsys):
    trained(tmp_path, save_strategy="steps", save_steps=8)
    callback = callback_of()
    trained(tmp_path, callback, resume=str(tmp_path / "checkpoint-8"), save_strategy="steps", save_steps=8)
    assert "without values at initialisation" in capsys.readouterr().out
    assert callback.initial is None
    assert epochs_of(callback) == [1, 1.5, 2]


def test_a_second_training_begins_anew(tmp_path):
    callback = callback_of(0)
    trainer, _ = trained(tmp_path, callback)
    trainer.train()
    assert epochs_of(callback) == [0, 2]


def test_what_is_logged(tmp_path):
    callback = callback_of(8)
    trainer = trainer_of(tmp_path, callback)
    callback.log = trainer.log
    trainer.train()
    logged = [row for row in trainer.state.log_history if f"nfa/alignment/{LAYER}" in row]
    assert [row["step"] for row in logged] == [0, 8, 16]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """W&B without an account, in the folder of the test."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # settings are read once a process
    yield wandb
    wandb.finish()


def test_weights_and_biases_gets_few_keys(tmp_path, offline):
    """The keys of the other integrations, on their axis; the history of the trainer has every layer."""
    callback = callback_of(8)
    trainer = trainer_of(tmp_path / "out", callback, report_to=["wandb"], run_name="bert")
    callback.log = trainer.log
    trainer.train()
    offline.finish()
    run = only_run(tmp_path)
    assert run.column("nfa/alignment/median")
    assert run.axes["nfa/alignment/median"] == "nfa/epoch"
    assert {"nfa/layers", "nfa/alignment/median", "nfa/above_chance/all", "train/loss"} <= run.keys
    assert "nfa/alignment/layers" in run.charts
    assert [key for key in run.keys if LAYER in key or key.startswith("train/nfa")] == []
    assert sorted(row["nfa/epoch"] for row in run.rows if "nfa/layers.path" in row) == [0, 1, 2]
    logged = [row for row in trainer.state.log_history if f"nfa/alignment/{LAYER}" in row]
    assert [row["step"] for row in logged] == [0, 8, 16]


def test_a_function_of_ones_own_gets_all_numbers(tmp_path, offline):
    callback, found = callback_of(0), []
    callback.log = found.append
    trained(tmp_path / "out", callback, report_to=["wandb"], run_name="bert")
    assert all({f"nfa/alignment/{LAYER}", "nfa/alignment/median"} <= set(numbers) for numbers in found)
    assert len(found) == 2


def test_a_budget_and_what_is_said(tmp_path, capsys):
    callback = callback_of(None, budget=1e-6, quiet=False)
    trained(tmp_path, callback)
    assert callback.every == 16
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "measuring" in line]
    assert "once every 16 steps keeps it to" in line
    assert callback_of(None).every == 100


def test_a_stream_needs_batches(tmp_path):
    options = {"data": Stream(), "max_steps": 4}
    with pytest.raises(nfa.NfaError, match="say what to measure on with batches="):
        trained(tmp_path, callback_of(), **options)
    sample = Sentences()[0]
    batch = {name: torch.as_tensor(value)[None] for name, value in sample.items()}
    callback = callback_of(batches=[batch, batch])
    trained(tmp_path, callback, **options)
    assert callback.report.meta["samples"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": -1}, "every must be a whole number of 0 or more"),
        ({"layer": "x"}, "AnsatzCallback has no option 'layer'; did you mean 'layers'"),
    ],
)
def test_mistakes_are_told_at_once(options, words):
    with pytest.raises(nfa.NfaError, match=words):
        AnsatzCallback(**options)
