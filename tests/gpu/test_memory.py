"""What a measurement takes on a card, against what it said, and what happens where that is not there."""

import gc

import pytest
import torch
from torch import nn

import nfa
from nfa.kernels.conv import ConvKernel
from nfa.layers.maps import find_maps
from nfa.nets import CNN
from nfa.solvers import cholesky_bytes
from nfa.sweep.footprint import survey
from nfa.sweep.measure import measure_sensitivities
from tests.gpu.device import DEVICE, card

pytestmark = card


def peak_of(work):
    """Bytes at most beyond those before."""
    work()  # work spaces of the libraries, once
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def network():
    torch.manual_seed(0)
    return CNN([3, 32, 32], 10, width=64, depth=4).to(DEVICE).eval()


@pytest.mark.parametrize("samples", [64, 256])
def test_an_audit_takes_what_it_says(samples):
    net, x = network(), torch.randn(samples, 3, 32, 32, device=DEVICE)
    maps = find_maps(net)[0]
    estimate = survey(net, x, maps, {}).total(samples, 1)
    peak = peak_of(lambda: measure_sensitivities(net, x, maps))
    assert estimate / 1.3 < peak < 1.3 * estimate


def test_a_budget_is_kept():
    net, x = network(), torch.randn(512, 3, 32, 32, device=DEVICE)
    whole = peak_of(lambda: nfa.audit(net, x, nulls=0))
    budget = whole / 4
    assert peak_of(lambda: nfa.audit(net, x, nulls=0, memory=budget)) < 1.3 * budget


@pytest.mark.parametrize("n", [500, 2000])
def test_a_kernel_of_images_takes_what_it_says(n):
    X, kernel = torch.rand(n, 3, 16, 16, device=DEVICE), ConvKernel(3, 2)
    peak = peak_of(lambda: kernel.matrix(X))
    assert peak < 1.3 * kernel.memory(X)


def test_cholesky_takes_what_it_says():
    n = 6000
    X = torch.randn(n, 50, device=DEVICE)
    Y = X[:, :3].clone()
    machine = nfa.RFM(rounds=0, solver="cholesky", offset="none")
    peak = peak_of(lambda: machine.fit(X, Y))
    assert peak < 1.3 * cholesky_bytes(n, 3, torch.float32) + X.nbytes * 2


class Hungry(nn.Module):
    """Takes a megabyte and more for each sample."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 2**16), nn.Linear(2**16, 3)

    def forward(self, x):
        h = self.first(x)
        for _ in range(4):
            h = h.tanh()
        return self.last(h)


def test_less_at_a_time_where_memory_runs_out():
    net, x = Hungry().to(DEVICE), torch.randn(2048, 8, device=DEVICE)
    expected = nfa.agop(net, x.split(64), layers="last")["last"].diagonal()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**30) / total)
        found = nfa.agop(net, [x], layers="last")["last"].diagonal()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.allclose(found, expected, rtol=1e-5)


def test_one_sentence_where_one_sample_does_not_fit():
    net, x = Hungry().to(DEVICE), torch.randn(2, 8, device=DEVICE)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**20) / total)
        with pytest.raises(nfa.NfaError, match="out of memory with one sample at a time on cuda"):
            nfa.audit(net, x)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
