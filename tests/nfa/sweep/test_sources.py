"""Data as people have them: the same numbers from a tensor, arrays, a data set, a loader, a data module."""

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import nfa

X, Y = torch.randn(70, 4, generator=torch.Generator().manual_seed(0)), torch.arange(70) % 3


class Samples(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


class Arrays(Samples):
    def __getitem__(self, i):
        return X[i].numpy(), numpy.int64(Y[i])


class Named(Samples):
    def __getitem__(self, i):
        return {"input": X[i], "labels": Y[i]}


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


class Data:
    def setup(self, stage):
        self.train = Samples()

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=64)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def set_up():
    data = Data()
    data.setup("fit")
    return data


def read_only():
    array = X.numpy().copy()
    array.setflags(write=False)
    return array


PARTS = (X[:64], X[64:])
SOURCES = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "array that cannot be written": read_only,
    "array of doubles": lambda: X.double().numpy(),
    "arrays": lambda: [x.numpy() for x in PARTS],
    "pairs of arrays": lambda: [(X.numpy(), Y.numpy())],
    "arrays by name": lambda: [{"input": X.numpy(), "labels": Y.numpy()}],
    "lists of arrays": lambda: ([x.numpy(), y.numpy()] for x, y in zip(PARTS, (Y[:64], Y[64:]), strict=True)),
    "data set": Samples,
    "data set of tensors": lambda: TensorDataset(X, Y),
    "data set of arrays": Arrays,
    "data set of dictionaries": Named,
    "stream": Stream,
    "loader": lambda: DataLoader(Samples(), batch_size=64),
    "data module": set_up,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_same_samples_give_the_same_rows(net, source):
    expected, report = nfa.audit(net, [X], nulls=2), nfa.audit(net, source(), nulls=2)
    assert report.meta["samples"] == 70
    for row, other in zip(expected.rows, report.rows, strict=True):
        assert other.cosine == pytest.approx(row.cosine, rel=1e-5)
        assert other.alignment == pytest.approx(row.alignment, rel=1e-5, nan_ok=True)


def test_the_loss_sees_targets_of_arrays(net):
    expected = nfa.audit(net, [(X, Y)], nulls=2, output="loss").rows
    rows = nfa.audit(net, [(X.numpy(), Y.numpy())], nulls=2, output="loss").rows
    assert repr(rows) == repr(expected)


def test_what_is_given_stays_as_it_is(net):
    array = X.numpy().copy()
    nfa.audit(nn.Sequential(nn.ReLU(inplace=True), net), [array], nulls=2)
    assert numpy.array_equal(array, X.numpy())
