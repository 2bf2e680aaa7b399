"""Kernels of one's own: what a machine would misread is refused where it is entered."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from nfa import RFM, DeepRFM, NfaError
from nfa.kernels import KERNELS, Laplace, RadialKernel
from nfa.kernels.registry import KernelRegistry


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(KERNELS, "data", dict(KERNELS))


@dataclass(frozen=True)
class Stretched(Laplace):
    stretch: float = 1.0


@dataclass(frozen=True)
class Powered(Laplace):
    power: float = 1.0


def enter(name, kernel):
    KERNELS[name] = kernel


@pytest.mark.parametrize("enter", [enter, lambda name, kernel: KERNELS.update({name: kernel})])
def test_an_option_that_a_machine_would_take_is_refused(enter):
    enter("stretched", Stretched)
    assert KERNELS.options_of("stretched") == ("stretch",)
    with pytest.raises(NfaError, match="'powered' has an option 'power', which the machine DeepRFM has too"):
        enter("powered", Powered)
    assert "powered" not in KERNELS


def test_a_machine_that_would_take_the_option_of_a_kernel_is_refused():
    KERNELS["stretched"] = Stretched
    with pytest.raises(NfaError, match="option 'stretch', which the machine Elastic has too"):

        class Elastic(RFM):
            defaults: ClassVar = {**RFM.defaults, "stretch": 2.0}

    del KERNELS["stretched"]
    with pytest.raises(NfaError, match="has no option 'stretch'"):
        DeepRFM(stretch=2.0)
    KERNELS["stretched"] = Stretched  # what was refused keeps no name


@pytest.mark.parametrize(
    ("name", "kernel", "message"),
    [
        ("Stretched", Stretched, "under a name in small letters, got 'Stretched'"),
        (3, Stretched, "under a name in small letters, got 3"),
        ("linear", Stretched, "'linear' is the name of another kernel"),
        ("stretched", Stretched(1.0), "must be a subclass of RadialKernel, got a Stretched"),
        ("stretched", dict, "must be a subclass of RadialKernel, got the class dict"),
    ],
)
def test_what_is_no_kernel_of_the_distance_is_refused(name, kernel, message):
    before = dict(KERNELS)
    with pytest.raises(NfaError, match=message):
        enter(name, kernel)
    assert KERNELS == before


def test_a_registry_checks_what_it_begins_with():
    with pytest.raises(NfaError, match="small letters"):
        KernelRegistry(RadialKernel, {"Laplace": Laplace})
