"""The first samples of some data: the same again for a resumed run, and shared among processes."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from nfa import NfaError
from nfa.monitor.samples import first_samples, is_readable, samples_in, share_of

X = torch.arange(40.0).reshape(20, 2)


class Counting:
    """A sampler that begins another order each time it is asked, as some libraries' do."""

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return len(X)

    def __iter__(self):
        order = torch.randperm(len(X), generator=torch.Generator().manual_seed(self.epoch)).tolist()
        self.epoch += 1
        return iter(order)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


def inputs_of(pairs):
    return torch.cat([inputs for inputs, _ in pairs])


def test_the_first_ones_as_they_come_cut_to_the_number():
    pairs = first_samples([(X[:8], torch.zeros(8)), (X[8:], torch.ones(12))], 11)
    assert torch.equal(inputs_of(pairs), X[:11])
    assert [len(target) for _, target in pairs] == [8, 3]
    assert samples_in(pairs) == 11


def test_they_are_copies():
    x = X.clone()
    pairs = first_samples([x], 5)
    x.zero_()
    assert torch.equal(inputs_of(pairs), X[:5])


def test_random_order_is_that_of_the_seed_and_the_next_epoch_is_what_it_was():
    loader = DataLoader(TensorDataset(X), batch_size=4, shuffle=True)
    torch.manual_seed(7)
    expected = inputs_of((batch[0], None) for batch in loader)
    torch.manual_seed(7)
    first = inputs_of(first_samples(loader, 8, seed=1))
    assert torch.equal(inputs_of((batch[0], None) for batch in loader), expected)
    assert torch.equal(inputs_of(first_samples(loader, 8, seed=1)), first)
    assert not torch.equal(inputs_of(first_samples(loader, 8, seed=2)), first)


def test_a_sampler_that_counts_epochs_starts_at_the_first_and_goes_on_where_it_was():
    sampler = Counting()
    loader = DataLoader(TensorDataset(X), batch_size=4, sampler=sampler)
    first = inputs_of(first_samples(loader, 8))
    sampler.epoch = 3
    assert torch.equal(inputs_of(first_samples(loader, 8)), first)
    assert sampler.epoch == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [4, None])
def test_loaders_with_workers_are_read_without_them(workers, batch_size):
    data = TensorDataset(X) if batch_size else [X[:3], X[3:7]]
    loader = DataLoader(data, batch_size=batch_size, num_workers=workers, persistent_workers=bool(workers))
    pairs = first_samples(loader, 6)
    assert torch.equal(inputs_of(pairs), X[:6])
    assert loader.__dict__.get("_iterator") is None


def test_a_stream_can_not_be_read_twice():
    assert is_readable(DataLoader(TensorDataset(X), sampler=RandomSampler(TensorDataset(X))))
    assert not is_readable(DataLoader(Stream()))
    assert not is_readable(iter([X]))
    pairs = first_samples(DataLoader(Stream(), batch_size=4, num_workers=1), 5)
    assert torch.equal(inputs_of(pairs), X[:5])


def test_the_processes_share_every_sample_among_them():
    pairs = first_samples([{"x": X[:5], "labels": torch.arange(5)}, {"x": X[5:12], "labels": None}], 12)
    shares = [share_of(pairs, rank, 3, batch_size=2) for rank in range(3)]
    together = torch.cat([inputs["x"] for share in shares for inputs, _ in share])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, X[:12].tolist()))
    assert max(len(inputs["x"]) for share in shares for inputs, _ in share) == 2


def test_too_few_for_the_processes():
    with pytest.raises(NfaError, match=r"samples=2 cannot be shared by 3 processes"):
        share_of(first_samples([X[:2]], 5), 0, 3)
