import pytest
import torch

from datamodules import LowRank
from nfa.errors import NfaError


def loaded(**options):
    data = LowRank(**options)
    data.setup()
    return data


def test_target_is_the_product_of_the_first_two_inputs():
    data = loaded(n=500, n_test=300, dim=7)
    assert (data.task, data.num_outputs, data.input_shape) == ("regression", 1, (7,))
    assert (data.summary()["n_train"], data.summary()["n_val"], data.summary()["n_test"]) == (450, 50, 300)
    x, y = data.probe(450)
    assert torch.equal(y, x[:, :1] * x[:, 1:2])
    assert x.mean().abs() < 0.1
    assert abs(x.std() - 1) < 0.1


def test_samples_are_a_function_of_the_seed_and_train_differs_from_test():
    first, again, other = (loaded(dim=5, seed=s).test_dataloader().x for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:100], loaded(dim=5, val_fraction=0).train_dataloader().x[:100])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 1}, "data.dim"),
        ({"n": 0}, "data.n "),
        ({"n_test": 0}, "n_test"),
        ({"n": 10, "n_train": 11}, "n_train"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(NfaError, match=message):
        loaded(**options)
