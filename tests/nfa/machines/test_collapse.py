"""NC1 and NC2 against the loop oracle, by hand, and where they are undefined."""

import math

import pytest
import torch

from nfa import NfaError
from nfa.machines import collapse
from nfa.machines.collapse import nc1, nc2
from nfa.reference import collapse as slow_collapse

D = torch.float64


def clouds(classes=4, each=(5, 3, 7, 4), d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((size,), c) for c, size in zip(range(classes), each, strict=True)])
    means = torch.randn(classes, d, generator=generator, dtype=D)
    return means[labels] + 0.3 * torch.randn(len(labels), d, generator=generator, dtype=D), labels


@pytest.mark.parametrize("divisor", ["n", "Cn"])
def test_both_equal_the_oracle_for_classes_of_different_size(divisor):
    H, labels = clouds()
    assert nc1(H, labels, divisor) == pytest.approx(
        slow_collapse.nc1(H, labels.tolist(), divisor=divisor), rel=1e-12
    )
    assert nc2(H, labels) == pytest.approx(slow_collapse.nc2(H, labels.tolist()), rel=1e-12)


def test_sigma_w_over_n_is_c_times_that_over_cn():
    H, labels = clouds()
    assert nc1(H, labels, "n") / nc1(H, labels, "Cn") == pytest.approx(4, rel=1e-15)


def test_two_clusters_by_hand():
    H = torch.tensor([[1.0], [3.0], [9.0], [11.0], [10.0], [10.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 1])  # means 2 and 10 around 6: between 16, within 4 over n = 6
    assert nc1(H, labels) == pytest.approx(4 / 6 / 16)
    assert nc1(H, labels, "Cn") == pytest.approx(4 / 12 / 16)
    assert nc2(H, labels) == pytest.approx(0, abs=1e-30)  # two classes are always a simplex


def test_a_collapsed_simplex_has_both_zero_wherever_it_lies():
    labels = torch.arange(5).repeat(3)
    H = 4 * torch.eye(5, dtype=D)[labels] + torch.arange(5, dtype=D)
    assert nc1(H, labels) == pytest.approx(0, abs=1e-28)
    assert nc2(H, labels) == pytest.approx(0, abs=1e-28)


def test_collapsed_classes_that_are_no_simplex():
    labels = torch.tensor([0, 0, 1, 1, 2])
    H = torch.tensor([[-1.0], [-1.0], [-1.0], [-1.0], [2.0]], dtype=D)
    assert nc1(H, labels) == 0
    assert nc2(H, labels) == pytest.approx((2 * 2.25 + 4 * 0.25) / 9)


def test_classes_are_those_that_occur_and_blocks_change_nothing(monkeypatch):
    H, labels = clouds()
    names = torch.tensor([7, 2, 9, 4])[labels]
    before = nc1(H, labels), nc2(H, labels)
    assert (nc1(H, names), nc2(H, names)) == pytest.approx(before, rel=1e-12)
    monkeypatch.setattr(collapse, "_ENTRIES", 20)
    assert (nc1(H, labels), nc2(H, labels)) == pytest.approx(before, rel=1e-12)


def test_float32_far_from_the_origin_keeps_its_digits():
    H, labels = clouds()
    H = (H + 100).float()
    assert nc1(H, labels) == pytest.approx(nc1(H.double() - 100, labels), rel=1e-9)


def test_undefined_numbers_and_bad_input():
    labels = torch.tensor([0, 0, 1, 1])
    assert math.isnan(nc1(torch.ones(4, 2), labels))
    assert math.isnan(nc2(torch.ones(4, 2), labels))
    assert nc1(torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]), labels) == math.inf
    for arguments, message in (
        ((torch.ones(4, 2), labels[:3]), r"expected features \(n, d\) and class indices"),
        ((torch.ones(4, 2), labels.float()), "class indices"),
        ((torch.ones(4, 2), labels * 0), "two classes or more, got 1"),
        ((torch.ones(4, 2), labels, "C"), "divisor must be one of n, Cn"),
    ):
        with pytest.raises(NfaError, match=message):
            nc1(*arguments)
