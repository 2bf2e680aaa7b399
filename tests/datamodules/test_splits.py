import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.splits import Split
from nfa.inputs.stratify import generator, stratified_order

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


@settings(deadline=None, max_examples=50)
@given(y=LABELS, seed=st.integers(0, 10**6))
def test_every_prefix_holds_the_classes_in_proportion(y, seed):
    order = stratified_order(y, generator(seed))
    assert sorted(order.tolist()) == list(range(len(y)))
    share = y.bincount(minlength=5) / len(y)
    # every class is rounded to half a sample, and so is the common quantile that m samples stand for
    bound = 0.5 + 0.5 * (share > 0).sum() * share + 1e-4
    for m in range(1, len(y) + 1):
        held = y[order[:m]].bincount(minlength=5)
        assert ((held - m * share).abs() <= bound).all()


def test_balanced_classes_stay_balanced():
    y = torch.arange(10).repeat(30)
    held = y[stratified_order(y, generator(0))[:100]].bincount()
    assert held.tolist() == [10] * 10


def test_fewer_samples_than_classes_are_of_different_classes_chosen_by_the_seed():
    y = torch.arange(10).repeat(5)
    chosen = [frozenset(y[stratified_order(y, generator(seed))[:4]].tolist()) for seed in range(20)]
    assert all(len(c) == 4 for c in chosen)
    assert len(set(chosen)) > 10


def test_regression_targets_give_a_plain_permutation():
    y = torch.randn(20, 1)
    assert sorted(stratified_order(y, generator(3)).tolist()) == list(range(20))


def test_generators_depend_on_the_whole_key_only():
    def draw(*key):
        return torch.rand(1, generator=generator(*key)).item()

    assert draw(0, 1) == draw(0, 1)
    assert len({draw(0, 1), draw(1, 0), draw(0), draw(0, "1"), draw(0, 1, 0)}) == 5


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), "as many targets"),
        (torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), "int64"),
        (torch.zeros(2, 2), torch.zeros(2), "float32"),
        (torch.zeros(2, 2), torch.zeros(2, 1, dtype=torch.int64), "int64"),
    ],
)
def test_split_refuses_other_layouts(x, y, message):
    with pytest.raises(ValueError, match=message):
        Split(x, y)
