import torch

from datamodules import Digits


def loaded(**options):
    data = Digits(**options)
    data.prepare_data()
    data.setup()
    return data


def test_digits_are_bundled_and_exact():
    data = loaded(normalize="none", val_fraction=0)
    summary = data.summary()
    assert (summary["n_train"], summary["n_test"], summary["num_outputs"]) == (1438, 359, 10)
    x, _ = data.probe(2000)
    assert x.shape == (1438, 1, 8, 8)
    assert torch.equal(x * 16, (x * 16).round())
    assert (x.min(), x.max()) == (0, 1)


def test_test_set_is_the_same_for_every_seed():
    first, second = (loaded(seed=seed, normalize="none").test_dataloader().x for seed in (0, 1))
    assert torch.equal(first, second)


def test_features_that_are_always_zero_stay_finite():
    x, _ = loaded(normalize="feature").probe(100)
    assert x.isfinite().all()
    assert (x[:, 0, 0, 0] == 0).all()
