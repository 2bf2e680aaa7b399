"""Generators are found through whatever holds them, and no object is asked for what it does not keep."""

import random
from functools import partial

import numpy
import pytest
import torch

from nfa.monitor.generators import same_generators


class Summary:
    """Takes names of attributes for keys, as some loggers do."""

    def __init__(self, held):
        object.__setattr__(self, "held", held)

    def __getattr__(self, name):
        raise KeyError(name)


class Slots:
    __slots__ = ()

    def __getattr__(self, name):
        raise RuntimeError(name)


class Holder:
    def __init__(self, held):
        self.held = held

    def draw(self):
        return self.held.random()


@pytest.mark.parametrize(
    "hold",
    [
        Holder,
        Summary,
        lambda held: Holder(held).draw,
        lambda held: held.random,
        lambda held: partial(print, {"a": [held]}),
        lambda held: [Slots(), Summary(None), Holder(held)],
    ],
)
def test_a_generator_is_put_back(hold):
    held = random.Random(1)
    state = held.getstate()
    with same_generators(hold(held)):
        held.random()
    assert held.getstate() == state


@pytest.mark.parametrize("thing", [lambda: Summary(None), Slots, lambda: None, lambda: torch.nn.Linear(2, 2)])
def test_what_holds_none_is_left_alone(thing):
    with same_generators(thing()), same_generators([thing(), print, 3]):
        pass


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: numpy.random.RandomState(1), lambda held: held.rand()),
        (lambda: numpy.random.default_rng(1), lambda held: held.random()),
        (lambda: numpy.random.PCG64(1), lambda held: held.random_raw()),
        (lambda: torch.Generator().manual_seed(1), lambda held: float(torch.rand(1, generator=held))),
    ],
    ids=["RandomState", "Generator", "BitGenerator", "torch"],
)
def test_generators_of_numpy_and_pytorch(make, draw):
    held, expected = make(), draw(make())
    with same_generators(Holder(held)):
        assert draw(held) == expected
    assert draw(held) == expected
