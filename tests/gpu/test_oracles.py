"""The table of awkward networks on a card, against per-sample Jacobians over explicit patches on the CPU."""

import pytest
import torch

import nfa
from nfa import reference
from tests.gpu.device import CARD, DEVICE, anywhere
from tests.nfa.cases import CASES

pytestmark = anywhere


def relative(A, B):
    return float((A - B).norm() / B.norm()) if float(B.norm()) else float(A.norm())


def there(inputs):
    return tuple(x.to(DEVICE) for x in inputs) if isinstance(inputs, tuple) else inputs.to(DEVICE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agop_equals_reference(case):
    if case.name.startswith("lazy") and not CARD:
        pytest.skip("modules without shapes are built on devices that PyTorch knows")
    model, inputs = case.build(), case.inputs()
    if case.name.startswith("lazy-unbuilt"):
        model(inputs)
    names = case.layer_names(model)
    slow = {n: reference.layer_agop(model, inputs, n, output_fn=case.output_fn) for n in names}
    batch = there(inputs)
    batch = (batch, None) if isinstance(batch, tuple) else batch
    fast = nfa.agop(model.to(DEVICE), [batch], output_fn=case.output_fn)
    for name in names:
        assert fast[name].device.type == torch.device(DEVICE).type
        assert relative(fast[name].cpu().reshape(slow[name].shape), slow[name]) < 1e-9, name
