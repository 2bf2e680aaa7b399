from types import SimpleNamespace

import pytest
import torch

from datamodules import Split, TensorDataModule
from nfa.errors import NfaError


def images(n=200, num_classes=4, dtype=torch.uint8):
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 8, 8), generator=rng).to(dtype)
    x[:, 0, 0, 0] = torch.arange(n) % 251  # tells the samples apart
    return Split(x, torch.arange(n) % num_classes)


class Memory(TensorDataModule):
    """A data set made in the test."""

    def __init__(self, train=None, test=None, **base):
        super().__init__(**base)
        self.data = (images() if train is None else train, images(60) if test is None else test)
        self.loads = 0

    def load(self):
        self.loads += 1
        return self.data


def ready(*args, **kwargs):
    data = Memory(*args, **kwargs)
    data.prepare_data()
    data.setup()
    return data


def labels(batches):
    return torch.cat([y for _, y in batches])


def test_setup_splits_by_class_and_describes_the_data():
    data = ready(val_fraction=0.2)
    assert data.summary() == {
        "task": "classification",
        "n_train": 160,
        "n_val": 40,
        "n_test": 60,
        "input_shape": [3, 8, 8],
        "num_outputs": 4,
        "class_names": ["0", "1", "2", "3"],
    }
    assert data.input_shape == (3, 8, 8)
    assert labels(data.train_dataloader()).bincount().tolist() == [40] * 4
    assert labels(data.val_dataloader()).bincount().tolist() == [10] * 4
    x, y = next(iter(data.test_dataloader()))
    assert (x.dtype, y.dtype, x.shape) == (torch.float32, torch.int64, (60, 3, 8, 8))


def test_setup_is_idempotent():
    data = ready()
    before = data.train_dataloader().x
    data.setup("test")
    assert data.loads == 1
    assert data.train_dataloader().x is before


def test_training_and_validation_share_no_sample_and_lose_none():
    data = ready(images(240), val_fraction=0.25)
    ids = [batches.x[:, 0, 0, 0].tolist() for batches in (data.train_dataloader(), data.val_dataloader())]
    assert sorted(ids[0] + ids[1]) == list(range(240))


def test_splits_depend_on_the_seed_only():
    first, again, other = (ready(seed=s).val_dataloader().x for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_subsets_are_stratified_and_nested():
    small, large = (ready(n_train=n, n_test=20, val_fraction=0) for n in (40, 80))
    assert labels(small.train_dataloader()).bincount().tolist() == [10] * 4
    assert small.summary()["n_test"] == 20
    identify = [set(map(tuple, d.train_dataloader().x.flatten(1).tolist())) for d in (small, large)]
    assert identify[0] < identify[1]


def test_normalisation_is_fitted_on_the_training_split_only():
    data = ready(test=Split(images(60).x // 4, images(60).y))
    split = data.train_dataloader().x.double() / 255
    torch.testing.assert_close(data.mean.flatten(), split.mean((0, 2, 3)))
    torch.testing.assert_close(data.std.flatten(), split.std((0, 2, 3), unbiased=False))
    whole = data.data[0].x.double().mean((0, 2, 3)) / 255
    assert not torch.allclose(data.mean.flatten(), whole, atol=1e-6)


def test_training_is_shuffled_and_augmented_and_evaluation_is_not():
    data = ready(augment="shift_flip", normalize="none", batch_size=200, val_fraction=0)
    (x, y), raw = next(iter(data.train_dataloader())), data.train_dataloader().x / 255.0
    assert sorted(y.tolist()) == sorted(data.data[0].y.tolist())
    assert not any(torch.equal(x.sort(0)[0][i], raw.sort(0)[0][i]) for i in range(5))
    test, _ = next(iter(data.test_dataloader()))
    torch.testing.assert_close(test, data.data[1].x / 255.0)


def test_no_validation_split():
    assert ready(val_fraction=0).val_dataloader() == []


def test_a_small_fraction_still_gives_one_validation_sample():
    assert ready(images(8), val_fraction=0.01).summary()["n_val"] == 1


def test_regression():
    x = torch.randn(50, 5)
    data = ready(Split(x, x[:, :2]), Split(x, x[:, :2]), normalize="feature")
    assert (data.task, data.num_outputs, data.input_shape) == ("regression", 2, (5,))
    inputs, targets = next(iter(data.train_dataloader()))
    assert (inputs.dtype, targets.dtype, targets.shape[1]) == (torch.float32, torch.float32, 2)


def test_class_names_set_by_load_are_kept_and_count_absent_classes():
    class Named(Memory):
        def load(self):
            self.class_names = ("a", "b", "c", "d", "never seen")
            return super().load()

    data = Named()
    data.setup()
    assert data.num_outputs == 5
    assert data.class_names[4] == "never seen"


def test_probe_is_stratified_nested_normalised_and_never_augmented():
    data = ready(augment="shift_flip")
    x, y = data.probe(40)
    assert y.bincount().tolist() == [10] * 4
    assert torch.equal(data.probe(12)[0], x[:12])
    assert not torch.equal(data.probe(40, seed=1)[0], x)
    train = {
        tuple(row)
        for row in ready().train_dataloader().transform(data.train_dataloader().x, None).flatten(1).tolist()
    }
    assert {tuple(row) for row in x.flatten(1).tolist()} <= train
    assert x.dtype == torch.float32


def test_probe_does_not_depend_on_the_process_and_is_at_most_the_split():
    data = ready()
    alone = data.probe(16)[0]
    data.trainer = trainer(rank=1, world_size=2)
    assert torch.equal(data.probe(16)[0], alone)
    assert len(data.probe(10**6)[0]) == data.summary()["n_train"]


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_probe_of_no_samples(n):
    with pytest.raises(NfaError, match="probe samples"):
        ready().probe(n)


def trainer(rank=0, world_size=1, device="cpu"):
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, global_rank=rank, world_size=world_size)


def test_processes_share_the_samples():
    data = ready()
    parts = []
    for rank in range(2):
        data.trainer = trainer(rank, 2)
        parts.append(data.test_dataloader())
    assert sorted(torch.cat([labels(p) for p in parts]).tolist()) == sorted(data.data[1].y.tolist())


def test_more_processes_than_samples():
    data = ready(test=images(2))
    data.trainer = trainer(0, 3)
    with pytest.raises(NfaError, match="2 samples for 3 processes"):
        data.test_dataloader()


@pytest.mark.parametrize(("free", "home"), [(10**9, "cuda"), (1000, "cpu")])
def test_a_split_lives_on_the_gpu_if_it_takes_less_than_half_of_it(monkeypatch, free, home):
    data, placed = ready(), []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: placed.append(device) or self)
    data.trainer = trainer(device="cuda")
    batches = data.train_dataloader()
    assert placed == [torch.device("cuda")] * (2 if home == "cuda" else 0)
    assert batches.device == torch.device("cuda")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size"),
        ({"eval_batch_size": -3}, "data.eval_batch_size"),
        ({"batch_size": 2.5}, "data.batch_size"),
        ({"n_train": 0}, "data.n_train"),
        ({"n_test": 0}, "data.n_test"),
        ({"n_train": 1e2}, "data.n_train"),
        ({"val_fraction": 1}, "data.val_fraction must be a number of at least 0 and below 1, got 1"),
        ({"val_fraction": -0.1}, "val_fraction"),
        ({"normalize": "pixel"}, "data.normalize must be one of channel, feature, none, got 'pixel'"),
        ({"augment": "mixup"}, "data.augment must be one of none, shift, shift_flip, got 'mixup'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(NfaError, match=message):
        Memory(**options)


def with_nan(split):
    x = split.x.float()
    x[7, 0, 1, 1] = float("nan")
    return Split(x, split.y)


NONE = Split(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))
ONE_CLASS = Split(images().x, torch.full((200,), 3))
BAD_TARGETS = Split(torch.zeros(3, 2), torch.tensor([[0.0], [float("inf")], [1.0]]))
FLAT = Split(torch.randn(20, 4), torch.arange(20) % 2)


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        (images(), images(), {"n_train": 201}, "data.n_train of at most 200"),
        (images(), images(30), {"n_test": 31}, "data.n_test of at most 30"),
        (NONE, images(), {}, "training data are empty"),
        (images(), NONE, {}, "test data are empty"),
        (with_nan(images()), images(), {}, "1 of 200 training samples have NaN .* sample 7"),
        (images(), with_nan(images()), {}, "1 of 200 test samples have NaN"),
        (BAD_TARGETS, BAD_TARGETS, {}, "infinite targets.* sample 1"),
        (ONE_CLASS, images(), {}, "two classes or more, got 180 of class 3"),
        (images(), images(), {"n_train": 2, "val_fraction": 0.5}, "got 1 of class"),
        (images(), images(), {"n_train": 1, "val_fraction": 0.5}, "no training sample is left"),
        (FLAT, FLAT, {"augment": "shift"}, r"for images .* shape \(4,\)"),
        (Split(images().x, images().y - 1), images(), {}, "class indices from 0 to 3, got -1 to 3"),
    ],
)
def test_data_that_cannot_be_used(train, test, options, message):
    with pytest.raises(NfaError, match=message) as error:
        ready(train, test, **options)
    assert "\n" not in str(error.value)


def test_properties_before_setup():
    with pytest.raises(RuntimeError, match=r"setup\(\) first"):
        _ = Memory().num_outputs
