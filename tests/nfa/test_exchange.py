"""What processes say to one another: of one alone, and of several of which the others are made up."""

import pytest
import torch
from torch import distributed

from nfa import processes
from nfa.errors import NfaError, ProcessLost


@pytest.fixture
def group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_without_a_group_there_is_nobody_to_share_with():
    own = torch.arange(6.0).view(3, 2)
    assert processes.interleaved(own) is own
    assert processes.told_by_all("word") == ["word"]
    assert processes.neighbours() == 1
    with pytest.raises(NfaError, match="start the script with torchrun"):
        processes.check_group()


def test_a_group_of_one(group):
    own = torch.arange(6.0).view(3, 2)
    processes.check_group()
    assert processes.own_span(5) == slice(0, 5)
    for found in (processes.interleaved(own), processes.gathered(own, 3), processes.summed(own.clone())):
        assert torch.equal(found, own)
    assert processes.least(2.5) == 2.5
    assert processes.told_by_all("word") == ["word"]
    assert processes.neighbours() == 1
    processes.check_same("points", own)


def several(monkeypatch, *parts, rank=0):
    """The processes of these rows, of which this is one."""
    monkeypatch.setattr(processes, "in_group", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: len(parts))
    monkeypatch.setattr(distributed, "get_rank", lambda: rank)

    def all_gather(found, own):
        counts = own.dim() == 1 and own.dtype == torch.int64
        for place, part in zip(found, parts, strict=True):
            if counts:
                place.copy_(torch.tensor([len(part)]))
            else:  # each sends as many rows as the longest one has
                place.zero_()[: len(part)] = part

    monkeypatch.setattr(distributed, "all_gather", all_gather)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_rows_of_a_distributed_sampler_come_back_in_order(monkeypatch, rank):
    whole = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    parts = [whole[r::3] for r in range(3)]
    several(monkeypatch, *parts, rank=rank)
    assert torch.equal(processes.interleaved(parts[rank]), whole)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_shares_are_nearly_equal_and_come_back_in_order(monkeypatch, rank):
    whole = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    several(monkeypatch, whole[:2], whole[2:5], whole[5:], rank=rank)
    own = whole[processes.own_span(8)]
    assert len(own) in (2, 3)
    assert torch.equal(processes.gathered(own, 8), whole)


def test_other_data_of_another_process_are_refused(monkeypatch):
    several(monkeypatch, 1, 2)
    other = torch.tensor([3.0, 7.0, 21.0], dtype=torch.float64)  # how many numbers, their sum, and of squares

    def all_reduce(own, operation):
        assert operation == distributed.ReduceOp.MIN
        own.copy_(torch.minimum(own, torch.cat([other, -other])))

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "get_backend", lambda: "gloo")
    processes.check_same("points", torch.tensor([3.0, 3.0, 1.0]) + torch.tensor([1.0, -1.0, 0.0]))
    with pytest.raises(NfaError, match="the processes have different points: each must be given the same"):
        processes.check_same("points", torch.tensor([3.0, 3.0, 1.0]))


def test_a_lost_process_is_one_line(monkeypatch):
    several(monkeypatch, 1, 2, rank=1)

    def broken(*arguments):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "all_reduce", broken)
    with pytest.raises(ProcessLost, match="process 1 of 2 lost another one") as lost:
        processes.summed(torch.ones(2))
    assert "\n" not in str(lost.value)
    assert str(lost.value.__cause__) == "Connection closed by peer"
