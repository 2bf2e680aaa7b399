"""AGOPs of every kind of network elsewhere, against the slow reference on the CPU."""

import pytest
import torch
from torch.utils._pytree import tree_map_only

import nfa
from nfa import reference
from tests.elsewhere.device import NAME
from tests.nfa.cases import CASES
from tests.nfa.sweep.test_awkward_models import Checkpointed, InnerDerivative, Teacher
from tests.nfa.sweep.test_kinds_of_networks import MEASURED, X

# What PyTorch itself cannot do there: move parameters that have no shape yet, replicate.
BUILT = [case for case in CASES if case.name not in ("lazy-unbuilt", "lazy-linear-built")]
KINDS = [name for name in MEASURED if name not in ("lazy", "data parallel")]
AWKWARD = {  # make, what gives the reference, layers
    "activation checkpointing": (lambda: Checkpointed(on=True), lambda: Checkpointed(on=False), "abc"),
    "a layer under no_grad": (Teacher, Teacher, "ac"),
    "a derivative inside": (InnerDerivative, InnerDerivative, "a"),
}


def check(found, expected):
    """An AGOP elsewhere against one on the CPU."""
    assert found.device.type == NAME
    scale = float(expected.norm()) or 1.0
    assert float((found.cpu().reshape(expected.shape) - expected).norm()) / scale < 1e-9


@pytest.mark.parametrize("case", BUILT, ids=lambda case: case.name)
def test_cases(case):
    net, x = case.build(), case.inputs()
    batch = tree_map_only(torch.Tensor, lambda t: t.to(NAME), (x, None) if isinstance(x, tuple) else x)
    found = nfa.agop(case.build().to(NAME), [batch], output_fn=case.output_fn)
    for name in case.layer_names(net):
        check(found[name], reference.layer_agop(net, x, name, output_fn=case.output_fn))


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    make, prefix = MEASURED[name]
    found, here = nfa.agop(make().to(NAME), X.to(NAME).split([16, 1])), make()
    inner = getattr(here, prefix[:-1]) if prefix else here
    for layer in ("0", "2"):
        check(found[prefix + layer], reference.layer_agop(inner, X, layer))


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward(name):
    make, plain, layers = AWKWARD[name]
    torch.manual_seed(0)
    net, here, x = make().double(), plain().double(), torch.randn(6, 5, dtype=torch.float64)
    here.load_state_dict(net.state_dict())
    found = nfa.agop(net.to(NAME), x.to(NAME))
    for layer in layers:
        check(found[layer], reference.layer_agop(here, x, layer))
