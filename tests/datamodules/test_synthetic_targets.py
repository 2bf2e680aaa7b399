import math

import pytest
import torch

from datamodules import LowRank, SparseParity, Staircase
from nfa.errors import NfaError


def loaded(kind, **options):
    data = kind(**{"n": 400, "n_test": 300, "val_fraction": 0, **options})
    data.setup()
    return data


def samples(data, split="test"):
    batches = data.test_dataloader() if split == "test" else data.train_dataloader()
    return batches.x, batches.y


def test_sparse_parity_is_the_product_of_the_first_bits():
    data = loaded(SparseParity, dim=9, k=3)
    x, y = samples(data)
    assert x.shape == (300, 9)
    assert x.unique().tolist() == [-1, 1]
    assert (data.task, data.class_names) == ("classification", ("-1", "1"))
    assert torch.equal(y == 1, x[:, 0] * x[:, 1] * x[:, 2] > 0)
    assert 100 < y.sum() < 200


def test_sparse_parity_as_a_number():
    data = loaded(SparseParity, dim=9, k=4, task="regression")
    x, y = samples(data)
    assert (data.task, y.shape) == ("regression", (300, 1))
    assert torch.equal(y[:, 0], x[:, :4].prod(1))


def test_staircase_adds_the_products_up():
    x, y = samples(loaded(Staircase, dim=6, k=3))
    assert x.unique().tolist() == [-1, 1]
    first, second, third = x[:, 0], x[:, 1], x[:, 2]
    assert torch.equal(y[:, 0], first + first * second + first * second * third)


@pytest.mark.parametrize(
    ("kind", "options"), [(LowRank, {"dim": 5}), (Staircase, {"dim": 5, "k": 2}), (SparseParity, {"dim": 5})]
)
def test_noise_is_in_the_training_targets_only(kind, options):
    if kind is SparseParity:
        options = {**options, "task": "regression"}
    clean, noisy = (loaded(kind, n=4000, noise=noise, **options) for noise in (0, 0.3))
    for split in ("train", "test"):
        assert torch.equal(samples(clean, split)[0], samples(noisy, split)[0])
    assert torch.equal(samples(clean)[1], samples(noisy)[1])
    error = samples(noisy, "train")[1] - samples(clean, "train")[1]
    if kind is SparseParity:
        assert abs((error != 0).float().mean() - 0.3) < 0.03
    else:
        assert abs(error.std() - 0.3) < 0.03


@pytest.mark.parametrize("kind", [LowRank, SparseParity, Staircase])
def test_samples_are_a_function_of_the_seed(kind):
    first, again, other = (samples(loaded(kind, noise=0.1, seed=s), "train") for s in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][:300], samples(loaded(kind))[0])


def test_the_setting_of_the_paper():
    data = LowRank(val_fraction=0)
    data.setup()
    assert (data.summary()["n_train"], data.input_shape) == (2000, (100,))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SparseParity, {"k": 0}, "data.k "),
        (SparseParity, {"dim": 4, "k": 5}, "data.k of at most data.dim=4"),
        (SparseParity, {"noise": 0.6}, "data.noise must be a number from 0 to 0.5, got 0.6"),
        (SparseParity, {"task": "ranking"}, "data.task must be one of"),
        (Staircase, {"dim": 2, "k": 3}, "data.k of at most data.dim=2"),
        (Staircase, {"dim": 0}, "data.dim"),
        (Staircase, {"noise": -1}, "data.noise"),
        (LowRank, {"noise": float("nan")}, "data.noise"),
    ],
)
def test_options_out_of_range(kind, options, message):
    with pytest.raises(NfaError, match=message):
        kind(**options)


@pytest.mark.parametrize(
    "data", [LowRank(dim=5), SparseParity(dim=5, k=3), Staircase(dim=6, k=3), SparseParity(dim=4, k=1)]
)
def test_the_true_agop_is_the_mean_over_inputs(data):
    """Of the function as a polynomial."""
    x = data.inputs(20_000, torch.Generator().manual_seed(0)).requires_grad_()
    (gradients,) = torch.autograd.grad(data.function(x).sum(), x)
    G = (gradients.mT @ gradients).double() / len(x)
    assert torch.allclose(G, data.true_agop(), atol=0.06)
    found = data.feature_statistics(data.true_agop().float())
    assert found == {"true_agop": pytest.approx(1.0), "support": pytest.approx(1.0)}
    found = data.feature_statistics(torch.eye(data.dim))
    assert found["support"] == pytest.approx(float((data.true_agop().diagonal() > 0).sum()) / data.dim)
    assert math.isnan(data.feature_statistics(torch.zeros(data.dim, data.dim))["support"])
