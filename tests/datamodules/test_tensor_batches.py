import gc
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import TensorBatches
from datamodules.transforms import BatchTransform, Normalize, ShiftFlip

SIZES = {"n": st.integers(1, 70), "batch_size": st.integers(1, 20), "world_size": st.integers(1, 4)}
quick = settings(deadline=None, max_examples=80)


def make(n, batch_size, rank=0, world_size=1, **kwargs):
    x = torch.arange(float(n))
    return TensorBatches(x[:, None], -x, batch_size, rank=rank, world_size=world_size, **kwargs)


def samples(batches):
    return [int(v) for x, _ in batches for v in x[:, 0]]


@quick
@given(**SIZES)
def test_evaluation_gives_each_sample_to_one_rank_and_all_ranks_as_many_batches(n, batch_size, world_size):
    world_size = min(n, world_size)
    ranks = [make(n, batch_size, rank, world_size) for rank in range(world_size)]
    passes = [list(r) for r in ranks]
    assert sorted(i for p in passes for i in samples(p)) == list(range(n))
    assert {len(p) for p in passes} == {len(ranks[0])}
    sizes = [len(x) for p in passes for x, _ in p]
    assert min(sizes) >= 1
    assert max(sizes) <= batch_size + (batch_size == 1 and n % world_size > 0)
    assert max(len(samples(p)) for p in passes) - min(len(samples(p)) for p in passes) <= 1


@quick
@given(**SIZES, seed=st.integers(0, 9), epoch=st.integers(0, 9), drop_last=st.booleans())
def test_training_ranks_take_equal_disjoint_parts(n, batch_size, world_size, seed, epoch, drop_last):
    world_size = min(n, world_size)
    ranks = [
        make(n, batch_size, r, world_size, shuffle=True, seed=seed, drop_last=drop_last)
        for r in range(world_size)
    ]
    for r in ranks:
        r.set_epoch(epoch)
    passes = [list(r) for r in ranks]
    seen = [i for p in passes for i in samples(p)]
    assert len(seen) == len(set(seen))
    assert {tuple(len(x) for x, _ in p) for p in passes} == {tuple(len(x) for x, _ in passes[0])}
    assert {len(p) for p in passes} == {len(r) for r in ranks}
    share = n // world_size
    if drop_last:
        assert len(ranks[0]) == share // batch_size
    else:
        lost = share - len(seen) // world_size
        assert lost == (1 if share > batch_size > 1 and share % batch_size == 1 else 0)


@quick
@given(n=st.integers(2, 70), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_order_is_a_permutation_and_a_pure_function_of_seed_and_epoch(n, seed, epoch):
    first, second = make(n, n, shuffle=True, seed=seed), make(n, n, shuffle=True, seed=seed)
    first.set_epoch(epoch + 1)
    list(first)
    first.set_epoch(epoch)
    second.set_epoch(epoch)
    assert samples(first) == samples(second) == samples(second)
    assert sorted(samples(first)) == list(range(n))


def test_epochs_and_seeds_differ():
    orders = []
    for seed in range(3):
        batches = make(50, 10, shuffle=True, seed=seed)
        for epoch in range(3):
            batches.set_epoch(epoch)
            orders.append(tuple(samples(batches)))
    assert len(set(orders)) == 9


def test_inputs_and_targets_stay_together_and_evaluation_keeps_the_order():
    for shuffle in (True, False):
        assert all(torch.equal(x[:, 0], -y) for x, y in make(23, 5, shuffle=shuffle))
    assert samples(make(23, 5)) == list(range(23))


def test_a_last_training_batch_of_one_is_left_out_unless_it_is_the_only_one():
    assert [len(x) for x, _ in make(9, 4, shuffle=True)] == [4, 4]
    assert [len(x) for x, _ in make(1, 4, shuffle=True)] == [1]
    assert [len(x) for x, _ in make(3, 1, shuffle=True)] == [1, 1, 1]
    assert [len(x) for x, _ in make(9, 4)] == [4, 4, 1]


def image_batches(rank=0, seed=0, world_size=1):
    x = torch.randint(0, 256, (24, 3, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    transform = BatchTransform(Normalize.fit(x, "none"), ShiftFlip(flip=True))
    y = torch.arange(24)
    return TensorBatches(
        x, y, 6, shuffle=True, seed=seed, transform=transform, rank=rank, world_size=world_size
    )


def test_augmentation_is_a_pure_function_of_seed_epoch_and_position():
    def epoch(batches, number):
        batches.set_epoch(number)
        return torch.cat([x for x, _ in batches])

    assert torch.equal(epoch(image_batches(), 3), epoch(image_batches(), 3))
    assert not torch.equal(epoch(image_batches(seed=1), 3), epoch(image_batches(), 3))
    batches = image_batches()
    moved = []
    for number in range(2):  # the same images, augmented otherwise in another epoch
        batches.set_epoch(number)
        x = torch.cat([x for x, _ in batches])
        moved.append(x[torch.cat([y for _, y in batches]).argsort()])
    assert not torch.equal(*moved)


def test_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = [x for x, _ in image_batches()]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    second = []
    for x, _ in image_batches():
        torch.rand(3)
        second.append(x)
    assert all(map(torch.equal, first, second))


def test_ranks_augment_differently():
    draws = [image_batches(rank, world_size=2) for rank in range(2)]
    seen = []
    for batches in draws:
        batches.transform = lambda x, rng: torch.rand(len(x), generator=rng)
        seen.append(next(iter(batches))[0])
    assert not torch.equal(*seen)


def test_no_generator_in_evaluation():
    given_rng = []
    batches = TensorBatches(
        torch.zeros(4, 2), torch.zeros(4), 2, transform=lambda x, rng: given_rng.append(rng) or x
    )
    list(batches)
    assert given_rng == [None, None]


def test_epoch_is_read_when_the_first_batch_is_asked_for():
    batches, expected = make(30, 5, shuffle=True), make(30, 5, shuffle=True)
    iterator = iter(batches)  # Lightning does it in this order
    batches.sampler.set_epoch(4)
    expected.set_epoch(4)
    assert samples(iterator) == samples(expected)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_saved_state_goes_on_with_the_next_batch_once(stop):
    batches = make(20, 5, shuffle=True)
    batches.set_epoch(2)
    iterator = iter(batches)
    for _ in range(stop):
        next(iterator)
    resumed = make(20, 5, shuffle=True)
    resumed.load_state_dict(batches.state_dict())
    resumed.set_epoch(2)
    whole = samples(batches)
    assert samples(resumed) == whole[5 * stop :]
    assert samples(resumed) == whole


@pytest.mark.parametrize("state", [{"epoch": 1, "batches": 2}, {"epoch": 0, "batches": 4}])
def test_state_of_another_or_a_finished_epoch_starts_from_the_beginning(state):
    resumed = make(20, 5, shuffle=True)
    resumed.load_state_dict(state)
    assert len(samples(resumed)) == 20


def test_memory_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        batches = make(8, 2)
        x = weakref.ref(batches)
        del batches
        assert x() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"batch_size": 0},
        {"batch_size": 2, "rank": 2, "world_size": 2},
        {"batch_size": 2, "world_size": 9},
        {"batch_size": 2, "drop_last": True},
    ],
)
def test_sizes_that_do_not_fit(kwargs):
    with pytest.raises(ValueError):
        make(8, **kwargs)
    with pytest.raises(ValueError, match="as many targets"):
        TensorBatches(torch.zeros(3, 1), torch.zeros(2), 1)


def test_number_of_batches():
    assert len(make(10, 4)) == math.ceil(10 / 4)
    assert len(make(10, 4, shuffle=True, drop_last=True)) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("home", ["cpu", "cuda"])
def test_batches_arrive_on_the_gpu_and_are_those_of_the_cpu(home):
    cpu = image_batches()
    gpu = TensorBatches(
        cpu.x.to(home), cpu.y.to(home), 6, shuffle=True, transform=cpu.transform, device="cuda"
    )
    for (x, y), (x_gpu, y_gpu) in zip(cpu, gpu, strict=True):
        assert x_gpu.is_cuda
        assert y_gpu.is_cuda
        torch.testing.assert_close(x_gpu.cpu(), x)
        assert torch.equal(y_gpu.cpu(), y)


def test_several_passes_in_an_epoch():
    once = TensorBatches(torch.arange(10.0)[:, None], torch.arange(10), 4, shuffle=True, seed=3)
    batches = TensorBatches(torch.arange(10.0)[:, None], torch.arange(10), 4, shuffle=True, seed=3, passes=3)
    assert len(batches) == 3 * len(once) == 9
    orders = torch.cat([y for _, y in batches]).reshape(3, 10)
    assert torch.equal(orders[0], torch.cat([y for _, y in once]))
    assert all(torch.equal(order.sort()[0], torch.arange(10)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    with pytest.raises(ValueError, match="several of training"):
        TensorBatches(torch.zeros(3, 1), torch.zeros(3), 2, passes=2)
