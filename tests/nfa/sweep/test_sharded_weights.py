"""Networks whose weights are shared out over processes are measured as whole ones are."""

import pytest
import torch
from torch import nn

from nfa import audit
from tests.processes import run

AUDIT = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from tests.nfa.sweep.test_sharded_weights import NETS, inputs
mesh, found = init_device_mesh("cpu", (world,)), {}
for name, make in NETS.items():
    net, X = make(), inputs(name)
    for part in net.children():
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh)
    fully_shard(net, mesh=mesh)
    before = {key: p.to_local().clone() for key, p in net.named_parameters()}
    whole = nfa.audit(net, [X])
    shared = nfa.audit(net, [X[rank::world]], distributed=True)
    assert all(torch.equal(p.to_local(), before[key]) for key, p in net.named_parameters())
    assert all(p.grad is None for p in net.parameters())
    net(X).square().sum().backward()  # goes on as before
    assert all(p.grad is not None for p in net.parameters())
    found[name] = [(a.layer, a.status, a.alignment, a.cosine, b.alignment, b.cosine)
                   for a, b in zip(whole.rows, shared.rows, strict=True)]
torch.save(found, f"{out}.{rank}")
"""


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 5)
    ).double()


def cnn():
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=2)
    )
    return (
        nn.Sequential(
            body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
        )
        .eval()
        .double()
    )


def transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)).eval().double()


NETS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}


def inputs(name):
    shape = {"mlp": (12,), "cnn": (2, 6, 6), "transformer": (5, 8)}[name]
    return torch.randn(24, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.long
def test_fully_shard(tmp_path):
    run(2, tmp_path, AUDIT)
    for rank in range(2):
        found = torch.load(tmp_path / f"found.{rank}")
        for name, make in NETS.items():
            rows = {row.layer: row for row in audit(make(), [inputs(name)]).rows}
            for layer, status, *numbers in found[name]:
                row = rows[layer]
                assert status == row.status, layer
                expected = torch.tensor([row.alignment, row.cosine] * 2)
                torch.testing.assert_close(
                    torch.tensor(numbers), expected, rtol=1e-9, atol=1e-9, equal_nan=True
                )
