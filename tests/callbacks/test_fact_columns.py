"""The columns of FACT: where they are, of which gradients, and where they are refused."""

import math
from itertools import groupby

import pytest
import torch
from torch import nn

from callbacks.data_gradients import DataGradients, check_fact, why_not
from nfa import NfaError

DIGITS = (
    "model=mlp", "model.depth=2", "model.width=32", "model.bias=false", "training.loss=half_mse",
    "training.schedule=constant", "training.momentum=0.9",
)  # fmt: skip


def by_epoch(run):
    return {epoch: list(rows) for epoch, rows in groupby(run.rows, key=lambda row: row.epoch)}


def test_from_nothing_at_the_start_to_one_where_training_rests(run):
    options = ("data.n_train=200", "data.val_fraction=0", "data.batch_size=200", "data.passes=150")
    done = run(*DIGITS, *options, "training.lr=0.1", "training.weight_decay=0.02", "trainer.max_epochs=3")
    assert done.code == 0, done.err
    rows = by_epoch(done)
    assert all(abs(row.fact) < 0.3 and row.pearson > 0.5 for row in rows[0.0])
    assert all(row.fact > 0.98 and row.fact_cosine > 0.98 for row in rows[3.0])
    assert all(row.fact_residual < 0.3 < 2 < first.fact_residual
               for row, first in zip(rows[3.0], rows[0.0], strict=True))  # fmt: skip


def test_the_mean_is_of_the_steps_since_the_last_measurement(run, monkeypatch):
    seen, numbers = [], DataGradients.numbers

    def see(self):
        seen.append([w.grad.clone() for w in self._weights.values()])
        return see_all(self)

    def told(self, snapshot):
        if self.steps:
            for i, (_, kept, _) in enumerate(self.maps):
                mean = torch.stack([step[i] for step in seen[-self.steps :]]).double().mean(0)
                assert torch.allclose(self._mean(kept), mean, atol=1e-6)
            steps.append(self.steps)
        return numbers(self, snapshot)

    see_all, steps = DataGradients.see, []
    monkeypatch.setattr(DataGradients, "see", see)
    monkeypatch.setattr(DataGradients, "numbers", told)
    done = run(*DIGITS, "callbacks.ansatz.every_n_epochs=2", "trainer.max_epochs=4")
    assert done.code == 0, done.err
    assert steps == [10, 10]
    assert len(seen) == 20


def test_a_weight_that_was_frozen_for_a_while_has_the_mean_of_its_steps():
    layer = nn.Linear(3, 3, bias=False)
    gradients = DataGradients(layer, [torch.optim.SGD(layer.parameters(), lr=1, weight_decay=0.1)])
    for grad in (-0.1 * layer.weight.detach(), None, None):
        layer.weight.grad = grad
        gradients.see()
    (found,) = gradients.numbers({id(layer.weight): torch.zeros(3, 3)}).values()
    assert found["fact_residual"] == pytest.approx(0, abs=1e-6)
    twin = DataGradients(layer, [torch.optim.SGD(layer.parameters(), lr=1, weight_decay=0.1)])
    twin.load_state_dict(gradients.state_dict())
    assert twin.numbers({id(layer.weight): torch.zeros(3, 3)}) == {"": found}


def test_a_snapshot_is_of_all_samples_however_many_at_once():
    from models import NeuralModule

    net = {"_target_": "nfa.nets.MLP", "input_shape": [3], "num_outputs": 2, "depth": 1, "width": 4}
    module, x, y = NeuralModule(net, "regression", 2), torch.randn(10, 3), torch.randn(10, 2)
    gradients = DataGradients(module.network, [torch.optim.SGD(module.parameters(), lr=1, weight_decay=0.1)])
    whole, parts = (gradients.snapshot(module, x, y, size) for size in (10, 4))
    module.loss(module(x), y).backward()
    for weight in (module.network.hidden1.weight, module.network.output.weight):
        assert torch.allclose(whole[id(weight)], weight.grad)
        assert torch.allclose(parts[id(weight)], weight.grad, atol=1e-6)


def test_what_a_checkpoint_of_before_held_is_read():
    layer = nn.Linear(2, 2, bias=False)
    gradients = DataGradients(layer, [torch.optim.SGD(layer.parameters(), lr=1, weight_decay=0.5)])
    gradients.load_state_dict({"steps": 4, "sums": {"": -2.0 * layer.weight.detach()}})
    (found,) = gradients.numbers({id(layer.weight): torch.zeros(2, 2)}).values()
    assert found["fact_residual"] == pytest.approx(0, abs=1e-6)


@pytest.mark.long
def test_gradients_survive_a_stop_between_two_measurements(run):
    options = (*DIGITS, "callbacks.ansatz.every_n_epochs=2")
    whole = run(*options, "trainer.max_epochs=4", folder="whole")
    run(*options, "trainer.max_epochs=3", folder="cut")
    resumed = run(*options, "trainer.max_epochs=4", "ckpt_path=last", folder="cut")
    assert resumed.code == 0, resumed.err
    last = [[row.fact for row in by_epoch(r)[4.0]] for r in (whole, resumed)]
    assert all(map(math.isfinite, last[0]))
    assert len(last[1]) == len(last[0])


@pytest.mark.parametrize("options", [("training.optimizer=adamw",), ("callbacks.ansatz.fact=none",)])
def test_where_there_is_none_the_columns_are_empty(run, options):
    done = run("model=mlp", "model.width=8", "trainer.max_epochs=1", *options)
    assert done.code == 0, done.err
    assert all(math.isnan(row.fact) and math.isnan(row.fact_residual) for row in done.rows)


def test_asked_for_where_there_is_none_it_is_refused(run):
    done = run("model=mlp", "model.width=8", "callbacks.ansatz.fact=mean", "training.weight_decay=0")
    assert done.code == 1
    told = "FACT is a gradient over the weight decay, which is 0: give training.weight_decay, or leave"
    assert told in done.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p: torch.optim.AdamW(p, lr=1, weight_decay=0.1), "net", "AdamW decays the weights apart"),
        (lambda p: torch.optim.SGD(p, lr=1), "net", "which is 0"),
        (lambda p: torch.optim.SGD(p, lr=1), "kernel", "of networks that are trained by gradients"),
    ],
)
def test_the_reason_is_told(make, kind, message):
    with pytest.raises(NfaError, match=message):
        check_fact([make(nn.Linear(2, 2).parameters())], kind)


@pytest.mark.long
def test_measuring_leaves_training_alone(run):
    with_fact = run(*DIGITS, folder="with")
    without = run(*DIGITS, "callbacks.ansatz.fact=none", folder="without")
    assert all(torch.equal(v, without.weights[k]) for k, v in with_fact.weights.items())


def test_convolutions_packed_attention_and_groups_of_parameters():
    net = nn.ModuleDict({"conv": nn.Conv2d(2, 3, 3), "attention": nn.MultiheadAttention(4, 2)})
    groups = [
        {"params": net["conv"].parameters(), "weight_decay": 0.1},
        {"params": net["attention"].parameters(), "weight_decay": 0.2},
    ]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    gradients = DataGradients(net, [optimizer])
    for p in net.parameters():
        decay = 0.1 if p.dim() == 4 else 0.2
        p.grad = -decay * p.detach().clone()
    gradients.see()
    found = gradients.numbers({id(p): torch.zeros_like(p) for p in net.parameters()})
    assert all(numbers["fact_snapshot_residual"] == 1 for numbers in found.values())
    assert set(found) == {"conv", "attention.q", "attention.k", "attention.v", "attention.out_proj"}
    assert all(numbers["fact"] == pytest.approx(1) for numbers in found.values())
    assert all(numbers["fact_residual"] == pytest.approx(0, abs=1e-6) for numbers in found.values())


@pytest.mark.parametrize(
    ("make", "has"),
    [
        (lambda p: torch.optim.SGD(p, lr=1, weight_decay=0.1), True),
        (lambda p: torch.optim.Adam(p, lr=1, weight_decay=0.1), True),
        (lambda p: torch.optim.Adam(p, lr=1), False),
        (lambda p: torch.optim.AdamW(p, lr=1, weight_decay=0.1), False),
        (lambda p: torch.optim.Adam(p, lr=1, weight_decay=0.1, decoupled_weight_decay=True), False),
        (lambda p: torch.optim.Adagrad(p, lr=1, weight_decay=0.1), False),
    ],
)
def test_which_optimizers_have_one(make, has):
    assert (why_not([make(nn.Linear(2, 2).parameters())]) is None) == has
