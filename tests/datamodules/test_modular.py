"""Arithmetic modulo a number: what is asked, which pairs train, and what is known of the features."""

import math

import pytest
import torch

from datamodules import Modular
from datamodules.circulant import circulant_deviation, circulant_metric, in_powers
from nfa import NfaError


def loaded(**options):
    data = Modular(**{"p": 7} | options)
    data.setup()
    return data


def pairs(data, name):
    split = data._split(name)
    a, b = split.x[:, : data.p].argmax(1), split.x[:, data.p :].argmax(1)
    return set(zip(a.tolist(), b.tolist(), split.y.tolist(), strict=True))


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("add", lambda a, b: (a + b) % 7),
        ("subtract", lambda a, b: (a - b) % 7),
        ("multiply", lambda a, b: a * b % 7),
        ("divide", lambda a, b: next(c for c in range(7) if c * b % 7 == a)),
    ],
)
def test_every_pair_is_there_once(operation, result):
    data = loaded(operation=operation)
    parts = [pairs(data, name) for name in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == (42 if operation == "divide" else 49)
    assert all(c == result(a, b) for a, b, c in set.union(*parts))
    assert data.num_outputs == 7
    assert data.task == "classification"


def test_shares():
    data = loaded(p=11, train_fraction=0.25, val_fraction=0.5)
    assert [len(pairs(data, name)) for name in ("train", "val", "test")] == [30, 46, 45]
    other = loaded(p=11, train_fraction=0.25, seed=1)
    assert pairs(other, "train") != pairs(data, "train") == pairs(loaded(p=11, train_fraction=0.25), "train")
    assert loaded(val_fraction=0).validation() is None


@pytest.mark.parametrize(("operation", "k"), [("add", 0), ("add", 3), ("subtract", 2)])
def test_pairs_that_a_reflection_leaves_are_held_out(operation, k):
    options = {"operation": operation, "k": k, "hold_out": "reflection", "train_fraction": 1.0}
    data = loaded(**options, val_fraction=0)
    c, d = data.reflected(torch.arange(7).repeat(7), torch.arange(7).repeat_interleave(7))
    assert torch.equal(
        data._result(c, d), data._result(torch.arange(7).repeat(7), torch.arange(7).repeat_interleave(7))
    )
    held_out, trained = pairs(data, "test"), pairs(data, "train")
    assert len(held_out) == 7
    assert all((b - a) % 7 == k if operation == "add" else (a + b) % 7 == k for a, b, _ in held_out)
    one = loaded(**options, move=1, val_fraction=0)
    assert pairs(one, "test") == held_out
    assert len(trained - pairs(one, "train")) == 1
    assert one.fingerprint() == data.fingerprint()
    two = trained - pairs(loaded(**options, move=2, moved="symmetric", val_fraction=0), "train")
    assert len(two) == 4
    moved = {(a, b) for a, b, _ in two}
    assert {
        tuple(int(t) for t in data.reflected(torch.tensor(a), torch.tensor(b))) for a, b in moved
    } == moved


def test_shuffled_labels_are_no_sums():
    data = loaded(p=11, shuffle=True)
    everything = set.union(*(pairs(data, name) for name in ("train", "val", "test")))
    right = sum(c == (a + b) % 11 for a, b, c in everything)
    assert right < 40
    labels = torch.tensor([c for *_, c in everything])
    assert torch.equal(labels.bincount(), torch.full((11,), 11))


def test_what_is_learned_is_circulant():
    for operation in ("add", "subtract"):
        data = loaded(operation=operation, p=13)
        M = circulant_metric(13, -1 if operation == "add" else 1, torch.Generator().manual_seed(0))
        found = data.feature_statistics(M @ M @ M @ M)
        assert found["circulant"] < 1e-12 < 0.9 < found["circulant_other"]
        assert math.isnan(data.feature_statistics(torch.eye(26))["circulant"])
    random = torch.randn(26, 26, generator=torch.Generator().manual_seed(0))
    assert data.feature_statistics(random)["circulant"] > 0.7


@pytest.mark.parametrize("operation", ["add", "divide"])
def test_circulant_blocks_are_few_waves(operation):
    data = loaded(p=13, operation=operation)
    name, B = data.picture_basis()
    assert name == "in waves of a and b"
    assert torch.allclose(B @ B.mT, torch.eye(len(B), dtype=torch.float64), atol=1e-12)
    if operation == "add":
        M = circulant_metric(13, -1, torch.Generator().manual_seed(0))
        block = (B @ M @ B.mT)[13:, :13]
        same_frequency = torch.block_diag(torch.ones(1, 1), *[torch.ones(2, 2)] * 6).bool()
        assert float(block[~same_frequency].abs().max()) < 1e-12


def test_products_are_sums_of_logarithms():
    assert in_powers(7).tolist() == [1, 3, 2, 6, 4, 5]
    order = in_powers(13)
    data = loaded(operation="multiply", p=13)
    block = torch.zeros(13, 13)
    values = torch.randn(12, generator=torch.Generator().manual_seed(0))
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            block[b, a] = values[(i - j) % 12]
    M = torch.zeros(26, 26)
    M[13:, :13] = block
    assert data.feature_statistics(M)["circulant"] < 1e-12


def test_the_deviation_is_what_the_formula_says():
    A = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = torch.tensor([[A[i, (j + i) % 5] for j in range(5)] for i in range(5)], dtype=torch.float64)
    wanted = sum(float(turned[:, j].var(unbiased=False)) * 5 for j in range(5)) / float((A**2).sum())
    assert circulant_deviation(A, -1) == pytest.approx(wanted)


def test_inputs_through_a_circulant_matrix():
    plain, mapped = loaded(), loaded(inputs="circulant")
    x, z = plain._split("train").x.double(), mapped._split("train").x.double()
    M = torch.linalg.lstsq(x, z).solution
    assert torch.allclose(x @ M, z, atol=1e-5)
    root = mapped._map()
    assert torch.allclose(x @ root, z, atol=1e-5)
    assert float(torch.linalg.eigvalsh(root)[0]) > -1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 8, "operation": "multiply"}, "needs a prime"),
        ({"operation": "divide", "hold_out": "reflection"}, "for add and subtract"),
        ({"moved": "symmetric"}, "needs the reflection"),
        ({"operation": "power"}, "data.operation"),
        ({"p": 2}, "data.p"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(NfaError, match=message):
        Modular(**options)


def test_nothing_left():
    with pytest.raises(NfaError, match="are to be trained on and 0 not"):
        loaded(train_fraction=1.0)
    with pytest.raises(NfaError, match=r"data\.move must be at most"):
        loaded(move=100)


@pytest.mark.parametrize(("operation", "k"), [("add", 2), ("subtract", 3)])
def test_a_reflection_turns_what_is_seen_around(operation, k):
    plain = loaded(operation=operation, k=k, val_fraction=0)
    mapped = loaded(operation=operation, k=k, val_fraction=0, inputs="reflection")
    a, b = torch.cartesian_prod(torch.arange(7), torch.arange(7)).T
    c, d = mapped.reflected(a, b)
    assert torch.equal(mapped._x, -mapped._x[c * 7 + d])
    fixed = (a == c) & (b == d)
    assert torch.equal(mapped._x.abs().sum(1) == 0, fixed)
    assert len(mapped._x[~fixed].unique(dim=0)) == 42
    assert mapped.fingerprint() == plain.fingerprint()
    assert not torch.equal(mapped._split("test").x, plain._split("test").x)


@pytest.mark.parametrize("n_test", [None, 10])
def test_what_is_right_is_told_by_orbit(n_test):
    data = loaded(inputs="reflection", val_fraction=0.25, n_test=n_test)
    known = {tuple(x.tolist()) for x in data._split("train").x if x.any()}
    right = [tuple((-x + 0.0).tolist()) in known for x in data._split("test").x]
    data._y += 1  # no class is 0, which stands for none
    classes = {tuple(x.tolist()): int(y) for x, y in zip(data._x, data._y, strict=True)}

    def learned(x):  # knows the reflections of what it was trained on, and nothing else
        found = [classes[tuple(z.tolist())] if tuple((-z + 0.0).tolist()) in known else 0 for z in x]
        return torch.nn.functional.one_hot(torch.tensor(found), 8)

    found = data.examine(learned)
    assert found["groups"] == {
        "reflection trained": [sum(right), sum(right)],
        "reflection not trained": [0, len(right) - sum(right)],
    }
    signs = "".join(found["grid"])
    assert [len(line) for line in found["grid"]] == [7] * 7
    assert signs.count(".") == len(data._split("train"))
    assert (signs.count("+"), signs.count("-")) == (sum(right), len(right) - sum(right))


def test_moved_pairs_are_examined_too():
    options = {"hold_out": "reflection", "train_fraction": 1.0, "val_fraction": 0}
    wrong = lambda x: torch.zeros(len(x), 7).index_fill_(1, torch.tensor([0]), 1.0)  # noqa: E731
    found = loaded(**options, move=3).examine(wrong)
    assert [n for _, n in found["groups"].values()] == [3, 7]
    assert "".join(found["grid"])[::8].count("+") == 1  # of the seven sums of twice the same, one is 0
    found = loaded(**options, move=2, moved="symmetric").examine(wrong)
    assert [n for _, n in found["groups"].values()] == [0, 11]
    assert loaded(operation="multiply").examine(wrong) is None


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_run_tells_which_pairs_are_right(run, precision):
    done = run(
        "model=rfm_quadratic", "data=modular", "data.p=7", "callbacks=none", "logger=csv",
        "trainer.max_epochs=2", f"trainer.precision={precision}", "trainer.accelerator=cpu", small=False,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.summary["examined"]
    assert sum(count for _, count in found["groups"].values()) == done.summary["n_test"]
    right = sum(right for right, _ in found["groups"].values())
    assert right / done.summary["n_test"] == pytest.approx(done.summary["test/accuracy"])
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "reflection not trained" in page
    assert found["grid"][0] not in page
