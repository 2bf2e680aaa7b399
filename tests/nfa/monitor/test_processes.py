"""Two processes that train together measure what one does alone, and agree when to."""

import os
import subprocess
import sys

import pytest

from nfa.ansatz.row import read_csv
from tests.waiting import HANGS, meeting_place

LOOP = """
import sys
import torch
import nfa
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(64, 6), torch.arange(64) % 3
net = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))
folder, together = sys.argv[1], len(sys.argv) > 2
first, every = 0, 1
if together:
    torch.distributed.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(net)
    first, every = torch.distributed.get_rank(), 2
# the first process's samples count: those of the others are none
batches = [(x, y)] if first == 0 else [(x[:8] * 0, y[:8])]
monitor = nfa.Monitor(net, batches, every=10, samples=41, nulls=2, folder=folder, quiet=True)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for step in range(1, 31):
    nn.functional.cross_entropy(net(x[first::every]), y[first::every]).backward()
    optimizer.step()
    optimizer.zero_grad()
    monitor.step(step)
budget = nfa.Monitor(net, [x], budget=0.2, nulls=2, quiet=True)
for step in range(1, 25):
    budget.step(step)
chosen = [None, None]
if together:
    torch.distributed.all_gather_object(chosen, budget.every)
    torch.distributed.destroy_process_group()
assert chosen[0] == chosen[1]
"""


def start(folder, **environment):
    words = [sys.executable, "-c", LOOP, str(folder), *(["together"] if environment else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_two_processes_measure_what_one_does(tmp_path):
    place = meeting_place()
    jobs = [start(tmp_path / "one")]
    jobs += [start(tmp_path / "two", RANK=str(rank), WORLD_SIZE="2", **place) for rank in range(2)]
    for job in jobs:
        _, err = job.communicate(timeout=HANGS)
        assert job.returncode == 0, err
    one, two = (read_csv(tmp_path / name / "ansatz.csv") for name in ("one", "two"))
    assert [(row.epoch, row.layer) for row in two] == [(row.epoch, row.layer) for row in one]
    for a, b in zip(one, two, strict=True):
        for column in ("alignment", "cosine", "pearson", "null_mean", "init_cosine"):
            assert getattr(b, column) == pytest.approx(getattr(a, column), rel=1e-4, abs=1e-6, nan_ok=True)
