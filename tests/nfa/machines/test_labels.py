"""Integers, bools and texts are labels of classes whatever their values; floating targets are numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfa import RFM, ConvRFM, DeepConvRFM, DeepRFM, NfaError
from nfa.machines.target_code import TargetCode

D = torch.float64
INDEX = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0, 0, 1, 2])
FLAT = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=D)
IMAGES = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=D)
MACHINES = {
    "rfm": lambda: RFM(bandwidth=2.0, rounds=1),
    "deep_rfm": lambda: DeepRFM(2, 8, ridge=1e-3),
    "conv_rfm": lambda: ConvRFM(2, 1, rounds=1),
    "deep_conv_rfm": lambda: DeepConvRFM(2, 2, width=4, rounds=1),
}


def points(name):
    return IMAGES if "conv" in name else FLAT


def renamed(labels):
    return [labels[index] for index in INDEX.tolist()]


@pytest.mark.parametrize(
    "labels", [(-1, 1, 5), (9, 10, 11), (0, 1, 7), ("ash", "beech", "élm"), (-3, 0, 2**40)]
)
@pytest.mark.parametrize("name", MACHINES)
def test_other_names_are_the_same_fit(name, labels, tmp_path):
    X, y = points(name), renamed(labels)
    plain = MACHINES[name]().fit(X, INDEX)
    given = torch.tensor(y) if isinstance(labels[0], int) else y
    machine = MACHINES[name]().fit(X, given, X + 0.1, given)
    assert machine.scores(X).shape == (12, 3)
    assert torch.equal(MACHINES[name]().fit(X, given).scores(X), plain.scores(X))
    assert machine.classes == labels
    assert plain.classes == (0, 1, 2)
    assert list(machine.predict(X)) == [labels[i] for i in machine.scores(X).argmax(1).tolist()]
    assert machine.history[-1]["val_accuracy"] > 0.5
    machine.save(tmp_path / "machine.safetensors")
    again = type(machine).load(tmp_path / "machine.safetensors")
    assert again.classes == labels
    assert list(again.predict(X)) == list(machine.predict(X))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    names=st.lists(st.integers(-(2**62), 2**62) | st.text(min_size=1), min_size=3, max_size=3, unique=True)
)
def test_any_names(names):
    names = sorted(names) if len({type(name) for name in names}) == 1 else sorted(str(name) for name in names)
    if len(set(names)) < 3:
        return
    y = renamed(names) if isinstance(names[0], str) else torch.tensor(renamed(names))
    machine = RFM(bandwidth=2.0, rounds=0).fit(FLAT, y)
    assert list(machine.predict(FLAT)) == renamed(names)  # the fit is exact up to its ridge


def test_predictions_are_of_the_kind_of_the_labels():
    two = (INDEX > 0).long()
    for y in (two, two * 2 - 1, two + 9, two.bool(), two.to(torch.uint8), two[:, None], two.to(torch.int16)):
        predicted = RFM(bandwidth=2.0, rounds=1).fit(FLAT, y).predict(FLAT)
        assert predicted.dtype == (torch.bool if y.dtype == torch.bool else torch.int64)
        assert torch.equal(predicted, y.flatten().to(predicted.dtype))
    machine = RFM(bandwidth=2.0, rounds=0)
    for column in (np.array(renamed("abc")), np.array(renamed("abc"), dtype=object)[:, None]):
        assert machine.fit(FLAT, column).predict(FLAT) == renamed("abc")
    assert machine.fit(FLAT, two.double()).classes == ()
    assert machine.predict(FLAT).dtype == D


def test_a_class_that_only_the_validation_data_have():
    y, y_val = torch.where(INDEX == 1, 0, INDEX), INDEX
    machine = RFM(bandwidth=2.0, rounds=1).fit(FLAT, y, FLAT, y_val)
    assert machine.classes == (0, 1, 2)
    assert not machine.scores(FLAT)[:, 1].any()
    right = float((machine.predict(FLAT) == y_val).double().mean())
    assert machine.history[machine.best_round]["val_accuracy"] == pytest.approx(right)
    assert right < 1


def test_the_code_of_ordinary_indices_is_the_plain_one():
    assert TargetCode.of(INDEX) == TargetCode(3, outputs=3)
    assert TargetCode.of(INDEX > 0).labels == (False, True)
    assert TargetCode(2, labels=[9, 10]).labels == (9, 10)


@pytest.mark.parametrize(
    ("y", "y_val", "message"),
    [
        (INDEX + 5, INDEX, "expected labels among 5, 6, 7, as in the fit, got 0"),
        (INDEX, INDEX + 1, "expected class indices .* from 0 to 2, as in the fit, got 3"),
        (renamed("abc"), renamed("abd"), "expected labels among 'a', 'b', 'c', as in the fit, got 'd'"),
        (renamed("abc"), INDEX, "expected labels among 'a', 'b', 'c', as in the fit, got a tensor"),
        (INDEX, renamed("abc"), "expected class indices .* got a list"),
        (INDEX, INDEX.double(), "expected class indices"),
        (INDEX.double(), renamed("abc"), "expected real targets, as in the fit, got a list"),
        (INDEX * 0, INDEX, "one class only"),
        (["a"] * 12, INDEX, "one class only"),
        (INDEX[:, None].repeat(1, 2), INDEX, "expected labels .n,. or .n, 1."),
        ("abcabcabcabc", INDEX, "expected targets as a dense tensor"),
        ([*renamed("abc")[:-1], 3], INDEX, "all texts, got 3"),
    ],
)
def test_other_labels_are_refused(y, y_val, message):
    with pytest.raises(NfaError, match=message):
        RFM(rounds=0).fit(FLAT, y, FLAT, y_val)


@pytest.mark.parametrize("labels", [[1], [2, 1], [1, 1], [0.5, 1.5], [True, 2], "ab", [1, "b"], [0, 2**70]])
def test_labels_of_damaged_files(labels):
    with pytest.raises(NfaError, match="labels must be 2 bools, integers or texts, ascending"):
        TargetCode(2, labels=labels)
